-- KEYS: index. Answers how many sessions live, as the index has it.
-- include clock
return redis.call('ZCOUNT', KEYS[1], '(' .. clock(), '+inf')
