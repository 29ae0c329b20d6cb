-- KEYS: session, index. ARGV: payload, milliseconds that the data lives, companions, and perhaps owner and cap.
-- Answers 1: stored, 0: taken.
-- include companions -- companions
-- include principals -- expiring
local key, index, old = KEYS[1], KEYS[2], nil
local owner, cap = ARGV[3 + companions], ARGV[4 + companions] -- expiring
local there = redis.call('GET', key)
if there then
  local left = redis.call('PTTL', key)
  if left < 0 or left > grace then return there == ARGV[1] and 1 or 0 end
  -- It expired and was not reaped yet. Otherwise there is nothing to delete, and nothing is: after a DEL Redis would take
  -- the SET also at maxmemory.
  companions_delete(key) -- companions
end
-- include has_owner -- expiring
local p = has_owner and principals(index) -- expiring
local had = p and p.before_write(key, owner, cap) -- expiring
-- include write
if p then p.unbind(key, had) end -- expiring
if p then p.after_write(key, owner, cap) end -- expiring
return 1
