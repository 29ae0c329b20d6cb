-- What scripts do that know principals. Beside the index of a partition lie the hash `principals`, which says of a key whom it
-- belongs to, and for each principal the sorted set `principal:HASH` of their keys, with the milliseconds since 1970 when they
-- got each. Both always change together with the session.
-- Called only where somebody is concerned, for each function costs, called or not.
local function principals(index)
  -- include clock
  -- include require_acl
  local base = string.sub(index, 1, -6)
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p = {owned = owned}

  -- What a command answers, or nothing if it fails. Fails itself for a key that is on its way to another node of a cluster:
  -- so scripts read before they write, and are sent again.
  local function try(...)
    local answer = redis.pcall(...)
    if type(answer) ~= 'table' or not answer.err then return answer end
    if string.find(answer.err, 'non local key', 1, true) then error(answer) end
    return nil
  end

  -- Whom a session belongs to, and since when.
  function p.owner_of(key)
    local owner = try('HGET', owners, key)
    if not owner then return nil end
    return owner, try('ZSCORE', owned .. owner, key)
  end

  -- A session that belonged to owner, if anybody, belongs to nobody any more.
  function p.unbind(key, owner)
    if not owner then return end
    redis.pcall('HDEL', owners, key)
    redis.pcall('ZREM', owned .. owner, key)
  end

  -- The same for several sessions, whomever they belonged to.
  function p.unbind_all(keys)
    for position, owner in ipairs(try('HMGET', owners, unpack(keys)) or {}) do p.unbind(keys[position], owner) end
  end

  -- Ends a session, which lies in this set if one is given. Answers whether it lived. What has expired is left to the
  -- reaper, which tells the application.
  function p.end_session(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local lived = left == -1 or left > grace
    if lived then redis.call('DEL', key) end
    if lived or left == -2 then
      companions_delete(key) -- companions
      try('ZREM', index, key)
    end
    p.unbind(key, owner)
    -- If the hash is lost, nothing leads from the session to its set.
    if set then try('ZREM', set, key) end
    return lived
  end

  -- The session belongs to owner, since then or since now. Ends their oldest sessions beyond the cap, but not this one.
  local function bind(key, owner, since, cap)
    local set = owned .. owner
    try('HSET', owners, key, owner)
    try('ZADD', set, since or clock(), key)
    -- What Redis dropped by itself, as without a reaper, left its entries behind.
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local alive = {}
    for _, other in ipairs(oldest) do
      local left = redis.call('PTTL', other)
      if left == -2 then
        p.end_session(other, set)
      elseif other ~= key and (left == -1 or left > grace) then
        alive[#alive + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #alive + 1 - cap do p.end_session(alive[position], set) end
    end
  end

  -- Before a write: whom the session belongs to and since when. Fails if what comes after the write would.
  function p.before_write(key, owner, cap)
    if cap and cap ~= '' then require_acl('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' then try('EXISTS', owned .. owner) end
    return had, since
  end

  -- After it: without an owner the session stays theirs, under whatever key; '' takes it away, anything else is a new owner.
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
