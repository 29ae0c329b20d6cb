local grace, companions = 86400000, 0
local remember = 300000
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local found = redis.call(
  'ZRANGE', KEYS[1], '+inf', '(' .. clock(), 'BYSCORE', 'REV', 'LIMIT', ARGV[1], ARGV[2], 'WITHSCORES')
local reply = {}
for position = 1, #found, 2 do
  local left = redis.call('PTTL', found[position])
  reply[#reply + 1] = found[position]
  reply[#reply + 1] = found[position + 1]
  reply[#reply + 1] = (left == -1 or left > grace) and (left == -1 and -1 or left - grace) or -2
end
return reply
