-- Goes on only if what is `there` is what is `expected`, if anything is. Otherwise answers 1 if an earlier attempt has stored
-- the payload, or what is there and the milliseconds that it has left.
if expected and there ~= expected then
  if there == ARGV[1] then return 1 end
  local left = redis.call('PTTL', key)
  return {there, left < 0 and -1 or left - grace}
end
