-- Goes on only if a session lives under `key`, and is what is `expected`: 'any', what has this 'mark', which no other payload
-- begins with, or 'all' of a payload. A mark is compared without the payload, which would cost more in Lua than all the rest.
-- Answers otherwise 0 if there is no session, 1 if an earlier attempt has stored the payload ARGV[1], or what is there and the
-- milliseconds that it has left.
local same = how == 'mark' and string.sub(redis.call('GETRANGE', key, '0', '63'), 1, #expected) == expected
local there = not same and redis.call('GET', key)
if not same and not there then return 0 end
local left = redis.call('PTTL', key) -- expiring
if left >= 0 and left <= grace then return 0 end -- expiring
if not same and (how == 'mark' or how == 'all' and there ~= expected) then
  if there == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {there, left < 0 and -1 or left - grace}
end
