local grace, companions = 86400000, 2
local suffixes = {'device', 'seen'}
local publish = 'PUBLISH'
local index, base, suffix, clobbered = KEYS[1], ARGV[#ARGV], #ARGV > 1 and ARGV[1] or '', {}
local kinds = {}
for position = 2, #ARGV - 1 do kinds[ARGV[position]] = 'zset' end
if #ARGV < 3 then kinds = {[index] = 'zset', [base .. 'principals'] = 'hash'} end
for name, kind in pairs(kinds) do
  local found = redis.call('TYPE', name).ok
  if found ~= kind and found ~= 'none' and (suffix == '' or redis.call('RENAMENX', name, name .. suffix) == 1) then
    table.insert(clobbered, name)
  end
end
return clobbered
