local grace, companions = 0, 2
local suffixes = {'device', 'seen'}


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
local key, index, owner, base = KEYS[1], KEYS[2], nil, ARGV[#ARGV]
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
local was_live = redis.call('DEL', key)
companions_delete(key)
return was_live
