-- Replaces the payload of a live session. The session keeps its owner.
-- KEYS[1] session
-- KEYS[2] index (expiring store only)
-- ARGV[1] payload
-- ARGV[2] data TTL in ms, '' = never expires
-- ARGV[3] to ARGV[2 + companions] one value for each companion
-- ARGV[3 + companions] compare mode: 'any', 'revision' or 'all' (optional; 'any' without it)
-- ARGV[4 + companions] expected revision or payload (only with a compare mode)
-- Returns 1 = stored, now or by an earlier attempt
-- Returns 0 = the session is not live
-- Returns {payload, ms left} = conflict, with the session that is stored; ms left is -1 if it never expires
-- Fails before the first write if the key has another type. SET may fail, for example at maxmemory; then the session is
-- unchanged. After SET no failure of the index aborts the script.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
local key, index, old = KEYS[1], KEYS[2], nil
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
--#include expect (uses key, how, expected, ARGV; may return)
--#include write (uses key, old, index, ARGV; defines deadline)
return 1
