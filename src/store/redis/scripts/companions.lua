-- Companions are values that a session has under keys of their own, `KEY:SUFFIX`. They have the deadline of the session.

-- They follow from the session and are written after it, so no failure here aborts a script.

-- Gives the companions the deadline of the session. It copies the absolute deadline, because the clock moves on while a script
-- runs.
local function companions_expire(key)
  local deadline = redis.pcall('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.pcall('PERSIST', key .. ':' .. suffix)
    elseif type(deadline) == 'number' then
      redis.pcall('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end

-- Stores the companions. From ARGV[3] on the arguments have one value for each suffix: '+' and the new value, or '=' to keep
-- the stored value. If the session was renewed, a kept value moves from the key `old`, and nothing is left of a session that had
-- the new key before.
local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local name, value = key .. ':' .. suffix, ARGV[2 + position]
    if value ~= '=' and ARGV[2] == '' then
      redis.pcall('SET', name, string.sub(value, 2))
    elseif value ~= '=' then
      redis.pcall('SET', name, string.sub(value, 2), 'PX', ARGV[2])
    elseif old then
      -- RENAME fails if the session has no such companion.
      local moved = redis.pcall('RENAME', old .. ':' .. suffix, name)
      if moved.err then redis.pcall('DEL', name) end
    end
  end
  companions_expire(key)
end

-- Deletes the companions of a session.
local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.pcall('DEL', key .. ':' .. suffix) end
end
