-- KEYS: session, index. ARGV: payload, milliseconds that the data lives, companions, how the session is expected to be and as
-- what, owner, cap.
-- Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
-- include companions -- companions
-- include principals
local key, index, old = KEYS[1], KEYS[2], nil
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
local owner, cap, p = ARGV[5 + companions], ARGV[6 + companions], principals(index)
-- include expect
local had, since = p.before_write(key, owner, cap)
-- include write
p.after_write(key, owner, cap, had, since)
return 1
