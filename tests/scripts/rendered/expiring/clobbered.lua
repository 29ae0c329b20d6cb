local grace, companions = 86400000, 0
local index, base, suffix, clobbered = KEYS[1], ARGV[#ARGV], #ARGV > 1 and ARGV[1], {}
for name, kind in pairs({[index] = 'zset', [base .. 'principals'] = 'hash'}) do
  local found = redis.call('TYPE', name).ok
  if found ~= kind and found ~= 'none' and (not suffix or redis.call('RENAMENX', name, name .. suffix) == 1) then
    table.insert(clobbered, name)
  end
end
return clobbered
