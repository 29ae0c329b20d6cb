local grace, companions = 86400000, 0
local function principals(index)
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function need(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
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
local entries = redis.call('ZRANGE', principals(KEYS[1]).owned .. ARGV[1], 0, ARGV[2] - 1, 'REV', 'WITHSCORES')
local answer = {}
for position = 1, #entries, 2 do
  local key = entries[position]
  local payload, left = redis.call('GET', key), redis.call('PTTL', key)
  if payload and (left == -1 or left > grace) then
    answer[#answer + 1] = {key, payload, left == -1 and -1 or left - grace, tonumber(entries[position + 1])}
  end
end
return answer
