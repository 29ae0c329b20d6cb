local grace, companions = 0, 0
local remember = 300000
local key, index, old = KEYS[1], KEYS[2], nil
local stored = redis.call('GET', key)
if stored then
  local left = redis.call('PTTL', key)
  if (left == -1 or left > grace) then return stored == ARGV[1] and 1 or 0 end
end
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return 1
