-- Goes on only if a session lives under `key`, with its payload as `there`. Answers 0 otherwise.
local there = redis.call('GET', key)
if not there then return 0 end
local left = redis.call('PTTL', key) -- expiring
if left >= 0 and left <= grace then return 0 end -- expiring
