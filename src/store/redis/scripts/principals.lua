-- Goes between the prelude and the scripts that know principals. Beside the index of a partition lie the hash
-- `principals`, which says of a key whom it belongs to, and for each principal the sorted set `principal:HASH` of their
-- keys, with the milliseconds since 1970 when they got each. Both always change together with the session.

-- Deletes the companions of a session.
local function leave(key)
  for _, suffix in ipairs(suffixes) do redis.call('DEL', key .. ':' .. suffix) end
end

-- What a command answers, or nothing if it fails. Fails itself for a key that is on its way to another node of a cluster: so
-- scripts read before they write, and are sent again.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'non local key', 1, true) then error(answer) end
  return nil
end

-- The key of the hash, and what the keys of the sets begin with.
local function owners_of(index)
  local base = string.sub(index, 1, -6)
  return base .. 'principals', base .. 'principal:'
end

-- Whom a session belongs to, and since when.
local function owner_of(index, key)
  if not index then return nil end
  local owners, owned = owners_of(index)
  local owner = try('HGET', owners, key)
  if not owner then return nil end
  return owner, try('ZSCORE', owned .. owner, key)
end

-- A session that belonged to owner, if anybody, belongs to nobody any more.
local function disown(index, key, owner)
  if not owner then return end
  local owners, owned = owners_of(index)
  redis.pcall('HDEL', owners, key)
  redis.pcall('ZREM', owned .. owner, key)
end

-- Fails if this owner's list is on its way to another node.
local function reach(index, owner)
  if index and owner ~= '=' and owner ~= '' then
    local _, owned = owners_of(index)
    try('EXISTS', owned .. owner)
  end
end

-- Ends a session, which lies in this set if one is given. Answers whether it lived. What has expired is left to the reaper,
-- which tells the application.
local function finish(index, key, set)
  local left = redis.call('PTTL', key)
  local owner = owner_of(index, key)
  local lived = left == -1 or left > grace
  if lived then redis.call('DEL', key) end
  if lived or left == -2 then leave(key) end
  if index then
    if lived or left == -2 then try('ZREM', index, key) end
    disown(index, key, owner)
    -- If the hash is lost, nothing leads from the session to its set.
    if set then try('ZREM', set, key) end
  end
  return lived
end

-- The session belongs to owner, since then or since now. Ends their oldest sessions beyond the cap, but not this one.
local function own(index, key, owner, since, cap)
  local owners, owned = owners_of(index)
  local set = owned .. owner
  try('HSET', owners, key, owner)
  try('ZADD', set, since or clock(), key)
  -- What Redis dropped by itself, as without a reaper, left its entries behind.
  local oldest = try('ZRANGE', set, 0, cap == '' and 7 or -1) or {}
  local alive = {}
  for _, other in ipairs(oldest) do
    local left = redis.call('PTTL', other)
    if left == -2 then
      finish(index, other, set)
    elseif other ~= key and (left == -1 or left > grace) then
      alive[#alive + 1] = other
    end
  end
  if cap ~= '' then
    for position = 1, #alive + 1 - cap do finish(index, alive[position], set) end
  end
end

-- What a write does to the owner of a session: '=' keeps whom it had, '' takes them away, anything else is a new one.
local function bind(index, key, owner, cap, had, had_since)
  if not index then return end
  if owner == '=' then
    if had then own(index, key, had, had_since, '') end
  elseif owner ~= '' then
    own(index, key, owner, owner == had and had_since or nil, cap)
  end
end
