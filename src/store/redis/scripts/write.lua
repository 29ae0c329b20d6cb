-- Goes between the prelude and the scripts that store a session.

-- An argument that may be missing, in scripts that write: the values of companions come behind it.
local function optional(position)
  return position <= #ARGV - #suffixes and ARGV[position] or nil
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
