local grace, companions = 0, 0
local key, index, lives = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if left ~= -1 and left <= grace then return nil end
if left == -1 or left > lives then
  if ARGV[2] then return left == -1 and -1 or left - grace end
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
redis.call('PEXPIRE', key, ARGV[1])
return lives - grace
