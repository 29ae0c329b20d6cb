-- KEYS: index. ARGV: grace, owner, how many, which ('all', 'but' or 'only'), key.
-- Ends sessions of the owner. Answers how many that were, and 1 if there may be more; -1 if the one to be kept is not theirs.
local index, which, key = KEYS[1], ARGV[4], ARGV[5]
local _, owned = owners_of(index)
local set, ended, looked = owned .. ARGV[2], 0, 0
local owns = key ~= '' and redis.call('ZSCORE', set, key)
if which == 'but' and not (owns and live(key)) then return {-1, 0} end
local keys = which == 'only' and (owns and {key} or {}) or redis.call('ZRANGE', set, 0, ARGV[3])
for _, other in ipairs(keys) do
  if which ~= 'but' or other ~= key then
    looked = looked + 1
    if finish(index, other, set) then ended = ended + 1 end
  end
end
return {ended, which ~= 'only' and looked >= tonumber(ARGV[3]) and 1 or 0}
