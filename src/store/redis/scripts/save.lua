-- KEYS: session, index. ARGV: grace, payload, ttl, owner, cap, and perhaps the payload that is expected there.
-- Answers 1: stored, 0: missing, or the payload in the way and the milliseconds it has left.
local there = live(KEYS[1])
if not there then return 0 end
local expected = optional(6)
if expected then
  if there == ARGV[2] then return 1 end
  if there ~= expected then
    local _, left = live(KEYS[1], true)
    return {there, left or -1}
  end
end
if ARGV[5] ~= '' then need('DEL', KEYS[1]) end
if ARGV[4] == '=' then
  put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
  return 1
end
local owner, since = owner_of(KEYS[2], KEYS[1])
reach(KEYS[2], ARGV[4])
put(KEYS[1], ARGV[2], ARGV[3], KEYS[2])
disown(KEYS[2], KEYS[1], owner)
bind(KEYS[2], KEYS[1], ARGV[4], ARGV[5], owner, since)
return 1
