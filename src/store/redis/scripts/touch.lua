-- Moves the deadline of a live session. The client reads the payload with a GET in front of this script, in the same round trip,
-- because a payload in Lua would cost more than the whole script.
-- KEYS[1] session
-- KEYS[2] index (expiring store only)
-- ARGV[1] data TTL in ms, from now on
-- ARGV[2] '1' = keep a deadline that is later (optional)
-- Returns the ms that the session has left, -1 if it never expires
-- Returns nil = the session is not live
-- PEXPIRE may fail if the user must not run it; then nothing has changed. After it no failure of the index aborts the script.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
local key, index, data_ttl = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if not is_live(left) then return nil end
if left == -1 or left > data_ttl then
  if ARGV[2] then return time_left(left) end
  -- A key of another type is no session. A touch may prolong it, but must never shorten its life.
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
--#if expiring
local before = redis.call('PEXPIRETIME', key)
--#end
redis.call('PEXPIRE', key, ARGV[1])
--#if companions
companions_expire(key)
--#end
--#if expiring
-- Update the index only when the deadline enters another 64th of the TTL. The entry of a session in use lags by less than that,
-- and most touches save the update. The reaper looks at the data before it believes the index. (The extra second allows for the
-- clock, which moves on between two commands of a script.)
local by = data_ttl - left + 1000
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((data_ttl - grace) / 64) >= by
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end
--#end
return data_ttl - grace
