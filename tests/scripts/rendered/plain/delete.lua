local grace, companions = 0, 0
local key, index, owner, base = KEYS[1], KEYS[2], nil, ARGV[#ARGV]
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
local was_live = redis.call('DEL', key)
return was_live
