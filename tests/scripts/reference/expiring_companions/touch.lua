local grace, companions = 86400000, 2
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
local key, index, lives = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if left ~= -1 and left <= grace then return nil end
if left == -1 or left > lives then
  if ARGV[2] then return left == -1 and -1 or left - grace end
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
local before = redis.call('PEXPIRETIME', key)
redis.call('PEXPIRE', key, ARGV[1])
accompany(key)
local by = lives - left + 1000
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((lives - grace) / 64) >= by
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end
return lives - grace
