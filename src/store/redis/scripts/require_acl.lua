-- Fails if the user may not run a command that comes after the first write: what is refused is refused whole.
local function require_acl(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
