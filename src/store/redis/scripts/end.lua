-- Ends sessions of an owner in a partition.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] number of sessions to look at
-- ARGV[3] which sessions: 'all', 'but' (all but the one under ARGV[4]) or 'only' (the one under ARGV[4])
-- ARGV[4] session key, '' for 'all'
-- ARGV[5] key base of the partition
-- Returns {number of live sessions that ended, 1 if there may be more}
-- Returns {-1, 0} = the session to be kept is not live or has another owner; nothing has ended
-- DEL may fail if the user must not run it; then the sessions before have ended completely, and a repeated call ends the others.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include principals (defines principals)
local p, which, key = principals(KEYS[1], ARGV[5]), ARGV[3], ARGV[4]
local set, ended, looked = p.owned .. ARGV[1], 0, 0
local owns = key ~= '' and redis.call('ZSCORE', set, key)
if which == 'but' then
  local left = redis.call('PTTL', key)
  if not owns or not is_live(left) then return {-1, 0} end
end
local keys = which == 'only' and (owns and {key} or {}) or redis.call('ZRANGE', set, 0, ARGV[2])
for _, other in ipairs(keys) do
  if which ~= 'but' or other ~= key then
    looked = looked + 1
    if p.end_session(other, set) then ended = ended + 1 end
  end
end
return {ended, which ~= 'only' and looked >= tonumber(ARGV[2]) and 1 or 0}
