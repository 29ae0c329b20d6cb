-- KEYS: session, index. ARGV: payload, milliseconds that the data lives, companions, owner, cap, and perhaps the payload that
-- is expected there. Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
-- include companions -- companions
-- include principals
local key, index, old, expected = KEYS[1], KEYS[2], nil, ARGV[5 + companions]
local owner, cap, p = ARGV[3 + companions], ARGV[4 + companions], principals(index)
-- include alive
-- include expected
local had, since = p.prepare(key, owner, cap)
-- include put
p.bind(key, owner, cap, had, since)
return 1
