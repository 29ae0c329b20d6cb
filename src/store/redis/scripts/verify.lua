-- Makes entries of the index exact, and drops entries of index and owners that have no session.
-- KEYS[1] index
-- ARGV[1] to ARGV[#ARGV - 1] keys of sessions, or keys from the index or the owners
-- ARGV[#ARGV] key base of the partition
-- Returns {number of entries added, number corrected, number dropped}
-- A command of the index may fail; then the entries before are exact, and a repeated call does the others.
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include is_live (defines is_live, time_left)
--#include clock (defines clock)
--#include principals (defines principals)
local index, now, p = KEYS[1], clock(), principals(KEYS[1], ARGV[#ARGV])
local added, corrected, dropped = 0, 0, 0
for position = 1, #ARGV - 1 do
  local key = ARGV[position]
  local left = redis.call('PTTL', key)
  local entry = redis.call('ZSCORE', index, key)
  if redis.call('TYPE', key).ok ~= 'string' then
    dropped = dropped + redis.call('ZREM', index, key)
    p.unbind(key, (p.owner_of(key)))
    --#if companions
    companions_delete(key)
    --#end
  else
    -- An expired session belongs into the index too, or no reaper would find it.
    local deadline = left == -1 and math.huge or now + left - grace
    if not entry then
      added = added + 1
    elseif math.abs(tonumber(entry) - deadline) > math.max(1000, math.abs(left - grace) / 64) then
      corrected = corrected + 1
    end
    redis.call('ZADD', index, deadline == math.huge and '+inf' or deadline, key)
  end
end
return {added, corrected, dropped}
