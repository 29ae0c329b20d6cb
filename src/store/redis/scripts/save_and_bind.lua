-- Replaces the payload of a live session and changes its owner. Only an expiring store runs it.
-- KEYS[1] session
-- KEYS[2] index
-- ARGV[1] payload
-- ARGV[2] data TTL in ms, '' = never expires
-- ARGV[3] to ARGV[2 + companions] one value for each companion
-- ARGV[3 + companions] compare mode: 'any', 'revision' or 'all'
-- ARGV[4 + companions] expected revision or payload
-- ARGV[5 + companions] owner, '' = none any more
-- ARGV[6 + companions] cap of the owner's sessions, '' = none, '-' and a number = reject this session
-- ARGV[7 + companions] key base of the partition
-- Returns 1 = stored, now or by an earlier attempt
-- Returns 2 = stored, and the owner did not have it before
-- Returns 0 = the session is not live
-- Returns -2 = the owner has as many sessions as a cap that rejects allows; nothing is stored
-- Returns {payload, ms left} = conflict, with the session that is stored; ms left is -1 if it never expires
-- Fails before the first write if the key has another type, or if the user must not delete sessions beyond a cap. SET may fail,
-- for example at maxmemory; then the session is unchanged. After SET no failure of the index or of the owners aborts the script.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#if ends
local reason = 'cap'
--#include note_end (uses ARGV; defines note_end)
--#end
--#include principals (defines principals)
local key, index, old = KEYS[1], KEYS[2], nil
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
local owner, cap, p = ARGV[5 + companions], ARGV[6 + companions], principals(index, ARGV[7 + companions])
--#include expect (uses key, how, expected, ARGV; may return)
local had, since = p.before_write(key, owner, cap)
--#include over_cap (uses p, key, owner, cap, had; may return)
--#include write (uses key, old, index, ARGV; defines deadline)
return p.after_write(key, owner, cap, had, since) and 2 or 1
