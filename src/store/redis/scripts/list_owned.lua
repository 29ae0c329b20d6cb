-- KEYS: index. ARGV: owner, how many. Answers key, payload, milliseconds left (-1: it does not expire) and since
-- when of the owner's sessions that live, the newest first.
-- include principals
local entries = redis.call('ZRANGE', principals(KEYS[1]).owned .. ARGV[1], 0, ARGV[2] - 1, 'REV', 'WITHSCORES')
local answer = {}
for position = 1, #entries, 2 do
  local key = entries[position]
  local payload, left = redis.call('GET', key), redis.call('PTTL', key)
  if payload and (left == -1 or left > grace) then
    answer[#answer + 1] = {key, payload, left == -1 and -1 or left - grace, tonumber(entries[position + 1])}
  end
end
return answer
