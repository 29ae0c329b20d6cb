-- Companions are values that a session has under keys of their own, `KEY:SUFFIX`. They have the deadline of the session.

-- Gives the companions the deadline of the session. It copies the absolute deadline, because the clock moves on while a script
-- runs.
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

-- Stores the companions. From ARGV[3] on the arguments have one value for each suffix: '+' and the new value, or '=' to keep
-- the stored value. If the session was renewed, a kept value moves from the key `old`.
local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[2 + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif old then
      -- RENAME fails if the session has no such companion, which is no error here.
      redis.pcall('RENAME', old .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  companions_expire(key)
end

-- Deletes the companions of a session.
local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end
