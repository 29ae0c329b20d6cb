local grace, companions = 86400000, 2
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
local key = KEYS[1]
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
redis.call('SET', key, ARGV[1], 'KEEPTTL')
companions_store(key, nil)
return 1
