-- KEYS: session, index. ARGV: grace, payload, ttl. Answers 1: stored, 0: taken.
local there = live(KEYS[1])
if there then return there == ARGV[2] and 1 or 0 end
put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
return 1
