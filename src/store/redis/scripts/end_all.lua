-- Ends sessions of a partition, whoever owns them.
-- KEYS[1] index
-- ARGV[1] time in ms since 1970: entries of the index that are due later are looked at
-- ARGV[2] number of entries to look at
-- ARGV[3] to ARGV[#ARGV - 1] keys of the sessions to end, instead of those of the index (optional)
-- ARGV[#ARGV] key base of the partition
-- Returns {number of live sessions that ended, number of entries that are still due later}; the second is 0 if all entries were
-- looked at
-- DEL may fail if the user must not run it; then the sessions before have ended completely, and a repeated call ends the others.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include principals (defines principals)
local index, since, limit, p = KEYS[1], '(' .. ARGV[1], tonumber(ARGV[2]), principals(KEYS[1], ARGV[#ARGV])
local keys, first, last, ended = ARGV, 3, #ARGV - 1, 0
if last < first then
  keys, first = redis.call('ZRANGE', index, since, '+inf', 'BYSCORE', 'LIMIT', 0, limit), 1
  last = #keys
end
for position = first, last do
  local key = keys[position]
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' or kind == 'none' then
    if p.end_session(key) then ended = ended + 1 end
  else
    -- A key of another type is no session and stays.
    redis.call('ZREM', index, key)
    p.unbind(key, (p.owner_of(key)))
  end
end
return {ended, last < limit and 0 or redis.call('ZCOUNT', index, since, '+inf')}
