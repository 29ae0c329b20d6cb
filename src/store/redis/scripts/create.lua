-- Creates a session under a key that has no live session.
-- KEYS[1] session
-- KEYS[2] index (expiring store only)
-- ARGV[1] payload
-- ARGV[2] data TTL in ms, '' = never expires
-- ARGV[3] to ARGV[2 + companions] one value for each companion
-- ARGV[3 + companions] owner (optional; expiring store only)
-- ARGV[4 + companions] cap of the owner's sessions, '' = none, '-' and a number = reject this session (only with an owner)
-- ARGV[#ARGV] key base of the partition (expiring store only)
-- Returns 1 = stored, now or by an earlier attempt
-- Returns 2 = stored, and the owner did not have it before
-- Returns 0 = the key is taken
-- Returns -2 = the owner has as many sessions as a cap that rejects allows; nothing is stored
-- Fails before the first write if the key has another type, or if the user must not delete sessions beyond a cap. SET may fail,
-- for example at maxmemory; then no session is stored. After SET no failure of the index or of the owners aborts the script.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#if expiring_ends
local reason = 'cap'
--#include note_end (uses ARGV; defines note_end)
--#end
--#if expiring
--#include principals (defines principals)
--#end
local key, index, old = KEYS[1], KEYS[2], nil
--#if expiring
local base, cap = ARGV[#ARGV], ARGV[4 + companions]
-- Owner and cap come together. Without them the key base stands where the owner would.
local owner = cap and ARGV[3 + companions]
--#end
local stored = redis.call('GET', key)
if stored then
  local left = redis.call('PTTL', key)
  if is_live(left) then return stored == ARGV[1] and 1 or 0 end
end
--#if expiring
--#include has_owner (uses owner, base, key; defines has_owner)
local p = has_owner and principals(index, base)
local had = p and p.before_write(key, owner, cap)
--#include over_cap (uses p, key, owner, cap, had; may return)
--#end
--#include write (uses key, old, index, ARGV; defines deadline)
--#if companions
-- A companion that this write keeps is left of an earlier session, which expired.
for position, suffix in ipairs(suffixes) do
  if ARGV[2 + position] == '=' then redis.pcall('DEL', key .. ':' .. suffix) end
end
--#end
--#if expiring
if p then p.unbind(key, had) end
if p and p.after_write(key, owner, cap) then return 2 end
--#end
return 1
