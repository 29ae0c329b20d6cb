-- KEYS: session, index. ARGV: payload, milliseconds that the data lives, companions, and perhaps how the session is expected to
-- be and as what. It goes on belonging to whom it belongs.
-- Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
-- include companions -- companions
local key, index, old = KEYS[1], KEYS[2], nil
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
-- include expect
-- include write
return 1
