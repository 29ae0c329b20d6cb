//! The errors of the redis crate as errors of this crate.
//!
//! Every file of `net` uses it. Invariant: the text of an error never has an argument of a command or a part of a URL in it,
//! because either may be a secret.

use std::{fmt, io};

use redis::{ErrorKind as Kind, RedisError, ServerErrorKind};

use super::circuit;
use crate::{Error, ErrorKind};

/// The effect of a command that is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    /// It changes nothing that a caller has to know, but Redis pauses it together with the writes: a touch, or a script.
    Touches,
    Writes,
}

impl Effect {
    /// Returns the kind of the command, which decides about its circuit.
    pub(crate) fn kind(self) -> circuit::Kind {
        match self {
            Self::Reads => circuit::Kind::Reads,
            Self::Touches | Self::Writes => circuit::Kind::Others,
        }
    }
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
    Error::new(connect_kind(error), operation).with_source(Cause::of(error))
}

/// Returns the kind of an error that came while connecting.
///
/// An unknown refusal is not temporary. Otherwise a program would start and wait for ever for what an operator must change.
fn connect_kind(error: &RedisError) -> ErrorKind {
    match kind(error) {
        ErrorKind::TimedOut => ErrorKind::Unavailable,
        ErrorKind::Other => match error.detail() {
            Some(detail) if is_outage_behind_proxy(detail) => ErrorKind::Unavailable,
            _ => ErrorKind::Misconfigured,
        },
        kind => kind,
    }
}

/// Returns `true` for the replies of Envoy and twemproxy while they do not reach the server behind them.
fn is_outage_behind_proxy(detail: &str) -> bool {
    let starts = ["no upstream host", "upstream failure", "upstream request timed out", "Connection ", "Host "];
    starts.iter().any(|start| detail.starts_with(start))
}

/// Returns the log text for a server that takes no connections: it is away, or it refuses them.
pub(crate) fn outage(error: &RedisError) -> String {
    let cause = Cause::of(error);
    if connect_kind(error).is_temporary() {
        format!("is away: {cause}")
    } else {
        format!("refuses connections: {cause}")
    }
}

/// Returns `true` if the server replied, and the reply is that it does not run this command for this user. Managed services and
/// proxies lack some commands, rename them, or reply with an error of their own.
pub(crate) fn is_command_refused(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || (error.code() == Some("ERR") && connect_kind(error) == ErrorKind::Misconfigured)
}

/// Returns an error of the same kind as that of a server that cannot be reached.
pub(crate) fn unreachable(why: &str) -> RedisError {
    io::Error::other(why).into()
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
            // The URL has a database, but the server belongs to a cluster.
            detail if detail.starts_with("SELECT is not allowed in cluster mode") => ErrorKind::Misconfigured,
            // The URL is that of a cluster or of a Sentinel, but the server is neither.
            detail if detail.starts_with("This instance has cluster support disabled") => ErrorKind::Misconfigured,
            // The server is too old, or no Redis, or an operator has renamed the command.
            detail if is_unknown_command(detail) => ErrorKind::Misconfigured,
            // The client drops the code of a refused SELECT.
            detail if detail.contains(" has no permissions to ") => ErrorKind::Denied,
            detail if detail.starts_with("Authentication required") => ErrorKind::Denied,
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
            // The server does not know the version of the protocol.
            Some("NOPROTO") => ErrorKind::Misconfigured,
            // Redis rejects writes because it cannot write to its disk, or has too few replicas.
            Some("MISCONF" | "NOREPLICAS") => ErrorKind::ReadOnly,
            // A script of another client runs for too long.
            Some("BUSY") => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        },
    }
}

fn is_unknown_command(detail: &str) -> bool {
    let starts = [
        "unknown command",
        "unknown subcommand",
        "Unknown subcommand",
        "Unknown Redis command called from script",
        // That of Valkey.
        "Unknown command called from script",
    ];
    starts.iter().any(|start| detail.starts_with(start))
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
                let detail = detail.split(", with args").next().unwrap_or_default();
                // The place in a script helps only with an error that Redis does not classify.
                let end = if code == "ERR" { detail.len() } else { detail.find(" script: ").unwrap_or(detail.len()) };
                let text = format!("{code} {}", &detail[..end]);
                match (code, remedy(code, detail)) {
                    ("WRONGPASS" | "NOAUTH", _) => format!("authentication failed: {text}"),
                    (_, Some(remedy)) => format!("{text}: {remedy}"),
                    (_, None) => text,
                }
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

/// Returns what the user can change, if the URL of Redis does not fit the server.
fn remedy(code: &str, detail: &str) -> Option<&'static str> {
    let remedies = [
        ("DB index is out of range", "use a lower database number in the URL, or raise `databases` in redis.conf"),
        ("SELECT is not allowed in cluster mode", "a cluster has only database 0, so remove the number from the URL"),
        ("This instance has cluster support disabled", "begin the URL of a single server with redis:// or rediss://"),
    ];
    match code {
        "MOVED" | "ASK" => Some("the server belongs to a cluster, so begin its URL with redis-cluster://"),
        _ => remedies.into_iter().find(|(start, _)| detail.starts_with(start)).map(|(_, remedy)| remedy),
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
    fn classified_reply_loses_the_place_in_the_script() {
        for (line, text) in [
            ("OOM command not allowed. script: 4f0c, on @user_script:7.", "OOM command not allowed."),
            (
                "ERR attempt to index nil script: 4f0c, on @user_script:7.",
                "ERR attempt to index nil script: 4f0c, on @user_script:7.",
            ),
        ] {
            assert_eq!(Cause::of(&reply(line)).to_string(), text);
        }
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
            ("ERR unknown command `GETEX`, with args beginning with: `sessions:1` ", ErrorKind::Misconfigured),
            ("ERR Unknown Redis command called from script script: 46, on @user_script:1.", ErrorKind::Misconfigured),
            ("ERR Unknown command called from script script: 46, on @user_script:1.", ErrorKind::Misconfigured),
            ("ERR something new", ErrorKind::Other),
            ("NEWCODE something new", ErrorKind::Other),
        ] {
            for effect in [Effect::Reads, Effect::Touches, Effect::Writes] {
                assert_eq!(command_error("testing", effect, &reply(line)).kind(), kind, "{line}");
            }
        }
    }

    /// Returns the error of a refused SELECT as the client makes it, without the code of the reply.
    fn refused_select(detail: &str) -> RedisError {
        let text = "Redis server refused to switch database";
        (Kind::Server(ServerErrorKind::ResponseError), text, detail.to_owned()).into()
    }

    /// All replies that Redis, Sentinel and common proxies give to AUTH, HELLO, SELECT, CLIENT, PING, ROLE, CLUSTER SLOTS and
    /// SENTINEL.
    #[test]
    fn refusals_while_connecting_map_to_kinds() {
        let auth = (Kind::AuthenticationFailed, "Password authentication failed");
        let errors = [
            (auth.into(), ErrorKind::Denied),
            (refused_select("this user has no permissions to run the 'select' command"), ErrorKind::Denied),
            (refused_select("User shop has no permissions to run the 'select' command"), ErrorKind::Denied),
            (refused_select("Authentication required."), ErrorKind::Denied),
            (refused_select("SELECT is not allowed in cluster mode"), ErrorKind::Misconfigured),
            (refused_select("DB index is out of range"), ErrorKind::Misconfigured),
            (refused_select("unknown command 'SELECT', with args beginning with: '3' "), ErrorKind::Misconfigured),
            (refused_select("invalid DB index"), ErrorKind::Misconfigured),
            ((Kind::RESP3NotSupported, "no HELLO").into(), ErrorKind::Misconfigured),
            (io::Error::from(io::ErrorKind::TimedOut).into(), ErrorKind::Unavailable),
            (io::Error::from(io::ErrorKind::ConnectionRefused).into(), ErrorKind::Unavailable),
        ];
        let replies = [
            ("WRONGPASS invalid username-password pair or user is disabled.", ErrorKind::Denied),
            ("NOAUTH HELLO must be called with the client already authenticated", ErrorKind::Denied),
            ("NOAUTH Authentication required.", ErrorKind::Denied),
            ("DENIED Redis is running in protected mode", ErrorKind::Denied),
            ("NOPERM this user has no permissions to run the 'cluster|slots' command", ErrorKind::Denied),
            ("NOPROTO unsupported protocol version", ErrorKind::Misconfigured),
            ("ERR unknown command 'HELLO', with args beginning with: '3' ", ErrorKind::Misconfigured),
            ("ERR unknown command 'SENTINEL', with args beginning with: 'GET-MASTER' ", ErrorKind::Misconfigured),
            ("ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.", ErrorKind::Misconfigured),
            ("ERR unknown command 'ROLE', with args beginning with: ", ErrorKind::Misconfigured),
            ("ERR This instance has cluster support disabled", ErrorKind::Misconfigured),
            ("ERR something new", ErrorKind::Misconfigured),
            ("NEWCODE something new", ErrorKind::Misconfigured),
            ("ERR max number of clients reached", ErrorKind::Unavailable),
            ("ERR max number of clients + cluster connections reached", ErrorKind::Unavailable),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::Unavailable),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable),
            ("ERR no upstream host", ErrorKind::Unavailable),
            ("ERR upstream failure", ErrorKind::Unavailable),
            ("ERR Connection refused", ErrorKind::Unavailable),
        ];
        let errors = errors.into_iter().chain(replies.map(|(line, kind)| (reply(line), kind)));
        for (error, kind) in errors {
            assert_eq!(connect_error("testing", &error).kind(), kind, "{error}");
            let says_away = outage(&error).starts_with("is away: ");
            assert_eq!(says_away, kind == ErrorKind::Unavailable, "{}", outage(&error));
        }
    }

    #[test]
    fn wrong_password_is_authentication_failed() {
        let auth = (Kind::AuthenticationFailed, "Password authentication failed");
        let failed: RedisError = auth.into();
        assert_eq!(outage(&failed), "refuses connections: authentication failed");
        for line in ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required."] {
            assert_eq!(outage(&reply(line)), format!("refuses connections: authentication failed: {line}"));
        }
    }

    #[test]
    fn cause_of_unfit_url_names_the_remedy() {
        for (error, remedy) in [
            (reply("ERR DB index is out of range"), "lower database number"),
            (refused_select("DB index is out of range"), "lower database number"),
            (reply("ERR SELECT is not allowed in cluster mode"), "remove the number"),
            (refused_select("SELECT is not allowed in cluster mode"), "remove the number"),
            (reply("ERR This instance has cluster support disabled"), "redis://"),
            (reply("MOVED 3999 127.0.0.1:6381"), "redis-cluster://"),
            (reply("ASK 3999 127.0.0.1:6381"), "redis-cluster://"),
        ] {
            let cause = Cause::of(&error).to_string();
            assert!(cause.contains(remedy), "{cause}");
        }
    }

    #[test]
    fn cause_omits_command_arguments() {
        let cause = Cause::of(&reply("ERR unknown command 'GETEX', with args beginning with: 'sessions:secret' "));
        assert_eq!(cause.to_string(), "ERR unknown command 'GETEX'");
    }
}
