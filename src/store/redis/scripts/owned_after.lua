-- Lists live sessions of an owner in a partition, in the order in which the owner got them.
-- KEYS[1] index
-- ARGV[1] owner
-- ARGV[2] number of sessions to look at
-- ARGV[3] time in ms after which the owner got them, '' = any time
-- ARGV[4] key base of the partition
-- Returns {time of the last session looked at, sessions}; the time is -1 if there is none. A session is {key, payload, ms left,
-- time in ms at which the owner got it}; ms left is -1 if it never expires
-- A session in the set of the owner that the hash gives to another owner is left out. It only reads.
--#include is_live (defines is_live, time_left)
--#include principals (defines principals)
local owner, after, p = ARGV[1], ARGV[3], principals(KEYS[1], ARGV[4])
-- Another program may have written a time that no number of the client can have.
local function in_bounds(time) return math.max(0, math.min(math.floor(tonumber(time)), 2 ^ 53)) end
if after ~= '' and tonumber(after) >= 2 ^ 53 then return {-1, {}} end
local first = after == '' and '-inf' or '(' .. after
local entries = redis.call('ZRANGE', p.owned .. owner, first, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local keys, last, sessions = {}, -1, {}
for position = 1, #entries, 2 do
  keys[#keys + 1] = entries[position]
  last = in_bounds(entries[position + 1])
end
local found = p.owners_of(keys)
for position, key in ipairs(keys) do
  if not found[position] or found[position] == owner then
    local payload, left = redis.call('GET', key), redis.call('PTTL', key)
    if payload and is_live(left) then
      sessions[#sessions + 1] = {key, payload, time_left(left), in_bounds(entries[2 * position])}
    end
  end
end
return {last, sessions}
