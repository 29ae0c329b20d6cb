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
companions_store(key, old)
for position, suffix in ipairs(suffixes) do
  if ARGV[2 + position] == '=' then redis.pcall('DEL', key .. ':' .. suffix) end
end
return 1
