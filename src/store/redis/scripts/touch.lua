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
--#include move_deadline (uses key, index, left, data_ttl, ARGV)
return data_ttl - grace
