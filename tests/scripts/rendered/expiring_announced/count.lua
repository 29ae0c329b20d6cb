local grace, companions = 86400000, 2
local suffixes = {'device', 'seen'}
local publish = 'PUBLISH'
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
return redis.call('ZCOUNT', KEYS[1], '(' .. clock(), '+inf')
