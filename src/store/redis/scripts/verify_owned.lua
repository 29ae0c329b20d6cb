-- Compares the set of an owner with the sessions and the hash of owners, and corrects both.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] '1' = change nothing and only count
-- ARGV[3] to ARGV[#ARGV - 1] '1' or '0' and a key from the set; '1' if this verification has given the session to another owner,
-- because the hash did not have it
-- ARGV[#ARGV] key base of the partition
-- Returns {number of entries of sets dropped, {key, key, …}}: the keys of the sessions that the hash did not have, and has now
-- A command that changes something may fail; then the entries before are correct, and a repeated call does the others.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include principals (defines principals)
local owner, dry, base, p = ARGV[1], ARGV[2] == '1', ARGV[#ARGV], principals(KEYS[1], ARGV[#ARGV])
local owners, set, reply = base .. 'principals', p.owned .. ARGV[1], {0, {}}

-- Removes a session from a set.
local function drop(from, key)
  reply[1] = reply[1] + 1
  if not dry then redis.call('ZREM', from, key) end
end

-- Enters the owner of the set into the hash.
local function give(key)
  if not dry then redis.call('HSET', owners, key, owner) end
end

for position = 3, #ARGV - 1, 2 do
  local given, key = ARGV[position] == '1', ARGV[position + 1]
  local since, found = redis.call('ZSCORE', set, key), p.owners_of({key})[1]
  if since and found ~= owner then
    if redis.call('TYPE', key).ok ~= 'string' then
      drop(set, key)
    elseif not found and not (given and dry) then
      give(key)
      table.insert(reply[2], key)
    elseif given and found and tonumber(since) > tonumber(redis.call('ZSCORE', p.owned .. found, key) or 0) then
      -- Two sets have a session that the hash has lost. The owner who got it later has it.
      give(key)
      drop(p.owned .. found, key)
    else
      drop(set, key)
    end
  end
end
return reply
