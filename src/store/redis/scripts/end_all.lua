-- Ends sessions of a partition, whoever owns them.
-- KEYS[1] index
-- ARGV[1] time in ms since 1970: entries of the index that are due later are looked at
-- ARGV[2] number of entries to look at
-- ARGV[3] to ARGV[#ARGV - 1] keys of the sessions to end, instead of those of the index (optional)
-- ARGV[#ARGV] key base of the partition
-- Returns {number of live sessions that ended, number of entries that are still due later}; the second is 0 if all entries were
-- looked at, and -1 if a command failed after the first session ended: then a repeated call fails or ends the others
-- DEL may fail if the user must not run it.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#if ends
local reason = 'ended'
--#include note_end (uses ARGV; defines note_end)
--#end
--#include principals (defines principals)
--#if remembered
-- One marker for the partition replaces the reasons of all sessions, because there may be very many.
local marker_ttl = remember
remember = nil
--#end
local index, since, limit, p = KEYS[1], '(' .. ARGV[1], tonumber(ARGV[2]), principals(KEYS[1], ARGV[#ARGV])
local keys, first, last, ended = ARGV, 3, #ARGV - 1, 0
if last < first then
  keys, first = redis.call('ZRANGE', index, since, '+inf', 'BYSCORE', 'LIMIT', 0, limit), 1
  last = #keys
end

-- Ends a session and returns true if it was live.
local function end_one(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' or kind == 'none' then return p.end_session(key) end
  -- A key of another type is no session and stays.
  redis.call('ZREM', index, key)
  p.unbind(key, (p.owner_of(key)))
  return false
end

for position = first, last do
  local done, was_live = pcall(end_one, keys[position])
  if not done and ended == 0 then p.fail(was_live) end
  if not done then return {ended, -1} end
  if was_live then ended = ended + 1 end
  --#if remembered
  if was_live and ended == 1 then redis.pcall('SET', ARGV[#ARGV] .. 'ended', 'ended', 'PX', marker_ttl) end
  --#end
end
return {ended, last < limit and 0 or redis.call('ZCOUNT', index, since, '+inf')}
