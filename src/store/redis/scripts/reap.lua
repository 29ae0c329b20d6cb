-- Removes expired sessions of a partition, and corrects entries of the index that lag.
-- KEYS[1] index
-- ARGV[1] number of entries to look at
-- ARGV[2] '1' = return the payloads
-- ARGV[3] key base of the partition
-- Returns {number of sessions removed, number of entries still due, key, payload, key, payload, …}; the second is 0 unless as many
-- entries were due as it looked at, and there are no keys and payloads unless ARGV[2] is '1'
-- DEL may fail if the user must not run it; then nothing has changed. A failure of ZREM leaves entries behind, which the next
-- batch removes.
-- One PTTL for each entry is half of the cost. So all other work is done once for all entries.
--#include is_live (defines is_live, time_left)
--#if companions
--#include companions (defines companions_expire, companions_store, companions_delete)
--#end
--#include clock (defines clock)
--#if ends
--#include note_end (uses ARGV; defines note_end)
--#end
--#include principals (defines principals)
local index, limit, payloads, base = KEYS[1], ARGV[1], ARGV[2] == '1', ARGV[3]
local call, now, reply = redis.call, clock(), {0, 0}
local due = call('ZRANGE', index, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
if #due == 0 then return reply end

local p = call('EXISTS', base .. 'principals') == 1 and principals(index, base)
local moved, gone, overdue = {}, {}, {}
for _, key in ipairs(due) do
  local left = call('PTTL', key)
  -- A key without a TTL may belong to another library, such as rrss, and is not deleted.
  if is_live(left) and (left ~= -1 or call('TYPE', key).ok == 'string') then
    -- The session was used since, and the index lags.
    moved[#moved + 1] = left == -1 and '+inf' or now + left - grace
    moved[#moved + 1] = key
  else
    gone[#gone + 1] = key
    if left >= 0 then overdue[#overdue + 1] = key end
  end
end

if payloads and #overdue > 0 then
  for position, payload in ipairs(call('MGET', unpack(overdue))) do
    -- MGET returns no payload for a key of another type, which is no session.
    if payload then
      reply[#reply + 1] = overdue[position]
      reply[#reply + 1] = payload
    end
  end
end
if #overdue > 0 then reply[1] = call('DEL', unpack(overdue)) end
--#if ends
for _, key in ipairs(overdue) do note_end(key, 'expired') end
--#end
--#if companions
for _, key in ipairs(gone) do companions_delete(key) end
--#end
-- At maxmemory Redis rejects ZADD unless the script has written before. So ZREM always runs, with '' at least, which is never in
-- the index. An entry that is not corrected would be due again in each batch and keep the reaper from the others.
call('ZREM', index, '', unpack(gone))
if #moved > 0 then redis.pcall('ZADD', index, unpack(moved)) end
if p and #gone > 0 then p.unbind_all(gone) end
if #due == tonumber(limit) then reply[2] = call('ZCOUNT', index, '-inf', now) end
return reply
