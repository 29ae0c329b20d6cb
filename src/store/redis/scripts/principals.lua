-- Ownership of sessions. `base` is the beginning of all names in a partition.
-- `BASEprincipals` is a hash: session key -> owner. An owner is the hash of a principal.
-- `BASEprincipal:OWNER` is a sorted set: session keys by the time, in ms, at which the owner got them.
-- Both change in the same script as the session. If they disagree, because Redis lost one of them, the hash decides. Only if the
-- hash has no entry for a session, the set decides.
-- In a store that notes ends, a script that ends sessions sets `reason` first, and includes `note_end`.
-- Call `principals()` only if the session has, or gets, an owner: defining these functions costs time even if none is called.
local function principals(index, base)
  --#include clock (defines clock)
  --#include require_acl (defines require_acl)
  local owners, owned = base .. 'principals', base .. 'principal:'
  local p, written, now = {owned = owned}, false, nil

  -- Returns the reply of a command, or nil if the command fails. If the key is moving to another node of a cluster, the script
  -- fails, and the client sends it again; but never after the session was written.
  local function try(...)
    local reply = redis.pcall(...)
    if type(reply) ~= 'table' or not reply.err then return reply end
    if not written and string.find(reply.err, 'non local key', 1, true) then error(reply) end
    return nil
  end

  -- Fails with an error that `pcall` caught. Redis passes the error of a command to the script as text; as a table it keeps its
  -- code, such as NOPERM.
  function p.fail(caught) error(type(caught) == 'table' and caught or {err = caught}) end

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

  -- Returns the owners of several sessions; false for a session that the hash does not have.
  function p.owners_of(keys)
    local found = {}
    -- `unpack` fails for too many.
    for first = 1, #keys, 1000 do
      local last = math.min(first + 999, #keys)
      local some = try('HMGET', owners, unpack(keys, first, last))
      for position = first, last do found[position] = some and some[position - first + 1] or false end
    end
    return found
  end

  -- Removes several sessions from their owners.
  function p.unbind_all(keys)
    for position, owner in ipairs(p.owners_of(keys)) do p.unbind(keys[position], owner) end
  end

  -- Ends a session and returns true if it was live. `set` is the owner's set that led to the session, if there is one. An expired
  -- session stays for the reaper, which reports it to the application. After DEL nothing fails.
  function p.end_session(key, set)
    local left = redis.call('PTTL', key)
    local owner = p.owner_of(key)
    local was_live = is_live(left)
    if was_live then redis.call('DEL', key) end
    --#if ends
    if was_live then note_end(key, reason) end
    --#end
    if was_live or left == -2 then
      --#if companions
      companions_delete(key)
      --#end
      redis.pcall('ZREM', index, key)
    end
    p.unbind(key, owner)
    -- If the hash of owners is lost, nothing leads from the session to the set.
    if set then redis.pcall('ZREM', set, key) end
    return was_live
  end

  -- Returns the time at which a session gets an owner. It is later than that of every session in the set, also if the clock was
  -- set back, or if the node that wrote them had a clock that is ahead.
  function p.since(set)
    local newest = try('ZRANGE', set, -1, -1, 'WITHSCORES') or {}
    local last = tonumber(newest[2]) or 0
    return math.max(now or clock(), last < 2 ^ 53 and last + 1 or 0)
  end

  -- Ends sessions of an owner that Redis dropped, and the oldest ones beyond the cap, but never the one under `key`.
  local function enforce_cap(key, owner, set, cap)
    -- Without a reaper Redis drops sessions by itself and leaves their entries behind, so each binding looks at some of them.
    local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
    local live, found = {}, cap ~= '' and p.owners_of(oldest) or {}
    for position, other in ipairs(oldest) do
      local left = try('PTTL', other)
      if left == -2 then
        pcall(p.end_session, other, set)
      elseif found[position] and found[position] ~= owner then
        redis.pcall('ZREM', set, other)
      elseif left and other ~= key and is_live(left) then
        live[#live + 1] = other
      end
    end
    if cap ~= '' then
      for position = 1, #live + 1 - cap do pcall(p.end_session, live[position], set) end
    end
  end

  -- Gives a session to an owner as of `since`, or as of now.
  local function bind(key, owner, since, cap)
    local set = owned .. owner
    redis.pcall('HSET', owners, key, owner)
    redis.pcall('ZADD', set, since or p.since(set), key)
    enforce_cap(key, owner, set, cap)
  end

  -- Call this before the write. Returns the owner of the session and since when. Fails if a command after the write would fail.
  function p.before_write(key, owner, cap)
    if cap and cap ~= '' then require_acl('DEL', key) end
    local had, since = p.owner_of(key)
    if owner and owner ~= '' and owner ~= had then
      -- If the hash of owners is lost, the set of the new owner may show that the session is theirs already.
      local known = try('ZSCORE', owned .. owner, key)
      if known and not had then had, since = owner, known end
    end
    if owner or had then now = clock() end
    return had, since
  end

  -- Call this after the write. If `owner` is nil, the session keeps the owner `had`, also if it moved from the key `old`; if it
  -- is '', the session has no owner any more; otherwise it is the new owner. Returns true if another owner than before got it.
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
