local grace, companions = 86400000, 2
local suffixes = {'device', 'seen'}
local index, clobbered = KEYS[1], {}
for name, kind in pairs({[index] = 'zset', [string.sub(index, 1, -6) .. 'principals'] = 'hash'}) do
  local found = redis.call('TYPE', name).ok
  if found ~= kind and found ~= 'none' and (not ARGV[1] or redis.call('RENAMENX', name, name .. ARGV[1]) == 1) then
    table.insert(clobbered, name)
  end
end
return clobbered
