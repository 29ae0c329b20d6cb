-- KEYS: index. ARGV: grace, how many. Answers keys of live sessions and the milliseconds each has left (-1: it does not
-- expire), the one that expires last first.
local answer = {}
for _, key in ipairs(redis.call('ZRANGE', KEYS[1], '+inf', '(' .. clock(), 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[2])) do
  local left = redis.call('PTTL', key)
  if left == -1 or left > grace then
    answer[#answer + 1] = key
    answer[#answer + 1] = left == -1 and -1 or left - grace
  end
end
return answer
