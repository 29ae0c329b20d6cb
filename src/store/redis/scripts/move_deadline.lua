-- Gives a live session the data TTL ARGV[1]. `left` is its data TTL so far, `data_ttl` the new one as a number.
-- PEXPIRE may fail if the user must not run it; then nothing has changed. After it no failure of the index aborts the script.
--#if expiring
local before = redis.call('PEXPIRETIME', key)
--#end
redis.call('PEXPIRE', key, ARGV[1])
--#if companions
companions_expire(key)
--#end
--#if expiring
-- Update the index only when the deadline enters another 64th of the TTL. The entry of a session in use lags by less than that,
-- and most touches save the update. The reaper looks at the data before it believes the index. (The extra second allows for the
-- clock, which moves on between two commands of a script.)
local by = data_ttl - left + 1000
local same = left ~= -1 and by >= 1000 and (before - grace + by) % ((data_ttl - grace) / 64) >= by
if not same then redis.pcall('ZADD', index, redis.call('PEXPIRETIME', key) - grace, key) end
--#end
