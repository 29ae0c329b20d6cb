-- Stores the payload ARGV[1] under `key`. The data lives for ARGV[2] ms, or for ever if ARGV[2] is ''. The companions are stored
-- too; if the session was renewed, those without a new value move from the key `old`.
-- Redis may reject the first SET, for example at maxmemory; then nothing is written.
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
--#if companions
companions_store(key, old)
--#end
--#if expiring
-- The session is written. From here on use `pcall`, so that a failing index update cannot abort the script halfway.
local deadline = redis.pcall('PEXPIRETIME', key)
deadline = type(deadline) == 'number' and deadline ~= -1 and deadline - grace or '+inf'
redis.pcall('ZADD', index, deadline, key)
--#end
