local grace, companions = 86400000, 0
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
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
