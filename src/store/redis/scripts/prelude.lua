-- Goes before every script. What a script need not have is in other files, for each function costs, called or not.
-- ARGV[1]: the milliseconds by which the data of a session outlives it, 0 in a plain store. If sessions have companions
-- their suffixes follow: '86400000 written-at'. Companions are written, expire and go with the session.
-- In an expiring store the last of KEYS is the index. The time to live of the data is the truth and the index follows from
-- it, so an index that cannot be written (of another type, or at maxmemory) never fails an operation.
local grace, suffixes = tonumber(ARGV[1]), {}
if not grace then
  for word in string.gmatch(ARGV[1], '%S+') do suffixes[#suffixes + 1] = word end
  grace = tonumber(table.remove(suffixes, 1))
end

-- The payload of a session that lives, and if timed the milliseconds it has left: false if it does not expire.
local function live(key, timed)
  local payload = redis.call('GET', key)
  if not payload then return nil end
  -- Without a grace Redis itself drops what has expired.
  if grace == 0 and not timed then return payload end
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

-- Gives the companions of a session the deadline that it has: to the millisecond, for a script's clock does not stand still.
local function accompany(key)
  if #suffixes == 0 then return end
  local deadline = redis.call('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.call('PERSIST', key .. ':' .. suffix)
    else
      redis.call('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end
