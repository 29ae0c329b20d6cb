local grace, companions = 0, 0
local function need(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
local old, new, mark, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if left < 0 or left > grace then return taken == ARGV[1] and 1 or -1 end
end
local key = old
local same = how == 'mark' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local there = not same and redis.call('GET', key)
if not same and not there then return 0 end
if not same and (how == 'mark' or how == 'all' and there ~= expected) then
  if there == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {there, left < 0 and -1 or left - grace}
end
need('DEL', old)
redis.call('SET', mark, '', 'PX', ARGV[3 + companions])
key = new
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
redis.call('DEL', old)
return 1
