-- Ends sessions of an owner in a partition.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] number of sessions to look at
-- ARGV[3] which sessions: 'all', 'but' (all but the one under ARGV[4]) or 'only' (the one under ARGV[4])
-- ARGV[4] session key, '' for 'all'
-- ARGV[5] time in ms since 1970: 'only' spares a session that the owner got later; '' = none
-- ARGV[6] key base of the partition
-- Returns {number of live sessions that ended, 1 if there may be more}
-- Returns {-1, 0} = the session to be kept is not live or has another owner; nothing has ended
-- Returns {0, 1} for 'only' = the owner got the session later
-- A session in the set of the owner that the hash gives to another owner is not ended, and leaves the set. DEL may fail if the user
-- must not run it. If a command fails after a session ended, the script returns what has ended, and the next call fails.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#if ends
local reason = ARGV[5] ~= '' and 'cap' or 'ended'
--#include note_end (uses ARGV; defines note_end)
--#end
--#include principals (defines principals)
local p, owner, limit, which, key = principals(KEYS[1], ARGV[6]), ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local set, ended = p.owned .. owner, 0
if which ~= 'all' then
  local holder, since = p.owners_of({key})[1], redis.call('ZSCORE', set, key)
  local is_theirs = holder == owner or not holder and since
  if which == 'only' then
    if not is_theirs then return {0, 0} end
    if ARGV[5] ~= '' and tonumber(since or 0) > tonumber(ARGV[5]) then return {0, 1} end
    return {p.end_session(key, set) and 1 or 0, 0}
  end
  local left = redis.call('PTTL', key)
  if not is_theirs or not is_live(left) then return {-1, 0} end
end

local keys = redis.call('ZRANGE', set, 0, limit)
local found = p.owners_of(keys)
for position, other in ipairs(keys) do
  if found[position] and found[position] ~= owner then
    redis.pcall('ZREM', set, other)
  elseif which == 'all' or other ~= key then
    local done, was_live = pcall(p.end_session, other, set)
    if not done and ended == 0 then p.fail(was_live) end
    if not done then return {ended, 1} end
    if was_live then ended = ended + 1 end
  end
end
if #keys <= limit then return {ended, 0} end
-- If entries cannot leave the set, a call after this one would look at them again. Then ZREM fails here.
local reply = redis.pcall('ZREM', set, keys[1] ~= key and keys[1] or keys[2])
if type(reply) ~= 'number' and ended == 0 then p.fail(reply) end
return {ended, 1}
