//! The first commands on every connection: protocol, login, database and name of the client, and then a probe.
//!
//! Pools and the look-ups at Sentinels use it. The commands leave together, and the first refusal among the replies is the
//! server's own reason why a connection cannot be used.

use redis::{
    Cmd, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value, cmd,
};

use super::limit::Limit;
use super::wire::Wire;

/// Sets a connection up as these settings say, and returns the reply to `probe`, which may be an error reply.
pub(crate) fn run(wire: &mut Wire, settings: &RedisConnectionInfo, probe: &Cmd, limit: Limit) -> RedisResult<Value> {
    let setup = setup(settings);
    let mut packed = Vec::new();
    for (command, _) in &setup {
        command.write_packed_command(&mut packed);
    }
    probe.write_packed_command(&mut packed);
    wire.send(&packed, limit)?;
    for (_, step) in &setup {
        if let Value::ServerError(refusal) = wire.receive()? {
            step.check(refusal.into())?;
        }
    }
    let reply = wire.receive()?;
    wire.finish();
    Ok(reply)
}

/// A part of the setup.
#[derive(Clone, Copy)]
enum Step {
    LogIn,
    SelectDatabase,
    /// A server without `CLIENT SETINFO` works as well.
    NameLibrary,
}

impl Step {
    /// The effect of an error reply to this part on the connection.
    fn check(self, refusal: RedisError) -> RedisResult<()> {
        match self {
            Self::LogIn => Err(login_refused(refusal)),
            Self::SelectDatabase => Err(refusal),
            Self::NameLibrary => Ok(()),
        }
    }
}

/// A plain `ERR` names the `AUTH` or `HELLO` that it is about. Otherwise it is about the connection: the server has too many
/// clients.
fn login_refused(refusal: RedisError) -> RedisError {
    let detail = refusal.detail().unwrap_or_default();
    let no_resp3 = || (ErrorKind::RESP3NotSupported, "the server does not know RESP3").into();
    match refusal.kind() {
        _ if refusal.code() == Some("NOPROTO") => no_resp3(),
        _ if refusal.code() == Some("WRONGPASS") => {
            (ErrorKind::AuthenticationFailed, "the server rejects the user or the password").into()
        }
        ErrorKind::Server(ServerErrorKind::ResponseError) if detail.starts_with("unknown command") => no_resp3(),
        ErrorKind::Server(ServerErrorKind::ResponseError) if detail.contains("AUTH") => {
            (ErrorKind::AuthenticationFailed, "the server expects no password for this user").into()
        }
        _ => refusal,
    }
}

fn setup(settings: &RedisConnectionInfo) -> Vec<(Cmd, Step)> {
    let mut setup = Vec::new();
    match (settings.protocol(), settings.password()) {
        (ProtocolVersion::RESP2, None) => {}
        (ProtocolVersion::RESP2, Some(password)) => {
            let mut auth = cmd("AUTH");
            auth.arg(settings.username()).arg(password);
            setup.push((auth, Step::LogIn));
        }
        (_, password) => {
            let mut hello = cmd("HELLO");
            hello.arg(3);
            if let Some(password) = password {
                hello.arg("AUTH").arg(settings.username().unwrap_or("default")).arg(password);
            }
            setup.push((hello, Step::LogIn));
        }
    }
    if settings.db() != 0 {
        let mut select = cmd("SELECT");
        select.arg(settings.db());
        setup.push((select, Step::SelectDatabase));
    }
    if let (false, Some(name)) = (settings.skip_set_lib_name(), settings.lib_name()) {
        let set = |attribute: &str, value: &str| {
            let mut command = cmd("CLIENT");
            command.arg("SETINFO").arg(attribute).arg(value);
            (command, Step::NameLibrary)
        };
        setup.push(set("LIB-NAME", name));
        setup.extend(settings.lib_ver().map(|version| set("LIB-VER", version)));
    }
    setup
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(settings: &RedisConnectionInfo) -> Vec<String> {
        let words = |command: &Cmd| {
            let packed = String::from_utf8(command.get_packed_command()).unwrap();
            packed.split("\r\n").skip(2).step_by(2).collect::<Vec<_>>().join(" ")
        };
        setup(settings).iter().map(|(command, _)| words(command).trim_end().to_owned()).collect()
    }

    #[test]
    fn settings_decide_the_first_commands() {
        let settings = RedisConnectionInfo::default;
        let resp3 = || settings().set_protocol(ProtocolVersion::RESP3);
        let named = || settings().set_lib_name("shop", "2.1");
        for (settings, expected) in [
            (settings(), &[][..]),
            (settings().set_password("secret"), &["AUTH secret"]),
            (settings().set_username("ada"), &[]),
            (settings().set_username("ada").set_password("secret").set_db(3), &["AUTH ada secret", "SELECT 3"]),
            (resp3(), &["HELLO 3"]),
            (resp3().set_password("secret"), &["HELLO 3 AUTH default secret"]),
            (resp3().set_username("ada").set_password("secret"), &["HELLO 3 AUTH ada secret"]),
            (named(), &["CLIENT SETINFO LIB-NAME shop", "CLIENT SETINFO LIB-VER 2.1"]),
            (named().set_skip_set_lib_name(), &[]),
        ] {
            assert_eq!(sent(&settings), expected, "{settings:?}");
        }
    }

    fn refusal(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(Value::extract_error).unwrap_err()
    }

    #[test]
    fn refused_login_keeps_the_reason_of_the_server() {
        let kind = |line| login_refused(refusal(line)).kind();
        assert_eq!(kind("WRONGPASS invalid username-password pair"), ErrorKind::AuthenticationFailed);
        assert_eq!(kind("ERR AUTH <password> called without any password configured"), ErrorKind::AuthenticationFailed);
        assert_eq!(kind("ERR unknown command `HELLO`"), ErrorKind::RESP3NotSupported);
        assert_eq!(kind("NOPROTO unsupported protocol version"), ErrorKind::RESP3NotSupported);
        let full = login_refused(refusal("ERR max number of clients reached"));
        assert_eq!(full.detail(), Some("max number of clients reached"));
    }
}
