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
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
local same = how == 'mark' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local there = not same and redis.call('GET', key)
if not same and not there then return 0 end
if not same and (how == 'mark' or how == 'all' and there ~= expected) then
  if there == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {there, left < 0 and -1 or left - grace}
end
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
carry(key, old)
return 1
