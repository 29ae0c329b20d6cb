local grace, companions = 86400000, 2
local suffixes = {'device', 'seen'}
local function accompany(key)
  local deadline = redis.call('PEXPIRETIME', key)
  for _, suffix in ipairs(suffixes) do
    if deadline == -1 then
      redis.call('PERSIST', key .. ':' .. suffix)
    else
      redis.call('PEXPIREAT', key .. ':' .. suffix, deadline)
    end
  end
end

local function carry(key, old)
  for position, suffix in ipairs(suffixes) do
    local value = ARGV[2 + position]
    if value ~= '=' then
      redis.call('SET', key .. ':' .. suffix, string.sub(value, 2))
    elseif old then
      redis.pcall('RENAME', old .. ':' .. suffix, key .. ':' .. suffix)
    end
  end
  accompany(key)
end

local function leave(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end
local function need(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
local function principals(index)
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
  local base = string.sub(index, 1, -6)
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p = {owned = owned}

  local function try(...)
    local answer = redis.pcall(...)
    if type(answer) ~= 'table' or not answer.err then return answer end
    if string.find(answer.err, 'non local key', 1, true) then error(answer) end
    return nil
  end

  function p.owner_of(key)
    local owner = try('HGET', owners, key)
    if not owner then return nil end
    return owner, try('ZSCORE', owned .. owner, key)
  end

  function p.disown(key, owner)
    if not owner then return end
    redis.pcall('HDEL', owners, key)
    redis.pcall('ZREM', owned .. owner, key)
  end

  function p.disown_all(keys)
    for position, owner in ipairs(try('HMGET', owners, unpack(keys)) or {}) do p.disown(keys[position], owner) end
  end

  function p.finish(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local lived = left == -1 or left > grace
    if lived then redis.call('DEL', key) end
    if lived or left == -2 then
      leave(key)
      try('ZREM', index, key)
    end
    p.disown(key, owner)
    if set then try('ZREM', set, key) end
    return lived
  end

  local function own(key, owner, since, cap)
    local set = owned .. owner
    try('HSET', owners, key, owner)
    try('ZADD', set, since or clock(), key)
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local alive = {}
    for _, other in ipairs(oldest) do
      local left = redis.call('PTTL', other)
      if left == -2 then
        p.finish(other, set)
      elseif other ~= key and (left == -1 or left > grace) then
        alive[#alive + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #alive + 1 - cap do p.finish(alive[position], set) end
    end
  end

  function p.prepare(key, owner, cap)
    if cap and cap ~= '' then need('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' then try('EXISTS', owned .. owner) end
    return had, since
  end

  function p.bind(key, owner, cap, had, since, old)
    p.disown(old or key, had)
    if not owner then
      if had then own(key, had, since, '') end
    elseif owner ~= '' then
      own(key, owner, owner == had and since or nil, cap)
    end
  end

  return p
end
local old, new, mark, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
local owner, cap = ARGV[6 + companions], ARGV[7 + companions]
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if left < 0 or left > grace then return taken == ARGV[1] and 1 or -1 end
end
local key = old
local same = how == 'mark' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local there = not same and redis.call('GET', key)
if not same and not there then return 0 end
local left = redis.call('PTTL', key)
if left >= 0 and left <= grace then return 0 end
if not same and (how == 'mark' or how == 'all' and there ~= expected) then
  if there == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {there, left < 0 and -1 or left - grace}
end
need('DEL', old)
local concerned = owner or redis.pcall('HGET', string.sub(index, 1, -6) .. 'principals', key)
local p = concerned and principals(index)
local had, since
if p then had, since = p.prepare(old, owner, cap) end
redis.call('SET', mark, '', 'PX', ARGV[3 + companions])
key = new
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
carry(key, old)
local deadline = redis.pcall('PEXPIRETIME', key)
deadline = type(deadline) == 'number' and deadline ~= -1 and deadline - grace or '+inf'
redis.pcall('ZADD', index, deadline, key)
redis.call('DEL', old)
leave(old)
redis.pcall('ZREM', index, old)
if p then p.bind(new, owner, cap, had, since, old) end
return 1
