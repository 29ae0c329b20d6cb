-- Lists the live sessions of an owner in a partition, the newest first.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] number of sessions to look at
-- ARGV[3] key base of the partition
-- Returns {key, payload, ms left, time in ms at which the owner got it} for each session; ms left is -1 if it never expires
-- It only reads.
--#include is_live (defines is_live, time_left)
--#include principals (defines principals)
local entries = redis.call('ZRANGE', principals(KEYS[1], ARGV[3]).owned .. ARGV[1], 0, ARGV[2] - 1, 'REV', 'WITHSCORES')
local reply = {}
for position = 1, #entries, 2 do
  local key = entries[position]
  local payload, left = redis.call('GET', key), redis.call('PTTL', key)
  if payload and is_live(left) then
    reply[#reply + 1] = {key, payload, time_left(left), tonumber(entries[position + 1])}
  end
end
return reply
