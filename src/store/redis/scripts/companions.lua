-- Gives the companions of a session the deadline that it has: to the millisecond, for a script's clock does not stand still.
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

-- Stores the companions of a session. Behind payload and time to live ARGV has a value for each, '+' and the value or '='
-- for the one that the session has so far, if it was renewed under its old key.
local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[2 + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif old then
      -- Fails if there is none.
      redis.pcall('RENAME', old .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  companions_expire(key)
end

-- Deletes the companions of a session.
local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end
