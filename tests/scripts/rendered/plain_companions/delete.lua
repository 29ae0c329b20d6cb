local grace, companions = 0, 2
local suffixes = {'device', 'seen'}

local function companions_expire(key)
  local deadline = redis.call('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.call('PERSIST', key .. ':' .. suffix)
    else
      redis.call('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end

local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[2 + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif old then
      redis.pcall('RENAME', old .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  companions_expire(key)
end

local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end
local key, index, owner, base = KEYS[1], KEYS[2], nil, ARGV[1]
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
local was_live = redis.call('DEL', key)
companions_delete(key)
return was_live
