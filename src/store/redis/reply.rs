//! Replies of Redis, read into the outcomes of a store.
//!
//! All operations of the store read their replies here. The invariant: an error names the type of a reply that no command
//! returns, never its content, because the content can be a payload.

use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::net::pool::Answer;
use super::version::version_of;
use crate::store::{Bytes, Created, Expired, Reaped, Saved, Stored, Version, rotated_onto_another};
use crate::{Error, ErrorKind, Handle, Result, operation};

/// The reply of a script that stored a session.
const STORED: i64 = 1;

/// The reply of a script that stored a session and gave it to another owner than before.
const STORED_FOR_NEW_OWNER: i64 = 2;

/// The reply of a script that stored nothing, because the owner has as many sessions as the cap allows.
const OVER_CAP: i64 = -2;

/// Returns `true` if a script stored a session and gave it to another owner than before.
pub(super) fn has_new_owner(reply: &Value) -> bool {
    *reply == Value::Int(STORED_FOR_NEW_OWNER)
}

/// Reads the reply to `SET … NX GET`, or of `create.lua`.
pub(super) fn decode_created(answer: Answer, payload: &[u8]) -> Result<Created> {
    Ok(match answer.value {
        Value::Nil | Value::Okay | Value::Int(STORED | STORED_FOR_NEW_OWNER) => Created::Stored(version_of(payload)),
        Value::BulkString(found) if found == payload => Created::Stored(version_of(payload)),
        Value::Int(OVER_CAP) => Created::OverCap,
        // The first attempt may have stored the session, and another request may have changed it before the second attempt.
        Value::BulkString(_) | Value::Int(0) if answer.repeated => return Err(in_doubt(operation::CREATE)),
        Value::BulkString(_) | Value::Int(0) => Created::Taken,
        other => return Err(unexpected(operation::CREATE, &other)),
    })
}

/// Reads the reply to `SET … XX GET`: the payload that was replaced.
pub(super) fn decode_replaced(answer: Answer, payload: &[u8]) -> Result<Saved> {
    match answer.value {
        Value::Nil => Ok(Saved::Missing),
        Value::BulkString(_) => Ok(Saved::Stored(version_of(payload))),
        _ => decode_saved(operation::SAVE, answer, payload),
    }
}

/// Reads the reply of a script that saves a session.
pub(super) fn decode_saved(operation: &'static str, answer: Answer, payload: &[u8]) -> Result<Saved> {
    match answer.value {
        Value::Int(STORED | STORED_FOR_NEW_OWNER) => Ok(Saved::Stored(version_of(payload))),
        Value::Int(0) => Ok(Saved::Missing),
        Value::Int(OVER_CAP) => Ok(Saved::OverCap),
        // The payload that conflicts may be another request's change of what the first attempt stored.
        Value::Array(_) if answer.repeated => Err(in_doubt(operation)),
        other => Ok(Saved::Conflict(decode_stored_with_ttl(operation, other)?)),
    }
}

/// Reads the reply of `rotate.lua`.
pub(super) fn decode_rotated(answer: Answer, payload: &[u8]) -> Result<Saved> {
    match answer.value {
        Value::Int(-1) if answer.repeated => Err(in_doubt(operation::ROTATE)),
        Value::Int(-1) => Err(rotated_onto_another()),
        // A conflict after a retry is a real one: if the first attempt had succeeded, the old session would be gone.
        value => decode_saved(operation::ROTATE, Answer { value, repeated: false }, payload),
    }
}

/// Reads the reply to a command that reads a payload. `expires_in` is the TTL that the command set, if it set one.
pub(super) fn decode_payload(
    operation: &'static str,
    value: Value,
    expires_in: Option<Duration>,
) -> Result<Option<Stored>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(payload) => Ok(Some(decode_stored(payload, expires_in))),
        other => Err(unexpected(operation, &other)),
    }
}

/// Reads a payload and the milliseconds that its session has left; a negative number if the session does not expire.
pub(super) fn decode_stored_with_ttl(operation: &'static str, value: Value) -> Result<Stored> {
    match value {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::BulkString(payload), Value::Int(left)]) => Ok(decode_stored(payload, decode_ttl(left))),
            _ => Err(unexpected_part(operation)),
        },
        other => Err(unexpected(operation, &other)),
    }
}

/// Returns a payload with its version. The version shares the bytes of the payload, which saves a copy.
fn decode_stored(payload: Vec<u8>, expires_in: Option<Duration>) -> Stored {
    let payload = Bytes::from(payload);
    Stored { version: Version(payload.clone()), payload, expires_in }
}

/// Reads the reply of `PTTL` for a key, whose data outlives its session by `grace` ms. Returns the milliseconds that the session has
/// left, -1 if it does not expire, or `None` if it is not live. Scripts decide by the same rule, in `is_live.lua`.
pub(super) fn time_left(left: &Value, grace: u64) -> Option<i64> {
    let grace = i64::try_from(grace).ok()?;
    match left {
        Value::Int(-1) => Some(-1),
        Value::Int(left) if *left > grace => Some(left - grace),
        _ => None,
    }
}

/// Reads the milliseconds that a session has left; a negative number if the session does not expire.
pub(super) fn decode_ttl(left: i64) -> Option<Duration> {
    u64::try_from(left).ok().map(Duration::from_millis)
}

/// Reads the reply of `reap.lua`.
pub(super) fn decode_reaped(reply: Value) -> Result<Reaped> {
    let Value::Array(parts) = reply else { return Err(unexpected(operation::REAP, &reply)) };
    let mut parts = parts.into_iter();
    let (Some(Value::Int(removed)), Some(Value::Int(backlog))) = (parts.next(), parts.next()) else {
        return Err(unexpected_part(operation::REAP));
    };
    let pairs = std::iter::from_fn(|| parts.next().zip(parts.next()));
    let sessions = pairs.filter_map(|pair| match pair {
        (Value::BulkString(key), Value::BulkString(payload)) => Some(Expired::new(Handle::of_key(&key), payload)),
        _ => None,
    });
    Ok(Reaped { removed: removed as u64, backlog: backlog as u64, sessions: sessions.collect() })
}

/// Reads the reply of `count.lua`.
pub(super) fn decode_count(reply: &Value) -> Result<u64> {
    match reply {
        Value::Int(live) => Ok(*live as u64),
        other => Err(unexpected(operation::COUNT, other)),
    }
}

/// Keeps the keys of the pairs that `ZSCAN` and `HSCAN` return: key and score, or key and owner.
pub(super) fn keys_of_pairs(entries: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    entries.into_iter().step_by(2).collect()
}

/// Reads a reply of a known type.
pub(super) fn decode<A: FromRedisValue>(operation: &'static str, reply: Value) -> Result<A> {
    A::from_redis_value(reply).map_err(|_| unexpected_part(operation))
}

/// The connection was lost during the first attempt, and the reply to the second attempt does not show what the first one did.
pub(super) fn in_doubt(operation: &'static str) -> Error {
    Error::new(ErrorKind::MayHaveHappened, operation)
        .with_source("the connection was lost, and then the session was another")
}

/// An error for a reply that none of the commands returns.
fn unexpected(operation: &'static str, value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    Error::new(ErrorKind::Other, operation).with_source(format!("Redis answered {kind}"))
}

/// An error for an array with an element that none of the commands returns.
pub(super) fn unexpected_part(operation: &'static str) -> Error {
    unexpected(operation, &Value::Array(Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_lives_until_grace_begins() {
        for (left, grace, expected) in [
            (-1, 0, Some(-1)),
            (-1, 100, Some(-1)),
            (-2, 0, None),
            (0, 0, None),
            (1, 0, Some(1)),
            (100, 100, None),
            (101, 100, Some(1)),
        ] {
            assert_eq!(time_left(&Value::Int(left), grace), expected, "{left} {grace}");
        }
        assert_eq!(time_left(&Value::Nil, 0), None);
    }
}
