-- KEYS: session, index. ARGV: grace, payload, ttl, owner, cap. Answers 1: stored, 0: taken.
local there = live(KEYS[1])
if there then return there == ARGV[2] and 1 or 0 end
-- What a session left here that expired and was not reaped yet.
leave(KEYS[1])
put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
disown(KEYS[2], KEYS[1])
bind(KEYS[2], KEYS[1], ARGV[4], ARGV[5])
return 1
