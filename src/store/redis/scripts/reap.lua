-- KEYS: index. ARGV: grace, entries to look at, '1' for payloads.
-- Answers how many sessions were removed, how many entries are still due, and for payloads key and payload of each.
local index, limit, payloads = KEYS[1], ARGV[2], ARGV[3] == '1'
local now = clock()
local due = redis.call('ZRANGE', index, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
local removed, answer, gone, moved = 0, {0, 0}, {}, {}
for _, key in ipairs(due) do
  local left = redis.call('PTTL', key)
  if left > grace or (left == -1 and redis.call('TYPE', key).ok == 'string') then
    -- Used meanwhile: the index lagged.
    moved[#moved + 1] = left == -1 and '+inf' or now + left - grace
    moved[#moved + 1] = key
  else
    gone[#gone + 1] = key
    if left >= 0 then
      local payload = redis.pcall('GETDEL', key)
      if type(payload) == 'string' then
        removed = removed + 1
        if payloads then
          answer[#answer + 1] = key
          answer[#answer + 1] = payload
        end
      elseif payload and not string.find(payload.err, '^WRONGTYPE') then
        return payload
      end
      -- What is not a string is none of our sessions, and stays.
    end
    leave(key)
  end
end
if #due > 0 then
  -- At maxmemory Redis refuses ZADD unless the script has written something before, if only that no '' is in the index. What
  -- is not corrected would be due again in the next batch, and for ever in the way of all others.
  redis.call('ZREM', index, '', unpack(gone))
end
if #gone > 0 then
  for position, owner in ipairs(try('HMGET', owners_of(index), unpack(gone)) or {}) do
    if owner then disown(index, gone[position]) end
  end
end
if #moved > 0 then redis.pcall('ZADD', index, unpack(moved)) end
answer[1] = removed
answer[2] = #due == tonumber(limit) and redis.call('ZCOUNT', index, '-inf', now) or 0
return answer
