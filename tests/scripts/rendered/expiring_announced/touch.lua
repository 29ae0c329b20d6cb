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
local key, index, data_ttl = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if not (left == -1 or left > grace) then return nil end
if left == -1 or left > data_ttl then
  if ARGV[2] then return (left == -1 and -1 or left - grace) end
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
local before = redis.call('PEXPIRETIME', key)
redis.call('PEXPIRE', key, ARGV[1])
companions_expire(key)
local by = data_ttl - left + 1000
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((data_ttl - grace) / 64) >= by
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end
return data_ttl - grace
