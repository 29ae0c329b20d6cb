-- KEYS: index. ARGV: entries to skip, entries to look at.
-- Answers of each entry, the one that expires last first, its key, its score and the milliseconds the session has left: -1 if
-- it does not expire, -2 if it is gone.
-- include clock
local found = redis.call(
  'ZRANGE', KEYS[1], '+inf', '(' .. clock(), 'BYSCORE', 'REV', 'LIMIT', ARGV[1], ARGV[2], 'WITHSCORES')
local answer = {}
for position = 1, #found, 2 do
  local left = redis.call('PTTL', found[position])
  if left > grace then
    left = left - grace
  elseif left ~= -1 then
    left = -2
  end
  answer[#answer + 1] = found[position]
  answer[#answer + 1] = found[position + 1]
  answer[#answer + 1] = left
end
return answer
