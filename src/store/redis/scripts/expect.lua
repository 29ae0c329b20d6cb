-- Continues only if the session under `key` is live and is the expected one. The compare mode `how` is
--   'any'       any live session will do;
--   'revision'  the payload begins with the revision `expected`, which no other payload does. Only the beginning of the payload
--               is read, because a whole payload would cost more in Lua than everything else in the script;
--   'all'       the payload equals `expected`.
-- Returns 0 = the session is not live
-- Returns 1 = the payload ARGV[1] is stored already, by an earlier attempt
-- Returns {payload, ms left} = conflict, with the session that is stored; ms left is -1 if it never expires
-- It only reads, so nothing is written if a command fails. A key of another type fails with WRONGTYPE.
local same = how == 'revision' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local stored = not same and redis.call('GET', key)
if not same and not stored then return 0 end
--#if expiring
local left = redis.call('PTTL', key)
if not is_live(left) then return 0 end
--#end
if not same and (how == 'revision' or how == 'all' and stored ~= expected) then
  if stored == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {stored, time_left(left)}
end
