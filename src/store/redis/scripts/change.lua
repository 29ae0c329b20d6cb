-- Replaces the payload of a live session from outside. The session keeps its deadline and its owner.
-- KEYS[1] session
-- ARGV[1] payload
-- ARGV[2] '' = the TTL is kept
-- ARGV[3] to ARGV[2 + companions] one value for each companion
-- ARGV[3 + companions] compare mode: 'any', 'revision' or 'all'
-- ARGV[4 + companions] expected revision or payload
-- Returns 1 = stored, now or by an earlier attempt
-- Returns 0 = the session is not live
-- Returns {payload, ms left} = conflict, with the session that is stored; ms left is -1 if it never expires
-- Fails before the first write if the key has another type. SET may fail, for example at maxmemory; then the session is
-- unchanged. The index needs no change, because the deadline stays.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
local key = KEYS[1]
local how, expected = ARGV[3 + companions], ARGV[4 + companions]
--#include expect (uses key, how, expected, ARGV; may return)
redis.call('SET', key, ARGV[1], 'KEEPTTL')
--#if companions
companions_store(key, nil)
--#end
return 1
