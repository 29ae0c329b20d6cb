local grace, companions = 0, 0
local remember = 300000
local function require_acl(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
local reason = 'cap'
local function note_end(key, reason, heir)
  if remember and not heir then redis.pcall('SET', key .. ':ended', reason, 'PX', remember) end
end
local old, new, tombstone, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if (left == -1 or left > grace) then return taken == ARGV[1] and 1 or -1 end
end
local key = old
local same = how == 'revision' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local stored = not same and redis.call('GET', key)
if not same and not stored then return 0 end
if not same and (how == 'revision' or how == 'all' and stored ~= expected) then
  if stored == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {stored, (left == -1 and -1 or left - grace)}
end
require_acl('DEL', old)
redis.call('SET', tombstone, '', 'PX', ARGV[3 + companions])
key = new
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
redis.call('DEL', old)
note_end(old, 'renewed', ARGV[6 + companions])
return 1
