local grace, companions = 86400000, 0
local remember = 300000
local key, index, old = KEYS[1], KEYS[2], nil
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
local same = how == 'revision' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local stored = not same and redis.call('GET', key)
if not same and not stored then return 0 end
local left = redis.call('PTTL', key)
if not (left == -1 or left > grace) then return 0 end
if not same and (how == 'revision' or how == 'all' and stored ~= expected) then
  if stored == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {stored, (left == -1 and -1 or left - grace)}
end
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
local deadline = redis.pcall('PEXPIRETIME', key)
deadline = type(deadline) == 'number' and deadline ~= -1 and deadline - grace or '+inf'
redis.pcall('ZADD', index, deadline, key)
return 1
