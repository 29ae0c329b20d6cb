-- Counts the live sessions of a partition by its index, which may lag.
-- KEYS[1] index
-- Returns the number of live sessions
-- It only reads.
--#include clock (defines clock)
return redis.call('ZCOUNT', KEYS[1], '(' .. clock(), '+inf')
