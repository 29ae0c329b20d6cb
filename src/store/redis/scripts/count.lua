-- KEYS: index. ARGV: grace. Answers how many sessions live, as the index has it.
return redis.call('ZCOUNT', KEYS[1], '(' .. clock(), '+inf')
