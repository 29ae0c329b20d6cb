-- KEYS: session, index. Answers 1 if the session lived, otherwise 0.
-- include companions -- companions
-- include principals -- expiring
local key, index, owner = KEYS[1], KEYS[2], nil
-- What is of another type is no session, and stays.
local kind = redis.call('TYPE', key).ok
if kind ~= 'string' and kind ~= 'none' then return redis.call('GET', key) end
-- include has_owner -- expiring
if has_owner then return principals(index).end_session(key) and 1 or 0 end -- expiring
-- What has expired is left to the reaper, which tells the application.
local left = redis.call('PTTL', key) -- expiring
if left >= 0 and left <= grace then return 0 end -- expiring
local lived = redis.call('DEL', key)
companions_delete(key) -- companions
redis.pcall('ZREM', index, key) -- expiring
return lived
