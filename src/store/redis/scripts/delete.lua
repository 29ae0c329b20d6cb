-- Deletes a session.
-- KEYS[1] session
-- KEYS[2] index (expiring store only)
-- ARGV[1] reason to note (optional; only in a store that notes ends)
-- ARGV[#ARGV] key base of the partition (only in an expiring store, or in one that notes ends)
-- Returns 1 = the session was live and is deleted
-- Returns 0 = the session is not live
-- Fails before the first write if the key has another type. If the user must not run DEL, nothing is written. After DEL no
-- failure of the index or of the owners aborts the script.
--#if expiring
--#include is_live (defines is_live, time_left)
--#end
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#if ends
local reason = ARGV[2] and ARGV[1] or 'destroyed'
--#include note_end (uses ARGV; defines note_end)
--#end
--#if expiring
--#include principals (defines principals)
--#end
local key, index, owner, base = KEYS[1], KEYS[2], nil, ARGV[#ARGV]
-- A key of another type is no session and stays. GET fails with WRONGTYPE.
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
--#if expiring
--#include has_owner (uses owner, base, key; defines has_owner)
if has_owner then return principals(index, base).end_session(key) and 1 or 0 end
-- An expired session stays for the reaper, which reports it to the application. Without a key, an entry of the index may be left.
local left = redis.call('PTTL', key)
if left ~= -2 and not is_live(left) then return 0 end
--#end
local was_live = redis.call('DEL', key)
--#if ends
if was_live == 1 then note_end(key, reason) end
--#end
--#if companions
companions_delete(key)
--#end
--#if expiring
redis.pcall('ZREM', index, key)
--#end
return was_live
