-- KEYS: session, index. ARGV: payload, milliseconds that the data lives, companions, and perhaps the payload that is expected
-- there. The session goes on belonging to whom it belongs.
-- Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
-- include companions -- companions
local key, index, old, expected = KEYS[1], KEYS[2], nil, ARGV[3 + companions]
-- include alive
-- include expected
-- include put
return 1
