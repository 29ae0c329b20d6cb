-- KEYS: session, index. ARGV: the milliseconds that the data is to live from now on, and '1' if a deadline that is further
-- away stays. Answers the milliseconds that the session has left, -1 if it does not expire, or nil if there is none.
-- The payload is read by a command of its own before this one: it would cost more than all of this in Lua.
-- include companions -- companions
local key, index, lives = KEYS[1], KEYS[2], ARGV[1] + 0
local left = redis.call('PTTL', key)
if left ~= -1 and left <= grace then return nil end
if left == -1 or left > lives then
  if ARGV[2] then return left == -1 and -1 or left - grace end
  -- What is of another type is no session. It may come to live longer, but never loses any of its life.
  if redis.call('TYPE', key).ok ~= 'string' then return nil end
end
local before = redis.call('PEXPIRETIME', key) -- expiring
redis.call('PEXPIRE', key, ARGV[1])
companions_expire(key) -- companions
-- The index is told only when the deadline enters another 64th of the time to live: it lags by less than that, for every
-- session in use, and most touches do not pay for it. The reaper looks at the data before it believes the index. (A second
-- is added, for the clock does not stand still between two commands of a script.)
local by = lives - left + 1000 -- expiring
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((lives - grace) / 64) >= by -- expiring
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end -- expiring
return lives - grace
