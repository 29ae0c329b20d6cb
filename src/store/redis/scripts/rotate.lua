-- KEYS: old session, new session, mark of the old one, index.
-- ARGV: grace, payload, ttl, owner, cap, milliseconds the mark stays, and perhaps the payload that is expected there.
-- Answers 1: stored, 0: missing, -1: the new key is taken, or the payload in the way and the milliseconds it has left.
local old, new, mark, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local taken = live(new)
if taken then return taken == ARGV[2] and 1 or -1 end
local there, left = live(old, true)
if not there then return 0 end
local expected = optional(7)
if expected and there ~= expected then return {there, left or -1} end
-- What Redis may refuse comes first, so that it is refused whole. Beside a session that lives the mark means nothing.
need('DEL', old)
local owner, since = owner_of(index, old)
reach(index, ARGV[4])
redis.call('SET', mark, '', 'PX', ARGV[6])
put(new, ARGV[2], ARGV[3], index, old)
redis.call('DEL', old)
leave(old)
if index then
  try('ZREM', index, old)
  disown(index, old, owner)
  bind(index, new, ARGV[4], ARGV[5], owner, since)
end
return 1
