//! Finding out why there is no session, in a store that remembers ends.
//!
//! Reads call it for an id that is dead. Invariant: it takes one round trip, as the look-up of a tombstone does in other stores.

use std::time::Duration;

use redis::{Cmd, Value};

use super::RedisSessionStore;
use super::net::commands::command;
use super::net::error::Effect;
use super::net::pool::To;
use crate::store::Found;
use crate::{EndReason, Result, SessionId, operation};

/// Looks up why the session with this id and key is not live.
pub(super) fn find(store: &RedisSessionStore, id: &SessionId, key: &str) -> Result<Found> {
    let (notes, pttl) = (notes(store, id, key), command("PTTL", key));
    let answer = store.pool.call(operation::READ, Effect::Reads, To::Key(key), |connection| {
        connection.pipeline2(&notes, &pttl).map(|replies| Value::Array(replies.into()))
    })?;
    let Value::Array(replies) = answer.value else { return Ok(Found::Absent) };
    let [notes, left] = &replies[..] else { return Ok(Found::Absent) };
    Ok(match reason(store, notes, left) {
        Some(EndReason::Renewed) => Found::Renewed,
        Some(reason) => Found::Ended(reason),
        None => Found::Absent,
    })
}

/// The command that reads all notes about an id. A note of another type counts as none.
pub(super) fn notes(store: &RedisSessionStore, id: &SessionId, key: &str) -> Cmd {
    let keys = &store.keys;
    let mut mget = redis::cmd("MGET");
    mget.arg(keys.tombstone(key)).arg(keys.reason(key)).arg(keys.all_ended(id));
    mget
}

/// Returns why the session of an id is not live, from the replies to [`notes`] and to `PTTL` of its key.
pub(super) fn reason(store: &RedisSessionStore, notes: &Value, left: &Value) -> Option<EndReason> {
    match noted(notes) {
        // The end of all sessions may be remembered for an id that expired before.
        Some(EndReason::Ended) | None if has_just_expired(store, left) => Some(EndReason::Expired),
        reason => reason,
    }
}

/// Reads the reason from the reply to [`notes`].
fn noted(notes: &Value) -> Option<EndReason> {
    let Value::Array(notes) = notes else { return None };
    match &notes[..] {
        [Value::BulkString(_), ..] => Some(EndReason::Renewed),
        [_, Value::BulkString(reason), _] | [_, _, Value::BulkString(reason)] => Some(EndReason::of_text(reason)),
        _ => None,
    }
}

/// Returns `true` if the data of the session is still there, and the session expired no longer ago than ends are remembered.
fn has_just_expired(store: &RedisSessionStore, left: &Value) -> bool {
    let (grace, remember) =
        (store.grace_millis(), store.ends.remember.map_or(0, |time| Duration::as_millis(&time) as u64));
    match left {
        Value::Int(left) => u64::try_from(*left).is_ok_and(|left| left <= grace && grace - left <= remember),
        _ => false,
    }
}
