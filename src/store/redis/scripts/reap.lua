-- KEYS: index. ARGV: entries to look at, '1' for payloads.
-- Answers how many sessions were removed, how many entries are still due, and for payloads key and payload of each.
-- One command for each entry, whether it is overdue, is half of what this costs: all else is done for all of them at once.
-- include companions -- companions
-- include clock
-- include principals
local index, limit, payloads = KEYS[1], ARGV[1], ARGV[2] == '1'
local call, now, answer = redis.call, clock(), {0, 0}
local due = call('ZRANGE', index, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
if #due == 0 then return answer end

local p = call('EXISTS', string.sub(index, 1, -6) .. 'principals') == 1 and principals(index)
local moved, gone, overdue = {}, {}, {}
for _, key in ipairs(due) do
  local left = call('PTTL', key)
  -- What has no time to live may be somebody else's, such as rrss's, and is not deleted.
  if left > grace or (left == -1 and call('TYPE', key).ok == 'string') then
    -- Used meanwhile: the index lagged.
    moved[#moved + 1] = left == -1 and '+inf' or now + left - grace
    moved[#moved + 1] = key
  else
    gone[#gone + 1] = key
    if left >= 0 then overdue[#overdue + 1] = key end
  end
end

if payloads and #overdue > 0 then
  for position, payload in ipairs(call('MGET', unpack(overdue))) do
    -- There is none of what is not a string, and so no session.
    if payload then
      answer[#answer + 1] = overdue[position]
      answer[#answer + 1] = payload
    end
  end
end
if #overdue > 0 then answer[1] = call('DEL', unpack(overdue)) end
for _, key in ipairs(gone) do companions_delete(key) end -- companions
-- At maxmemory Redis refuses ZADD unless the script has written something before, if only that no '' is in the index. What is
-- not corrected would be due again in the next batch, and for ever in the way of all others.
call('ZREM', index, '', unpack(gone))
if #moved > 0 then redis.pcall('ZADD', index, unpack(moved)) end
if p and #gone > 0 then p.unbind_all(gone) end
if #due == tonumber(limit) then answer[2] = call('ZCOUNT', index, '-inf', now) end
return answer
