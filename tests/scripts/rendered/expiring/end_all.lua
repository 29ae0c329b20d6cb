local grace, companions = 86400000, 0
local function principals(index, base)
  local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local function require_acl(command, key)
    if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
  end
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p = {owned = owned}

  local function try(...)
    local reply = redis.pcall(...)
    if type(reply) ~= 'table' or not reply.err then return reply end
    if string.find(reply.err, 'non local key', 1, true) then error(reply) end
    return nil
  end

  function p.owner_of(key)
    local owner = try('HGET', owners, key)
    if not owner then return nil end
    return owner, try('ZSCORE', owned .. owner, key)
  end

  function p.unbind(key, owner)
    if not owner then return end
    redis.pcall('HDEL', owners, key)
    redis.pcall('ZREM', owned .. owner, key)
  end

  function p.unbind_all(keys)
    for position, owner in ipairs(try('HMGET', owners, unpack(keys)) or {}) do p.unbind(keys[position], owner) end
  end

  function p.end_session(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local was_live = (left == -1 or left > grace)
    if was_live then redis.call('DEL', key) end
    if was_live or left == -2 then
      try('ZREM', index, key)
    end
    p.unbind(key, owner)
    if set then try('ZREM', set, key) end
    return was_live
  end

  local function bind(key, owner, since, cap)
    local set = owned .. owner
    try('HSET', owners, key, owner)
    try('ZADD', set, since or clock(), key)
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local live = {}
    for _, other in ipairs(oldest) do
      local left = redis.call('PTTL', other)
      if left == -2 then
        p.end_session(other, set)
      elseif other ~= key and (left == -1 or left > grace) then
        live[#live + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #live + 1 - cap do p.end_session(live[position], set) end
    end
  end

  function p.before_write(key, owner, cap)
    if cap and cap ~= '' then require_acl('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' then try('EXISTS', owned .. owner) end
    return had, since
  end

  function p.after_write(key, owner, cap, had, since, old)
    p.unbind(old or key, had)
    if not owner then
      if had then bind(key, had, since, '') end
    elseif owner ~= '' then
      bind(key, owner, owner == had and since or nil, cap)
    end
  end

  return p
end
local index, since, limit, p = KEYS[1], '(' .. ARGV[1], tonumber(ARGV[2]), principals(KEYS[1], ARGV[#ARGV])
local keys, first, last, ended = ARGV, 3, #ARGV - 1, 0
if last < first then
  keys, first = redis.call('ZRANGE', index, since, '+inf', 'BYSCORE', 'LIMIT', 0, limit), 1
  last = #keys
end
for position = first, last do
  local key = keys[position]
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' or kind == 'none' then
    if p.end_session(key) then ended = ended + 1 end
  else
    redis.call('ZREM', index, key)
    p.unbind(key, (p.owner_of(key)))
  end
end
return {ended, last < limit and 0 or redis.call('ZCOUNT', index, since, '+inf')}
