-- Whether the session under `key` belongs to somebody, or is to belong to `owner`. Only then principals are called.
local has_owner = owner or redis.pcall('HGET', string.sub(index, 1, -6) .. 'principals', key)
