-- KEYS: old session, new session, mark of the old one, index.
-- ARGV: payload, milliseconds that the data lives, companions, milliseconds the mark stays, how the old session is expected to
-- be and as what, and perhaps owner and cap.
-- Answers 1: stored, 0: missing, -1: the new key is taken, or the payload in the way and the milliseconds it has left.
-- include companions -- companions
-- include require_acl
-- include principals -- expiring
local old, new, mark, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, expected = ARGV[4 + companions], ARGV[5 + companions]
local owner, cap = ARGV[6 + companions], ARGV[7 + companions] -- expiring
local taken = redis.call('GET', new)
if taken then
  local left = redis.call('PTTL', new)
  if left < 0 or left > grace then return taken == ARGV[1] and 1 or -1 end
end
local key = old
-- include expect
-- What Redis may refuse comes first, so that it is refused whole. Beside a session that lives the mark means nothing.
require_acl('DEL', old)
-- include has_owner -- expiring
local p = has_owner and principals(index) -- expiring
local had, since -- expiring
if p then had, since = p.before_write(old, owner, cap) end -- expiring
redis.call('SET', mark, '', 'PX', ARGV[3 + companions])
key = new
-- include write
redis.call('DEL', old)
companions_delete(old) -- companions
redis.pcall('ZREM', index, old) -- expiring
if p then p.after_write(new, owner, cap, had, since, old) end -- expiring
return 1
