local grace, companions = 0, 0
local key, index, owner = KEYS[1], KEYS[2], nil
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
local lived = redis.call('DEL', key)
return lived
