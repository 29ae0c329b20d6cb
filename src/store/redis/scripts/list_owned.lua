-- Lists the live sessions of an owner in a partition, the newest first.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] number of sessions to look at
-- ARGV[3] key base of the partition
-- Returns {key, payload, ms left, time in ms at which the owner got it} for each session; ms left is -1 if it never expires
-- A session in the set of the owner that the hash gives to another owner is left out. It only reads.
--#include is_live (defines is_live, time_left)
--#include principals (defines principals)
local owner, p = ARGV[1], principals(KEYS[1], ARGV[3])
local entries = redis.call('ZRANGE', p.owned .. owner, 0, ARGV[2] - 1, 'REV', 'WITHSCORES')
local keys, reply = {}, {}
for position = 1, #entries, 2 do keys[#keys + 1] = entries[position] end
local found = p.owners_of(keys)
for position, key in ipairs(keys) do
  if not found[position] or found[position] == owner then
    local payload, left = redis.call('GET', key), redis.call('PTTL', key)
    if payload and is_live(left) then
      local since = math.max(0, math.min(tonumber(entries[2 * position]), 2 ^ 53))
      reply[#reply + 1] = {key, payload, time_left(left), since}
    end
  end
end
return reply
