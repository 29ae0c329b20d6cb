-- Fails with NOPERM if the user must not run this command. A script calls it before the first write for each command that comes
-- after the first write, because a command that is rejected later leaves the session half written.
local function require_acl(command, key)
  if not redis.acl_check_cmd(command, key) then error({err = 'NOPERM this user may not run ' .. command}) end
end
