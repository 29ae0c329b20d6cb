-- Continues unless the cap begins with '-', which rejects a session, and `owner` has as many other live sessions. The session
-- under `key` belongs to `had`; a session that the owner has already is never rejected. Such a cap ends no session later.
-- Returns -2 = the owner has as many sessions as the cap allows
-- It only reads, so nothing is written if a command fails.
local limit, others = nil, 0
if cap and string.sub(cap, 1, 1) == '-' then
  if owner ~= had then limit = tonumber(string.sub(cap, 2)) end
  cap = ''
  -- Another program may have written over the set. The write repairs it.
  local theirs = limit and redis.pcall('ZRANGE', p.owned .. owner, 0, -1) or {}
  if theirs.err then theirs = {} end
  local holders = p.owners_of(theirs)
  for position, other in ipairs(theirs) do
    local left = redis.call('PTTL', other)
    local is_theirs = not holders[position] or holders[position] == owner
    if is_theirs and other ~= key and is_live(left) then others = others + 1 end
  end
end
if limit and others >= limit then return -2 end
