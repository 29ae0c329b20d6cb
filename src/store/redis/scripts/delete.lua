-- KEYS: session, index. ARGV: grace. Answers 1 if the session lived, otherwise 0.
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.pcall('ZREM', KEYS[2], KEYS[1])
return (left == -1 or left > grace) and 1 or 0
