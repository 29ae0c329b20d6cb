-- KEYS: index. ARGV: grace, owner, how many. Answers key, payload, milliseconds left (-1: it does not expire) and since
-- when of the owner's sessions that live, the newest first.
local _, owned = owners_of(KEYS[1])
local entries = redis.call('ZRANGE', owned .. ARGV[2], 0, ARGV[3] - 1, 'REV', 'WITHSCORES')
local answer = {}
for position = 1, #entries, 2 do
  local key = entries[position]
  local payload, left = live(key, true)
  if payload then
    answer[#answer + 1] = {key, payload, left or -1, tonumber(entries[position + 1])}
  end
end
return answer
