local grace, companions = 0, 0
local remember = 300000
local reason = ARGV[2] and ARGV[1] or 'destroyed'
local function note_end(key, reason, heir)
  if remember and not heir then redis.pcall('SET', key .. ':ended', reason, 'PX', remember) end
end
local key, index, owner, base = KEYS[1], KEYS[2], nil, ARGV[#ARGV]
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
local was_live = redis.call('DEL', key)
if was_live == 1 then note_end(key, reason) end
return was_live
