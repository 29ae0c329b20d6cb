-- Lists live sessions by the index, the one that expires last first.
-- KEYS[1] index
-- ARGV[1] number of entries to skip
-- ARGV[2] number of entries to look at
-- Returns three values for each entry: its key, its score in the index, and the ms that the session has left (-1 = it never
-- expires, -2 = it is not live)
-- It only reads.
--#include is_live (defines is_live, time_left)
--#include clock (defines clock)
local found = redis.call(
  'ZRANGE', KEYS[1], '+inf', '(' .. clock(), 'BYSCORE', 'REV', 'LIMIT', ARGV[1], ARGV[2], 'WITHSCORES')
local reply = {}
for position = 1, #found, 2 do
  local left = redis.call('PTTL', found[position])
  reply[#reply + 1] = found[position]
  reply[#reply + 1] = found[position + 1]
  reply[#reply + 1] = is_live(left) and time_left(left) or -2
end
return reply
