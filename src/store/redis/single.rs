//! Operations that one command of Redis carries out.
//!
//! The trait implementation of the store calls them if a session is one key and nothing else: in a plain store without
//! companions, and only to write a payload. The invariant: each function sends one command, which is atomic.

use std::time::Duration;

use redis::Cmd;

use super::RedisSessionStore;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::{decode_created, decode_payload, decode_replaced};
use crate::store::{Created, Saved, Stored, Write, ttl_millis};
use crate::{Result, operation};

/// Stores a new session. `GET` distinguishes an earlier success of this operation from the session of another request. It
/// fails for a key of another type.
pub(super) fn create(store: &RedisSessionStore, key: &str, write: Write<'_>) -> Result<Created> {
    let mut set = set(key, write);
    let answer = store.command(operation::CREATE, Effect::Writes, To::Key(key), set.arg("NX").arg("GET"))?;
    decode_created(answer, write.payload)
}

/// Reads a value and leaves its TTL alone. Also reads a companion, which Redis expires together with its session.
pub(super) fn get(store: &RedisSessionStore, operation: &'static str, key: &str) -> Result<Option<Stored>> {
    let answer = store.command(operation, Effect::Reads, To::Key(key), &command("GET", key))?;
    decode_payload(operation, answer.value, None)
}

/// Reads a session and sets its TTL.
pub(super) fn get_and_touch(store: &RedisSessionStore, key: &str, ttl: Duration) -> Result<Option<Stored>> {
    let ttl = ttl_millis(ttl);
    let mut getex = command("GETEX", key);
    let answer = store.command(operation::READ, Effect::Touches, To::Key(key), getex.arg("PX").arg(ttl))?;
    decode_payload(operation::READ, answer.value, Some(Duration::from_millis(ttl)))
}

/// Replaces a session, whatever its version. Without `GET`, `SET` would replace a key of any type.
pub(super) fn save(store: &RedisSessionStore, key: &str, write: Write<'_>) -> Result<Saved> {
    let mut set = set(key, write);
    let answer = store.command(operation::SAVE, Effect::Writes, To::Key(key), set.arg("XX").arg("GET"))?;
    let repeated = answer.repeated;
    let saved = decode_replaced(answer, write.payload)?;
    store.unless_rotated(operation::SAVE, key, saved, repeated)
}

/// Deletes a session.
pub(super) fn delete(store: &RedisSessionStore, key: &str) -> Result<redis::Value> {
    Ok(store.command(operation::DELETE, Effect::Writes, To::Key(key), &command("DEL", key))?.value)
}

/// Builds `SET key payload PX ttl`, without the conditions.
fn set(key: &str, write: Write<'_>) -> Cmd {
    let mut set = with_room("SET", key, write.payload.len());
    set.arg(write.payload);
    if let Some(ttl) = write.ttl_millis() {
        set.arg("PX").arg(ttl);
    }
    set
}

fn command(name: &str, key: &str) -> Cmd {
    with_room(name, key, 0)
}

/// Builds a command for a key. Its buffer has room for a payload and for options, because a buffer that grows moves what it has.
fn with_room(name: &str, key: &str, payload: usize) -> Cmd {
    let mut command = Cmd::with_capacity(7, key.len() + payload + 64);
    command.arg(name).arg(key);
    command
}
