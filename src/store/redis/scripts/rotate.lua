-- Moves a live session to a new id and leaves a tombstone under the old one.
-- KEYS[1] old session
-- KEYS[2] new session
-- KEYS[3] tombstone of the old session
-- KEYS[4] index (expiring store only)
-- ARGV[1] payload
-- ARGV[2] data TTL in ms, '' = never expires
-- ARGV[3] to ARGV[2 + companions] one value for each companion
-- ARGV[3 + companions] tombstone TTL in ms
-- ARGV[4 + companions] compare mode: 'any', 'revision' or 'all'
-- ARGV[5 + companions] expected revision or payload
-- ARGV[6 + companions] owner (optional; expiring store only)
-- ARGV[7 + companions] cap of the owner's sessions, '' = none, '-' and a number = reject this session (only with an owner)
-- In a store that notes ends, ARGV[6 + companions] is the handle of the new session, and owner and cap follow it.
-- ARGV[#ARGV] key base of the partition (only in an expiring store, or in one that notes ends)
-- Returns 1 = stored, now or by an earlier attempt
-- Returns 2 = stored, and the owner did not have it before
-- Returns 0 = the old session is not live
-- Returns -1 = the new key is taken
-- Returns -2 = the owner has as many sessions as a cap that rejects allows; nothing is stored
-- Returns {payload, ms left} = conflict, with the session that is stored; ms left is -1 if it never expires
-- Fails before the first write if a key has another type, or if the user must not run DEL. The first SET, of the tombstone, may
-- fail, for example at maxmemory; then nothing has changed. After it no failure of the index or of the owners aborts the script.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include require_acl (defines require_acl)
--#if ends
local reason = 'cap'
--#include note_end (uses ARGV; defines note_end)
--#end
--#if expiring
--#include principals (defines principals)
--#end
local old, new, tombstone, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
--#if expiring
local base, cap = ARGV[#ARGV], ARGV[7 + companions]
-- Owner and cap come together. Without them the key base stands where the owner would.
local owner = cap and ARGV[6 + companions]
--#end
--#if expiring_ends
cap = ARGV[8 + companions]
owner = cap and ARGV[7 + companions]
--#end
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if is_live(left) then return taken == ARGV[1] and 1 or -1 end
end
local key = old
--#include expect (uses key, how, expected, ARGV; may return)
-- Run everything that Redis may reject before the first real write. Writing the tombstone first is harmless, because it is
-- ignored while the old session is live.
require_acl('DEL', old)
--#if expiring
-- The hash may also have the new key, of a session that expired under it. If the hash cannot be read, `principals()` copes.
local owners = redis.pcall('HMGET', base .. 'principals', old, new)
local p = (owner or owners.err or owners[1] or owners[2]) and principals(index, base)
local had, since, replaced
if p then
  had, since = p.before_write(old, owner, cap)
  --#include over_cap (uses p, key, owner, cap, had; may return)
  replaced = p.owner_of(new)
end
--#end
redis.call('SET', tombstone, '', 'PX', ARGV[3 + companions])
key = new
--#include write (uses key, old, index, ARGV; defines deadline)
redis.call('DEL', old)
--#if ends
note_end(old, 'renewed', ARGV[6 + companions])
--#end
--#if companions
companions_delete(old)
--#end
--#if expiring
redis.pcall('ZREM', index, old)
if p then p.unbind(new, replaced) end
if p and p.after_write(new, owner, cap, had, since, old) then return 2 end
--#end
return 1
