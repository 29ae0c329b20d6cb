local grace, companions = 86400000, 2
local suffixes = {'device', 'seen'}


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

local function companions_store(key, old)
  for position, suffix in ipairs(suffixes) do
    local name, value = key .. ':' .. suffix, ARGV[2 + position]
    if value ~= '=' and ARGV[2] == '' then
      redis.pcall('SET', name, string.sub(value, 2))
    elseif value ~= '=' then
      redis.pcall('SET', name, string.sub(value, 2), 'PX', ARGV[2])
    elseif old then
      local moved = redis.pcall('RENAME', old .. ':' .. suffix, name)
      if moved.err then redis.pcall('DEL', name) end
    end
  end
  companions_expire(key)
end

local function companions_delete(key)
  for _, suffix in ipairs(suffixes) do redis.pcall('DEL', key .. ':' .. suffix) end
end
local function require_acl(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
local function principals(index, base)
  local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
  end
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p, written, now = {owned = owned}, false, nil

  local function try(...)
    local reply = redis.pcall(...)
    if type(reply) ~= 'table' or not reply.err then return reply end
    if not written and string.find(reply.err, 'non local key', 1, true) then error(reply) end
    return nil
  end

  function p.fail(caught) error(type(caught) == 'table' and caught or {err = caught}) end

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

  function p.owners_of(keys)
    local found = {}
    for first = 1, #keys, 1000 do
      local last = math.min(first + 999, #keys)
      local some = try('HMGET', owners, unpack(keys, first, last))
      for position = first, last do found[position] = some and some[position - first + 1] or false end
    end
    return found
  end

  function p.unbind_all(keys)
    for position, owner in ipairs(p.owners_of(keys)) do p.unbind(keys[position], owner) end
  end

  function p.end_session(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local was_live = (left == -1 or left > grace)
    if was_live then redis.call('DEL', key) end
    if was_live or left == -2 then
      companions_delete(key)
      redis.pcall('ZREM', index, key)
    end
    p.unbind(key, owner)
    if set then redis.pcall('ZREM', set, key) end
    return was_live
  end

  function p.since(set)
    local newest = try('ZRANGE', set, -1, -1, 'WITHSCORES') or {}
    local last = tonumber(newest[2]) or 0
    return math.max(now or clock(), last < 2 ^ 53 and last + 1 or 0)
  end

  local function enforce_cap(key, owner, set, cap)
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local live, found = {}, cap ~= '' and p.owners_of(oldest) or {}
    for position, other in ipairs(oldest) do
      local left = try('PTTL', other)
      if left == -2 then
        pcall(p.end_session, other, set)
      elseif found[position] and found[position] ~= owner then
        redis.pcall('ZREM', set, other)
      elseif left and other ~= key and (left == -1 or left > grace) then
        live[#live + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #live + 1 - cap do pcall(p.end_session, live[position], set) end
    end
  end

  local function bind(key, owner, since, cap)
    local set = owned .. owner
    redis.pcall('HSET', owners, key, owner)
    redis.pcall('ZADD', set, since or p.since(set), key)
    enforce_cap(key, owner, set, cap)
  end

  function p.before_write(key, owner, cap)
    if cap and cap ~= '' then require_acl('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' and owner ~= had then
      local known = try('ZSCORE', owned .. owner, key)
      if known and not had then had, since = owner, known end
    end
    if owner or had then now = clock() end
    return had, since
  end

  function p.after_write(key, owner, cap, had, since, old)
    written = true
    p.unbind(old or key, had)
    if not owner then
      if had then bind(key, had, since, '') end
    elseif owner ~= '' then
      bind(key, owner, owner == had and since or nil, cap)
      return owner ~= had
    end
    return false
  end

  return p
end
local old, new, tombstone, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
local base, cap = ARGV[#ARGV], ARGV[7 + companions]
local owner = cap and ARGV[6 + companions]
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if (left == -1 or left > grace) then return taken == ARGV[1] and 1 or -1 end
end
local key = old
local same = how == 'revision' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local stored = not same and redis.call('GET', key)
if not same and not stored then return 0 end
local left = redis.call('PTTL', key)
if not (left == -1 or left > grace) then return 0 end
if not same and (how == 'revision' or how == 'all' and stored ~= expected) then
  if stored == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {stored, (left == -1 and -1 or left - grace)}
end
require_acl('DEL', old)
local owners = redis.pcall('HMGET', base .. 'principals', old, new)
local p = (owner or owners.err or owners[1] or owners[2]) and principals(index, base)
local had, since, replaced
if p then
  had, since = p.before_write(old, owner, cap)
  local limit, others = nil, 0
  if cap and string.sub(cap, 1, 1) == '-' then
    if owner ~= had then limit = tonumber(string.sub(cap, 2)) end
    cap = ''
    local theirs = limit and redis.pcall('ZRANGE', p.owned .. owner, 0, -1) or {}
    if theirs.err then theirs = {} end
    local holders = p.owners_of(theirs)
    for position, other in ipairs(theirs) do
      local left = redis.call('PTTL', other)
      local is_theirs = not holders[position] or holders[position] == owner
      if is_theirs and other ~= key and (left == -1 or left > grace) then others = others + 1 end
    end
  end
  if limit and others >= limit then return -2 end
  replaced = p.owner_of(new)
end
redis.call('SET', tombstone, '', 'PX', ARGV[3 + companions])
key = new
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
companions_store(key, old)
local deadline = redis.pcall('PEXPIRETIME', key)
deadline = type(deadline) == 'number' and deadline ~= -1 and deadline - grace or '+inf'
redis.pcall('ZADD', index, deadline, key)
redis.call('DEL', old)
companions_delete(old)
redis.pcall('ZREM', index, old)
if p then p.unbind(new, replaced) end
if p and p.after_write(new, owner, cap, had, since, old) then return 2 end
return 1
