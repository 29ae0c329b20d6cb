-- Compares sessions with index, owners, companions, tombstones and reasons of ends, and corrects those.
-- KEYS[1] index
-- ARGV[1] suffix for the names of keys that are moved aside, '' = change nothing and only count
-- ARGV[2] TTL of a tombstone or a reason in ms
-- ARGV[3] to ARGV[#ARGV - 1] keys of sessions, or keys from the index, the owners or their sets
-- ARGV[#ARGV] key base of the partition
-- Returns numbers: entries of the index added, corrected, dropped; entries of the hash of owners dropped; entries of sets dropped,
-- added; companions dropped, corrected; tombstones and reasons corrected; keys of another type
-- A command that changes something may fail; then the keys before are correct, and a repeated call does the others.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include clock (defines clock)
--#include principals (defines principals)
local index, aside, base, now, p = KEYS[1], ARGV[1], ARGV[#ARGV], clock(), principals(KEYS[1], ARGV[#ARGV])
local owners, dry = base .. 'principals', ARGV[1] == ''
local added, corrected, dropped, owners_dropped, owned_dropped, owned_added = 0, 0, 0, 0, 0, 0
local companions_dropped, companions_corrected, tombstones, displaced = 0, 0, 0, 0

-- Returns the reply of a command, or nil if there is none, or if the key has another type.
local function get(...)
  local reply = redis.pcall(...)
  return type(reply) ~= 'table' and reply or nil
end

-- Moves a key of another type aside, so that the store can use its name. Returns false if the key has the right type.
local function displace(name, kind)
  if kind == 'string' or kind == 'none' then return false end
  if dry or redis.call('RENAMENX', name, name .. aside) == 1 then displaced = displaced + 1 end
  return true
end

for position = 3, #ARGV - 1 do
  local key = ARGV[position]
  local kind, expires = redis.call('TYPE', key).ok, redis.call('PEXPIRETIME', key)
  local entry, owner = get('ZSCORE', index, key), get('HGET', owners, key)
  local set = owner and p.owned .. owner
  local since = set and get('ZSCORE', set, key)

  if kind ~= 'string' then
    if entry then dropped = dropped + 1 end
    if owner then owners_dropped = owners_dropped + 1 end
    if since then owned_dropped = owned_dropped + 1 end
    if not dry then
      if entry then redis.call('ZREM', index, key) end
      p.unbind(key, owner)
    end
  else
    -- An expired session belongs into the index too, or no reaper would find it.
    local deadline = expires == -1 and math.huge or expires - grace
    if not entry then
      added = added + 1
    elseif math.abs(tonumber(entry) - deadline) > math.max(1000, math.abs(deadline - now) / 64) then
      corrected = corrected + 1
    end
    if not dry and (not entry or tonumber(entry) ~= deadline) then
      redis.call('ZADD', index, deadline == math.huge and '+inf' or deadline, key)
    end
    if owner and not since and (dry or get('ZADD', set, p.since(set), key)) then owned_added = owned_added + 1 end
  end

  --#if companions
  for _, suffix in ipairs(suffixes) do
    local name = key .. ':' .. suffix
    local its_kind = redis.call('TYPE', name).ok
    -- A key of another type than a session belongs to another program, and so do the keys that look like its companions.
    if kind == 'none' and its_kind == 'string' then
      companions_dropped = companions_dropped + 1
      if not dry then redis.call('DEL', name) end
    elseif kind == 'string' and not displace(name, its_kind) and its_kind == 'string' then
      if redis.call('PEXPIRETIME', name) ~= expires then
        companions_corrected = companions_corrected + 1
        if not dry and expires == -1 then redis.call('PERSIST', name) end
        if not dry and expires ~= -1 then redis.call('PEXPIREAT', name, expires) end
      end
    end
  end
  --#end

  -- A tombstone and the reason of an end only have to expire.
  for _, suffix in ipairs({':renewed', ':ended'}) do
    local note = key .. suffix
    if redis.call('PTTL', note) == -1 and (kind == 'string' or kind == 'none')
      and not displace(note, redis.call('TYPE', note).ok) then
      tombstones = tombstones + 1
      if not dry then redis.call('PEXPIRE', note, ARGV[2]) end
    end
  end
end
return {
  added, corrected, dropped, owners_dropped, owned_dropped, owned_added,
  companions_dropped, companions_corrected, tombstones, displaced
}
