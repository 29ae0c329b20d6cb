-- KEYS: session, index. ARGV: grace, touch ('no', 'set' or 'extend'), ttl.
-- Answers nil, or the payload and the milliseconds it has left, -1 if it does not expire.
local payload, left = live(KEYS[1], true)
if not payload then return nil end
local touch, ttl = ARGV[2], tonumber(ARGV[3])
if touch == 'set' or (touch == 'extend' and left and left < ttl) then
  redis.call('PEXPIRE', KEYS[1], ttl + grace)
  accompany(KEYS[1])
  local index = KEYS[2]
  if index then
    -- The index is told only when the deadline enters another 64th of the time to live: it lags by less than that, for
    -- every session in use, and most touches do not pay for it. The reaper looks at the data before it believes the index.
    local now, step = clock(), math.ceil(ttl / 64)
    if not left or math.floor((now + left) / step) ~= math.floor((now + ttl) / step) then
      redis.pcall('ZADD', index, now + ttl, KEYS[1])
    end
  end
  left = ttl
end
return {payload, left or -1}
