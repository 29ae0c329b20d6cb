-- KEYS: index. ARGV: milliseconds since 1970, how many, and perhaps keys from the index.
-- Ends the sessions under these keys, or so many of those that the index has due later than that. Answers how many lived, and
-- how many entries are still due later; 0 if all of them were looked at.
-- include companions -- companions
-- include principals
local index, since, limit, p = KEYS[1], '(' .. ARGV[1], tonumber(ARGV[2]), principals(KEYS[1])
local keys, first, ended = ARGV, 3, 0
if #ARGV < first then
  keys, first = redis.call('ZRANGE', index, since, '+inf', 'BYSCORE', 'LIMIT', 0, limit), 1
end
for position = first, #keys do
  local key = keys[position]
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' or kind == 'none' then
    if p.end_session(key) then ended = ended + 1 end
  else
    -- What is of another type is no session, and stays.
    redis.call('ZREM', index, key)
    p.unbind(key, (p.owner_of(key)))
  end
end
return {ended, #keys < limit and 0 or redis.call('ZCOUNT', index, since, '+inf')}
