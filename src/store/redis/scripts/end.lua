-- KEYS: index. ARGV: owner, how many, which ('all', 'but' or 'only'), key.
-- Ends sessions of the owner. Answers how many that were, and 1 if there may be more; -1 if the one to be kept is not theirs.
-- include companions -- companions
-- include principals
local p, which, key = principals(KEYS[1]), ARGV[3], ARGV[4]
local set, ended, looked = p.owned .. ARGV[1], 0, 0
local owns = key ~= '' and redis.call('ZSCORE', set, key)
if which == 'but' then
  local left = redis.call('PTTL', key)
  if not owns or (left ~= -1 and left <= grace) then return {-1, 0} end
end
local keys = which == 'only' and (owns and {key} or {}) or redis.call('ZRANGE', set, 0, ARGV[2])
for _, other in ipairs(keys) do
  if which ~= 'but' or other ~= key then
    looked = looked + 1
    if p.end_session(other, set) then ended = ended + 1 end
  end
end
return {ended, which ~= 'only' and looked >= tonumber(ARGV[2]) and 1 or 0}
