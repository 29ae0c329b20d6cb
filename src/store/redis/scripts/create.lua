-- KEYS: session, index. ARGV: grace, payload, ttl, owner, cap. Answers 1: stored, 0: taken.
local there = live(KEYS[1])
if there then return there == ARGV[2] and 1 or 0 end
if ARGV[5] ~= '' then need('DEL', KEYS[1]) end
local owner = owner_of(KEYS[2], KEYS[1])
reach(KEYS[2], ARGV[4])
-- What a session left here that expired and was not reaped yet. Not otherwise: after a DEL Redis would take the SET also at
-- maxmemory.
if redis.call('EXISTS', KEYS[1]) == 1 then leave(KEYS[1]) end
put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
disown(KEYS[2], KEYS[1], owner)
bind(KEYS[2], KEYS[1], ARGV[4], ARGV[5])
return 1
