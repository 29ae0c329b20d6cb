-- KEYS: index. ARGV: keys of sessions, or of what the index takes for sessions.
-- Makes their entries exact, and leaves to principals what is a session. Answers how many entries were added, corrected and dropped.
-- include companions -- companions
-- include clock
-- include principals
local index, now, p = KEYS[1], clock(), principals(KEYS[1])
local added, corrected, dropped = 0, 0, 0
for position = 1, #ARGV do
  local key = ARGV[position]
  local left = redis.call('PTTL', key)
  local entry = redis.call('ZSCORE', index, key)
  if redis.call('TYPE', key).ok ~= 'string' then
    dropped = dropped + redis.call('ZREM', index, key)
    p.unbind(key, (p.owner_of(key)))
    companions_delete(key) -- companions
  else
    -- Also what is due belongs into the index, or no reaper would find it.
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
