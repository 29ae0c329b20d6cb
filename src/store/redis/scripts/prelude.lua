-- Goes before every script.
-- ARGV[1]: the milliseconds by which the data of a session outlives it; 0 in a plain store.
-- In an expiring store the last of KEYS is the index. The time to live of the data is the truth and the index follows from
-- it, so an index that cannot be written (of another type, or at maxmemory) never fails an operation.
local grace = tonumber(ARGV[1])

-- The payload of a session that lives, and the milliseconds it has left: false if it does not expire.
local function live(key)
  local payload = redis.call('GET', key)
  if not payload then return nil end
  local left = redis.call('PTTL', key)
  if left < 0 then return payload, false end
  if left <= grace then return nil end
  return payload, left - grace
end

-- The server's clock, in milliseconds.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Stores a payload for ttl milliseconds; '' means that it does not expire.
local function put(key, payload, ttl, index)
  if ttl == '' then
    redis.call('SET', key, payload)
  else
    redis.call('SET', key, payload, 'PX', ttl + grace)
  end
  if index then
    redis.pcall('ZADD', index, ttl == '' and '+inf' or clock() + ttl, key)
  end
end

-- What a command answers, or nothing if it fails.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end
