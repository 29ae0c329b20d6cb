-- Finds names of the store under which there is a key of another type, and moves such keys aside if a suffix is given.
-- KEYS[1] index
-- ARGV[1] suffix for the names of keys that are moved aside, '' = only look (optional)
-- ARGV[2] to ARGV[#ARGV - 1] sets of owners to look at, instead of index and hash (optional)
-- ARGV[#ARGV] key base of the partition
-- Returns the names under which there is, or was, a key of another type
-- Nothing is moved if RENAMENX fails or if the new name is taken. A failure for one name leaves those before it moved.
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
