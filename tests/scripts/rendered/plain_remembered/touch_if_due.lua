local grace, companions = 0, 0
local remember = 300000
local key, index, data_ttl = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if not (left == -1 or left > grace) then return nil end
if left > ARGV[2] + 0 and left <= data_ttl then return left - grace end
if left == -1 or left > data_ttl then
  if ARGV[3] then return (left == -1 and -1 or left - grace) end
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
redis.call('PEXPIRE', key, ARGV[1])
return data_ttl - grace
