//! What a failure of Redis means to a caller.

use std::fmt;

use redis::{ErrorKind as Kind, RedisError, ServerErrorKind as Server};

use crate::{Error, ErrorKind};

/// Whether a command that was sent, and not answered, may have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// The error a caller gets for a command that was sent.
pub(super) fn of_command(doing: &'static str, effect: Effect, error: &RedisError) -> Error {
    let kind = match kind(error) {
        ErrorKind::Unavailable | ErrorKind::TimedOut if effect == Effect::Writes && is_unanswered(error) => {
            ErrorKind::MayHaveHappened
        }
        kind => kind,
    };
    Error::new(kind, doing).with_source(Cause::of(error))
}

/// The error a caller gets for a command that could not be sent.
pub(super) fn of_connect(doing: &'static str, error: &RedisError) -> Error {
    let kind = match kind(error) {
        ErrorKind::TimedOut | ErrorKind::Other => ErrorKind::Unavailable,
        kind => kind,
    };
    Error::new(kind, doing).with_source(Cause::of(error))
}

/// The connection broke, or what came over it was no answer.
pub(super) fn is_unanswered(error: &RedisError) -> bool {
    matches!(error.kind(), Kind::Io | Kind::Parse)
}

/// The connection is of no more use, although it may look open: what comes next over it could be the answer to something
/// else, or it leads to a server that is not (any more, or yet) the one to ask.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    is_unanswered(error)
        || error.code() == Some("NOAUTH")
        || matches!(
            error.kind(),
            Kind::Server(Server::ReadOnly | Server::BusyLoading | Server::MasterDown | Server::ClusterDown)
        )
}

fn kind(error: &RedisError) -> ErrorKind {
    match error.kind() {
        Kind::Io if error.is_timeout() => ErrorKind::TimedOut,
        Kind::Io | Kind::Parse | Kind::ClusterConnectionNotFound => ErrorKind::Unavailable,
        Kind::Server(Server::BusyLoading | Server::MasterDown | Server::ClusterDown | Server::TryAgain) => {
            ErrorKind::Unavailable
        }
        Kind::Server(Server::ReadOnly) => ErrorKind::ReadOnly,
        Kind::AuthenticationFailed | Kind::Server(Server::NoPerm) => ErrorKind::Denied,
        Kind::InvalidClientConfig | Kind::RESP3NotSupported | Kind::Server(Server::CrossSlot) => {
            ErrorKind::Misconfigured
        }
        _ => match error.code() {
            Some("OOM") => ErrorKind::OutOfMemory,
            Some("WRONGTYPE") => ErrorKind::WrongType,
            Some("NOAUTH" | "WRONGPASS") => ErrorKind::Denied,
            // Within a script Redis 7.0 has no code for it.
            Some("ERR") if error.detail().is_some_and(|text| text.starts_with("The user executing the script")) => {
                ErrorKind::Denied
            }
            // Redis cannot write its snapshot, or has too few replicas, and so refuses writes.
            Some("MISCONF" | "NOREPLICAS") => ErrorKind::ReadOnly,
            Some("BUSY") => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        },
    }
}

/// The text of a `RedisError` without what could be a secret in it: Redis quotes the arguments of a command that it does
/// not know, and the client the URL that it cannot read.
#[derive(Clone)]
pub(super) struct Cause(String);

impl Cause {
    pub(super) fn of(error: &RedisError) -> Self {
        Self(match (error.kind(), error.code(), error.detail()) {
            (Kind::Io, ..) => error.to_string(),
            (_, Some(code), detail) => {
                let detail = detail.unwrap_or_default();
                format!("{code} {}", detail.split(", with args").next().unwrap_or_default())
            }
            // The description, without the detail, which can be part of the URL.
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
