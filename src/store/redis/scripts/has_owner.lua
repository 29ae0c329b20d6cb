-- Sets `has_owner`, which is true if the session under `key` has an owner or gets one. Only then does a script call
-- `principals()`. It is also true if the hash of owners cannot be read; `principals()` copes with that.
local has_owner = owner or redis.pcall('HGET', base .. 'principals', key)
