//! What the operations send, and how what Redis answers is read.

use std::borrow::Cow;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::net::connection::RedisConnection;
use super::net::error::Effect;
use super::net::pool::{Answer, To};
use super::script::Script;
use super::{RedisSessionStore, grace, keys};
use crate::store::{Bind, Bytes, Saved, Stored, Version, Write, companion, ttl_millis};
use crate::{Error, ErrorKind, Result, SessionId, codec};

/// Arguments of a script.
pub(super) type Args<'a> = Vec<Cow<'a, [u8]>>;

impl RedisSessionStore {
    /// The milliseconds that the data of a session is to live, as the scripts take them.
    pub(super) fn data_lives(&self, ttl: u64) -> String {
        (ttl + grace(self.expiring).as_millis() as u64).to_string()
    }

    pub(super) fn command(&self, operation: &'static str, effect: Effect, to: To<'_>, command: &Cmd) -> Result<Answer> {
        self.pool.call(operation, effect, to, |connection| command.query(connection))
    }

    /// What the arguments of the scripts that write begin with: payload, time to live, and for each companion that the store
    /// keeps a value with `+` before it, or `=` for the one it has.
    pub(super) fn write_args<'a>(&self, write: Write<'a>) -> Result<Args<'a>> {
        companion::check_kept(&self.companions, write.companions)?;
        let lives = write.ttl_millis().map(|ttl| self.data_lives(ttl)).unwrap_or_default();
        let mut args = Args::with_capacity(6 + self.companions.len());
        args.extend([write.payload.into(), lives.into_bytes().into()]);
        args.extend(self.companions.iter().map(|suffix| {
            let value = write.companions.iter().find(|companion| companion.suffix == *suffix);
            value.map_or(b"=".into(), |companion| [b"+", &*companion.value].concat().into())
        }));
        Ok(args)
    }

    /// What comes behind them if the session comes to belong to somebody else: owner and cap.
    pub(super) fn bind_args(&self, operation: &'static str, bind: Bind<'_>) -> Result<Option<[Cow<'static, [u8]>; 2]>> {
        let (owner, cap) = match bind {
            Bind::Keep => return Ok(None),
            Bind::Nobody if !self.expiring => return Ok(None),
            Bind::Nobody => (String::new(), None),
            Bind::To { .. } if !self.expiring => {
                let why = "only an expiring store knows principals: build it with `expiring()`";
                return Err(Error::unsupported(operation, why));
            }
            Bind::To { principal, cap } => (keys::owner(principal), cap.filter(|_| self.keys.partitions() == 1)),
        };
        let cap = cap.map(|cap| cap.to_string()).unwrap_or_default();
        Ok(Some([owner.into_bytes().into(), cap.into_bytes().into()]))
    }

    /// Whether a session is one key and nothing else, so that one command of Redis does what is to be done.
    pub(super) fn is_bare(&self) -> bool {
        !self.expiring && self.companions.is_empty()
    }

    /// What the scripts answer that save and rotate.
    pub(super) fn saved(&self, operation: &'static str, answer: Answer, write: Write<'_>) -> Result<Saved> {
        match answer.value {
            Value::Int(1) => {
                self.settle_cap(write.bind);
                Ok(Saved::Stored(version_of(write.payload)))
            }
            Value::Int(0) => Ok(Saved::Missing),
            // It may be somebody's change of what the first attempt had stored.
            Value::Array(_) if answer.repeated => Err(in_doubt(operation)),
            other => Ok(Saved::Conflict(stored_with_time_left(operation, other)?)),
        }
    }

    /// Runs a script that writes. `keys` get the index at their end.
    pub(super) fn script(
        &self,
        operation: &'static str,
        script: &Script,
        id: &SessionId,
        keys: &[&str],
        args: Args<'_>,
    ) -> Result<Answer> {
        let index = self.expiring.then(|| self.keys.index_of(id));
        let keys: Vec<&str> = keys.iter().copied().chain(index).collect();
        self.pool.call(operation, Effect::Writes, To::Key(keys[0]), |connection| script.call(connection, &keys, &args))
    }

    /// Reads a payload, and in the same go by another command what time it has left: nil if no session lives there.
    ///
    /// That others may come in between does no harm, for no id is used twice: if the session lives then, it lived before.
    pub(super) fn read_timed(
        &self,
        operation: &'static str,
        key: &str,
        and_time: impl Fn(&Cmd, &mut RedisConnection) -> RedisResult<[Value; 2]>,
    ) -> Result<Answer> {
        let mut get = redis::cmd("GET");
        get.arg(key);
        self.pool.call(operation, Effect::Reads, To::Key(key), |connection| {
            Ok(match and_time(&get, connection)? {
                [_, Value::Nil] | [Value::Nil, _] => Value::Nil,
                [payload, left] => Value::Array(vec![payload, left]),
            })
        })
    }

    /// In an expiring store.
    pub(super) fn read_untouched(&self, operation: &'static str, key: &str) -> Result<Answer> {
        let grace = grace(self.expiring).as_millis() as i64;
        let mut pttl = redis::cmd("PTTL");
        pttl.arg(key);
        self.read_timed(operation, key, |get, connection| {
            let [payload, left] = connection.both(get, &pttl)?;
            let left = match left {
                Value::Int(left) if left > grace => Value::Int(left - grace),
                Value::Int(-1) => Value::Int(-1),
                _ => Value::Nil,
            };
            Ok([payload, left])
        })
    }

    pub(super) fn read_touched(
        &self,
        operation: &'static str,
        id: &SessionId,
        key: &str,
        ttl: Duration,
        extend: bool,
    ) -> Result<Answer> {
        let keys = &[key, self.keys.index_of(id)][..1 + usize::from(self.expiring)];
        let lives = self.data_lives(ttl_millis(ttl));
        let args = &[&*lives, "1"][..1 + usize::from(extend)];
        self.read_timed(operation, key, |get, connection| self.scripts.touch.call_after(get, connection, keys, args))
    }
}

impl Write<'_> {
    /// Whether it writes a payload and nothing else.
    pub(super) fn is_bare(&self) -> bool {
        self.bind == Bind::Keep && self.companions.is_empty()
    }
}

/// How a session is expected to be, as the scripts take it. A revision prefix identifies its payload.
pub(super) fn expected_args(expected: Option<&Version>) -> [Cow<'_, [u8]>; 2] {
    let Some(payload) = expected.map(Version::as_bytes) else { return [b"any".into(), b"".into()] };
    match codec::revision_prefix(payload) {
        Some(prefix) => [b"mark".into(), prefix.into()],
        None => [b"all".into(), payload.into()],
    }
}

/// The version of a payload that was written: its revision prefix if it has one, because `expected_args` takes no more.
pub(super) fn version_of(payload: &[u8]) -> Version {
    Version::new(codec::revision_prefix(payload).unwrap_or(payload))
}

/// `SET key payload PX ttl`, without the conditions.
pub(super) fn set(key: &str, write: Write<'_>) -> Cmd {
    // With all the room it takes: to grow, it would have to move the payload.
    let mut set = Cmd::with_capacity(7, key.len() + write.payload.len() + 64);
    set.arg("SET").arg(key).arg(write.payload);
    if let Some(ttl) = write.ttl_millis() {
        set.arg("PX").arg(ttl);
    }
    set
}

/// The connection died over the first attempt, and what the second one found does not tell what became of it.
pub(super) fn in_doubt(operation: &'static str) -> Error {
    Error::new(ErrorKind::MayHaveHappened, operation)
        .with_source("the connection was lost, and then the session was another")
}

pub(super) fn stored(payload: Vec<u8>, expires_in: Option<Duration>) -> Stored {
    let payload = Bytes::from(payload);
    Stored { version: Version(payload.clone()), payload, expires_in }
}

pub(super) fn stored_with_time_left(operation: &'static str, value: Value) -> Result<Stored> {
    match value {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::BulkString(payload), Value::Int(left)]) => {
                Ok(stored(payload, u64::try_from(left).ok().map(Duration::from_millis)))
            }
            _ => Err(unexpected(operation, &Value::Array(Vec::new()))),
        },
        other => Err(unexpected(operation, &other)),
    }
}

/// An answer that none of the commands gives. Its content could be a payload, so only its type is told.
pub(super) fn unexpected(operation: &'static str, value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    Error::new(ErrorKind::Other, operation).with_source(format!("Redis answered {kind}"))
}
