local grace, companions = 86400000, 0
local remember = 300000
local key, index, data_ttl = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if not (left == -1 or left > grace) then return nil end
if left > ARGV[2] + 0 and left <= data_ttl then return left - grace end
if left == -1 or left > data_ttl then
  if ARGV[3] then return (left == -1 and -1 or left - grace) end
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
local before = redis.call('PEXPIRETIME', key)
redis.call('PEXPIRE', key, ARGV[1])
local by = data_ttl - left + 1000
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((data_ttl - grace) / 64) >= by
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end
return data_ttl - grace
