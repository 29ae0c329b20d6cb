-- Ownership of sessions. `base` is the beginning of all names in a partition.
-- `BASEprincipals` is a hash: session key -> owner. An owner is the hash of a principal.
-- `BASEprincipal:OWNER` is a sorted set: session keys by the time, in ms, at which the owner got them.
-- Both change in the same script as the session.
-- Call `principals()` only if the session has, or gets, an owner: defining these functions costs time even if none is called.
local function principals(index, base)
  --#include clock (defines clock)
  --#include require_acl (defines require_acl)
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p = {owned = owned}

  -- Returns the reply of a command, or nil if the command fails. If the key is moving to another node of a cluster, the script
  -- fails. It has not written anything yet, because scripts read before they write, and the client sends it again.
  local function try(...)
    local reply = redis.pcall(...)
    if type(reply) ~= 'table' or not reply.err then return reply end
    if string.find(reply.err, 'non local key', 1, true) then error(reply) end
    return nil
  end

  -- Returns the owner of a session, and the time at which the owner got it.
  function p.owner_of(key)
    local owner = try('HGET', owners, key)
    if not owner then return nil end
    return owner, try('ZSCORE', owned .. owner, key)
  end

  -- Removes a session from its owner, if it has one.
  function p.unbind(key, owner)
    if not owner then return end
    redis.pcall('HDEL', owners, key)
    redis.pcall('ZREM', owned .. owner, key)
  end

  -- Removes several sessions from their owners.
  function p.unbind_all(keys)
    for position, owner in ipairs(try('HMGET', owners, unpack(keys)) or {}) do p.unbind(keys[position], owner) end
  end

  -- Ends a session and returns true if it was live. `set` is the owner's set that led to the session, if there is one. An expired
  -- session stays for the reaper, which reports it to the application.
  function p.end_session(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local was_live = is_live(left)
    if was_live then redis.call('DEL', key) end
    if was_live or left == -2 then
      --#if companions
      companions_delete(key)
      --#end
      try('ZREM', index, key)
    end
    p.unbind(key, owner)
    -- If the hash of owners is lost, nothing leads from the session to the set.
    if set then try('ZREM', set, key) end
    return was_live
  end

  -- Gives a session to an owner as of `since`, or as of now. Ends the owner's oldest sessions beyond the cap, but never this one.
  local function bind(key, owner, since, cap)
    local set = owned .. owner
    try('HSET', owners, key, owner)
    try('ZADD', set, since or clock(), key)
    -- Without a reaper Redis drops sessions by itself and leaves their entries behind, so each binding looks at some of them.
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local live = {}
    for _, other in ipairs(oldest) do
      local left = redis.call('PTTL', other)
      if left == -2 then
        p.end_session(other, set)
      elseif other ~= key and is_live(left) then
        live[#live + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #live + 1 - cap do p.end_session(live[position], set) end
    end
  end

  -- Call this before the write. Returns the owner of the session and since when. Fails if a command after the write would fail.
  function p.before_write(key, owner, cap)
    if cap and cap ~= '' then require_acl('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' then try('EXISTS', owned .. owner) end
    return had, since
  end

  -- Call this after the write. If `owner` is nil, the session keeps the owner `had`, also if it moved from the key `old`; if it
  -- is '', the session has no owner any more; otherwise it is the new owner.
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
