local grace, companions = 0, 2
local suffixes = {'device', 'seen'}
local publish = 'PUBLISH'


local function companions_expire(key)
  local deadline = redis.pcall('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.pcall('PERSIST', key .. ':' .. suffix)
    elseif type(deadline) == 'number' then
      redis.pcall('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end

local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local name, value = key .. ':' .. suffix, ARGV[2 + position]
    if value ~= '=' and ARGV[2] == '' then
      redis.pcall('SET', name, string.sub(value, 2))
    elseif value ~= '=' then
      redis.pcall('SET', name, string.sub(value, 2), 'PX', ARGV[2])
    elseif old then
      local moved = redis.pcall('RENAME', old .. ':' .. suffix, name)
      if moved.err then redis.pcall('DEL', name) end
    end
  end
  companions_expire(key)
end

local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.pcall('DEL', key .. ':' .. suffix) end
end
local function require_acl(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
local reason = 'cap'
local function note_end(key, reason, heir)
  redis.pcall(publish, ARGV[#ARGV] .. 'ended', reason .. ' ' .. (heir or '-') .. ' ' .. key)
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
companions_store(key, old)
redis.call('DEL', old)
note_end(old, 'renewed', ARGV[6 + companions])
companions_delete(old)
return 1
