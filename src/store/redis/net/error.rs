//! The errors of the redis crate as errors of this crate.
//!
//! Every file of `net` uses it. Invariant: the text of an error never has an argument of a command or a part of a URL in it,
//! because either may be a secret.

use std::fmt;

use redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

use crate::{Error, ErrorKind};

/// The effect of a command that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// Returns the error for a command that was sent. If a write got no reply, its outcome is unknown.
pub(crate) fn command_error(operation: &'static str, effect: Effect, error: &RedisError) -> Error {
    let kind = match kind(error) {
        ErrorKind::Unavailable | ErrorKind::TimedOut if effect == Effect::Writes && is_unanswered(error) => {
            ErrorKind::MayHaveHappened
        }
        kind => kind,
    };
    Error::new(kind, operation).with_source(Cause::of(error))
}

/// Returns the error for a command that could not be sent.
pub(crate) fn connect_error(operation: &'static str, error: &RedisError) -> Error {
    let kind = match kind(error) {
        ErrorKind::TimedOut | ErrorKind::Other => ErrorKind::Unavailable,
        kind => kind,
    };
    Error::new(kind, operation).with_source(Cause::of(error))
}

/// Returns `true` if there was no valid reply: the connection broke, or the bytes that came are no reply.
pub(crate) fn is_unanswered(error: &RedisError) -> bool {
    matches!(error.kind(), Kind::Io | Kind::Parse)
}

/// Returns `true` if the server replies but cannot serve, for example a demoted master or a server that loads its data.
pub(crate) fn cannot_serve(error: &RedisError) -> bool {
    error.code() == Some("NOAUTH")
        || matches!(
            error.kind(),
            Kind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
            )
        )
}

fn kind(error: &RedisError) -> ErrorKind {
    match error.kind() {
        Kind::Io if error.is_timeout() => ErrorKind::TimedOut,
        Kind::Io | Kind::Parse | Kind::ClusterConnectionNotFound => ErrorKind::Unavailable,
        Kind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => ErrorKind::Unavailable,
        Kind::Server(ServerErrorKind::ReadOnly) => ErrorKind::ReadOnly,
        Kind::AuthenticationFailed | Kind::Server(ServerErrorKind::NoPerm) => ErrorKind::Denied,
        Kind::InvalidClientConfig | Kind::RESP3NotSupported => ErrorKind::Misconfigured,
        // The server belongs to a cluster but the URL is that of a single server, or one command has keys of two slots.
        Kind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot) => {
            ErrorKind::Misconfigured
        }
        Kind::Server(ServerErrorKind::ResponseError) => match error.detail().unwrap_or_default() {
            detail if detail.starts_with("max number of clients") => ErrorKind::Unavailable,
            detail if detail.starts_with("DB index") => ErrorKind::Misconfigured,
            detail if detail.starts_with("SELECT is not allowed") => ErrorKind::Misconfigured,
            // The URL is that of a cluster or of a Sentinel, but the server is neither.
            detail if detail.starts_with("This instance has cluster support disabled") => ErrorKind::Misconfigured,
            detail if detail.starts_with("unknown command 'SENTINEL'") => ErrorKind::Misconfigured,
            // NOPERM inside a script, in Redis 7.0 and in later versions.
            detail if detail.starts_with("The user executing the script") => ErrorKind::Denied,
            detail if detail.starts_with("ACL failure in script") => ErrorKind::Denied,
            _ => ErrorKind::Other,
        },
        _ => match error.code() {
            Some("OOM") => ErrorKind::OutOfMemory,
            Some("WRONGTYPE") => ErrorKind::WrongType,
            // DENIED is the reply of protected mode.
            Some("NOAUTH" | "WRONGPASS" | "DENIED") => ErrorKind::Denied,
            // Redis rejects writes because it cannot write to its disk, or has too few replicas.
            Some("MISCONF" | "NOREPLICAS") => ErrorKind::ReadOnly,
            // A script of another client runs for too long.
            Some("BUSY") => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        },
    }
}

/// The text of a `RedisError`, without anything that may be a secret.
///
/// Redis quotes the arguments of an unknown command, and the client quotes a URL that it cannot parse.
#[derive(Clone)]
pub(crate) struct Cause(String);

impl Cause {
    pub(crate) fn of(error: &RedisError) -> Self {
        Self(match (error.kind(), error.code(), error.detail()) {
            (Kind::Io, ..) => error.to_string(),
            (_, Some(code), detail) => {
                let detail = detail.unwrap_or_default();
                format!("{code} {}", detail.split(", with args").next().unwrap_or_default())
            }
            // Keep the description without the detail, which can be a part of the URL.
            (Kind::InvalidClientConfig, ..) => match error.to_string().split_once(" - InvalidClientConfig") {
                Some((description, _)) => description.to_owned(),
                None => error.category().to_owned(),
            },
            _ => error.category().to_owned(),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(|value| value.extract_error()).unwrap_err()
    }

    #[test]
    fn error_replies_map_to_kinds() {
        for (line, kind) in [
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::Unavailable),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", ErrorKind::Unavailable),
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable),
            ("ERR max number of clients reached", ErrorKind::Unavailable),
            ("READONLY You can't write against a read only replica.", ErrorKind::ReadOnly),
            ("READONLY You can't write script: 4f0c, on @user_script:7.", ErrorKind::ReadOnly),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::ReadOnly),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::OutOfMemory),
            ("NOAUTH Authentication required.", ErrorKind::Denied),
            ("WRONGPASS invalid username-password pair", ErrorKind::Denied),
            ("DENIED Redis is running in protected mode", ErrorKind::Denied),
            ("NOPERM this user has no permissions", ErrorKind::Denied),
            ("ERR The user executing the script can't run this command", ErrorKind::Denied),
            ("ERR ACL failure in script: User ada has no permissions to run the 'del' command", ErrorKind::Denied),
            ("ERR ACL failure in script: No permissions to access a key", ErrorKind::Denied),
            ("WRONGTYPE Operation against a key", ErrorKind::WrongType),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Misconfigured),
            ("ASK 3999 127.0.0.1:6381", ErrorKind::Misconfigured),
            ("CROSSSLOT Keys in request don't hash to the same slot", ErrorKind::Misconfigured),
            ("ERR DB index is out of range", ErrorKind::Misconfigured),
            ("ERR SELECT is not allowed in cluster mode", ErrorKind::Misconfigured),
            ("ERR This instance has cluster support disabled", ErrorKind::Misconfigured),
            ("ERR unknown command 'SENTINEL', with args beginning with: 'GET-MASTER' ", ErrorKind::Misconfigured),
            ("ERR something new", ErrorKind::Other),
            ("NEWCODE something new", ErrorKind::Other),
        ] {
            for effect in [Effect::Reads, Effect::Writes] {
                assert_eq!(command_error("testing", effect, &reply(line)).kind(), kind, "{line}");
            }
        }
    }

    #[test]
    fn cause_omits_command_arguments() {
        let cause = Cause::of(&reply("ERR unknown command 'GETEX', with args beginning with: 'sessions:secret' "));
        assert_eq!(cause.to_string(), "ERR unknown command 'GETEX'");
    }
}
