-- KEYS: session, index. ARGV: grace, payload, ttl, and perhaps the payload that is expected there.
-- Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
local there, left = live(KEYS[1])
if not there then return 0 end
if ARGV[4] then
  if there == ARGV[2] then return 1 end
  if there ~= ARGV[4] then return {there, left or -1} end
end
put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
return 1
