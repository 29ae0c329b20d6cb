-- Returns everything that the server has, and then replaces it by what an earlier call returned, if that is given.
-- ARGV[1] what an earlier call returned (optional)
-- Returns JSON: the time in ms, and for each key its name, its deadline in ms since 1970 (-1 = none), and its content
-- Deadlines and times move by the time that has passed since the earlier call, as if no time had passed.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local content = {
  string = function(name) return redis.call('GET', name) end,
  hash = function(name) return redis.call('HGETALL', name) end,
  zset = function(name) return redis.call('ZRANGE', name, 0, -1, 'WITHSCORES') end
}

local found = {clock()}
for _, name in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', name).ok
  found[#found + 1] = {name, redis.call('PEXPIRETIME', name), content[kind](name)}
end
found = cjson.encode(found)
if not ARGV[1] then return found end

redis.call('FLUSHDB')
local keys = cjson.decode(ARGV[1])
local passed = clock() - keys[1]
for position = 2, #keys do
  local name, deadline, value = unpack(keys[position])
  if type(value) == 'string' then
    redis.call('SET', name, value)
  elseif name == 'sessions:principals' then
    redis.call('HSET', name, unpack(value))
  else
    for at = 1, #value, 2 do
      local time = value[at + 1]
      if time ~= 'inf' then time = string.format('%.0f', time + passed) end
      redis.call('ZADD', name, time, value[at])
    end
  end
  if deadline ~= -1 then redis.call('PEXPIREAT', name, string.format('%.0f', deadline + passed)) end
end
return found
