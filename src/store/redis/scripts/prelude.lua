-- Goes before every script.
-- ARGV[1]: the milliseconds by which the data of a session outlives it, 0 in a plain store. If sessions have companions
-- their suffixes follow: '86400000 written-at'. Companions are written, expire and go with the session.
-- In an expiring store the last of KEYS is the index. The time to live of the data is the truth and the index follows from
-- it, so an index that cannot be written (of another type, or at maxmemory) never fails an operation.
local grace, suffixes = tonumber(ARGV[1]), {}
if not grace then
  for word in string.gmatch(ARGV[1], '%S+') do suffixes[#suffixes + 1] = word end
  grace = tonumber(table.remove(suffixes, 1))
end

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

-- An argument that may be missing, in scripts that write: the values of companions come behind it.
local function optional(position)
  return position <= #ARGV - #suffixes and ARGV[position] or nil
end

-- Deletes the companions of a session.
local function leave(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
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

-- Stores a payload for ttl milliseconds; '' means that it does not expire. With it go the companions: ARGV ends with a
-- value for each, '+' and the value or '=' for the one that the session has so far, perhaps under another key.
local function put(key, payload, ttl, index, so_far)
  if ttl == '' then
    redis.call('SET', key, payload)
  else
    redis.call('SET', key, payload, 'PX', ttl + grace)
  end
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[#ARGV - #suffixes + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif so_far then
      -- Fails if there is none.
      redis.pcall('RENAME', so_far .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  accompany(key)
  if index then
    redis.pcall('ZADD', index, ttl == '' and '+inf' or clock() + ttl, key)
  end
end

-- Fails if the user may not run a command that comes after the first write: what is refused is refused whole.
local function need(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end

-- What a command answers, or nothing if it fails. Fails itself for a key that is on its way to another node of a cluster: so
-- scripts read before they write, and are sent again.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'non local key', 1, true) then error(answer) end
  return nil
end
