-- Notes that a live session has ended: publishes it for listeners, and leaves the reason for later requests with the id. A script
-- calls it right after it has deleted the session, so no failure here aborts a script. `reason` is 'destroyed', 'renewed', 'ended', 'cap' or
-- 'expired'. `heir` is the handle of the session's new id after a renewal. The last argument of a script that uses it is the key
-- base of the partition, from which the name of the channel follows.
local function note_end(key, reason, heir)
  --#if remembered
  if remember and not heir then redis.pcall('SET', key .. ':ended', reason, 'PX', remember) end
  --#end
  --#if announced
  redis.pcall(publish, ARGV[#ARGV] .. 'ended', reason .. ' ' .. (heir or '-') .. ' ' .. key)
  --#end
end
