local grace, companions = 0, 2
local suffixes = {'device', 'seen'}
local function accompany(key)
  local deadline = redis.call('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.call('PERSIST', key .. ':' .. suffix)
    else
      redis.call('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end

local function carry(key, old)
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[2 + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif old then
      redis.pcall('RENAME', old .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  accompany(key)
end

local function leave(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end
local key, index, old = KEYS[1], KEYS[2], nil
local there = redis.call('GET', key)
if there then
  local left = redis.call('PTTL', key)
  if left < 0 or left > grace then return there == ARGV[1] and 1 or 0 end
  leave(key)
end
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
carry(key, old)
return 1
