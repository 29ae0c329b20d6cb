-- Stores under `key` the payload ARGV[1] for the ARGV[2] milliseconds that the data is to live; '' means that it does not
-- expire. With it go the companions, those of the session `old` if it is renewed.
if ARGV[2] == '' then
  redis.call('SET', key, ARGV[1])
else
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
companions_store(key, old) -- companions
-- Nothing fails any more that is written half.
local deadline = redis.pcall('PEXPIRETIME', key) -- expiring
deadline = type(deadline) == 'number' and deadline ~= -1 and deadline - grace or '+inf' -- expiring
redis.pcall('ZADD', index, deadline, key) -- expiring
