//! Operations that one script carries out, or one pipeline where a read has to subtract the grace period.
//!
//! The trait implementation of the store calls them where one command of Redis is not enough, because there is an
//! index, a companion, an owner, a comparison or a rotation. The invariant: each function takes one round trip to one hash
//! slot, and each script is atomic. The exception is a script that the server does not know: `script` sends it a second time,
//! whole.

use std::borrow::Cow;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use super::net::commands::command;
use super::net::connection::RedisConnection;
use super::net::error::Effect;
use super::net::pool::{Answer, To};
use super::reply::{decode_created, decode_rotated, decode_saved, decode_stored_with_ttl, has_new_owner, time_left};
use super::script::Script;
use super::version::compare_args;
use super::{RedisSessionStore, keys, without_principals};
use crate::store::{Bind, Created, RENEWED_FOR, Saved, Stored, Version, Write, companion, ttl_millis};
use crate::{Handle, Result, SessionId, operation};

/// The arguments of a script.
pub(super) type Args<'a> = Vec<Cow<'a, [u8]>>;

/// Stores a new session.
pub(super) fn create(store: &RedisSessionStore, id: &SessionId, key: &str, write: Write<'_>) -> Result<Created> {
    if store.is_over_cap_across_partitions(key, write.bind)? {
        return Ok(Created::OverCap);
    }
    let mut args = write_args(store, write)?;
    args.extend(bind_args(store, operation::CREATE, write.bind)?.into_iter().flatten());
    let answer = run(store, operation::CREATE, &store.scripts.create, id, &[key], args)?;
    let has_new_owner = has_new_owner(&answer.value);
    let created = decode_created(answer, write.payload)?;
    if let Created::Stored(_) = created {
        store.enforce_cap_across_partitions(key, write.bind, has_new_owner);
    }
    Ok(created)
}

/// Replaces a session, if it has the expected version.
pub(super) fn save(
    store: &RedisSessionStore,
    id: &SessionId,
    key: &str,
    write: Write<'_>,
    expected: Option<&Version>,
) -> Result<Saved> {
    if store.is_over_cap_across_partitions(key, write.bind)? {
        return Ok(Saved::OverCap);
    }
    let mut args = write_args(store, write)?;
    let bind = bind_args(store, operation::SAVE, write.bind)?;
    if expected.is_some() || bind.is_some() {
        args.extend(compare_args(expected));
    }
    let script = if bind.is_some() { &store.scripts.save_and_bind } else { &store.scripts.save };
    args.extend(bind.into_iter().flatten());
    let answer = run(store, operation::SAVE, script, id, &[key], args)?;
    let (has_new_owner, repeated) = (has_new_owner(&answer.value), answer.repeated);
    let saved = decode_saved(operation::SAVE, answer, write.payload)?;
    let saved = store.unless_rotated(operation::SAVE, key, saved, repeated)?;
    if let Saved::Stored(_) = saved {
        store.enforce_cap_across_partitions(key, write.bind, has_new_owner);
    }
    Ok(saved)
}

/// Moves a session from the first key to the second, if it has the expected version, and leaves a tombstone under the third.
pub(super) fn rotate(
    store: &RedisSessionStore,
    old: &SessionId,
    keys: [&str; 3],
    write: Write<'_>,
    expected: Option<&Version>,
) -> Result<Saved> {
    if store.is_over_cap_across_partitions(keys[0], write.bind)? {
        return Ok(Saved::OverCap);
    }
    let mut args = write_args(store, write)?;
    args.push(RENEWED_FOR.as_millis().to_string().into_bytes().into());
    args.extend(compare_args(expected));
    if store.ends.are_noted() {
        args.push(Handle::of_key(keys[1].as_bytes()).to_string().into_bytes().into());
    }
    args.extend(bind_args(store, operation::ROTATE, write.bind)?.into_iter().flatten());
    let answer = run(store, operation::ROTATE, &store.scripts.rotate, old, &keys, args)?;
    let (has_new_owner, repeated) = (has_new_owner(&answer.value), answer.repeated);
    let saved = decode_rotated(answer, write.payload)?;
    let saved = store.unless_rotated(operation::ROTATE, keys[1], saved, repeated)?;
    if let Saved::Stored(_) = saved {
        store.enforce_cap_across_partitions(keys[1], write.bind, has_new_owner);
    }
    Ok(saved)
}

/// Ends a session.
pub(super) fn delete(store: &RedisSessionStore, id: &SessionId, key: &str) -> Result<Value> {
    Ok(run(store, operation::DELETE, &store.scripts.delete, id, &[key], Args::new())?.value)
}

/// Reads a value with the time it has left, and leaves its TTL alone. In an expiring store it also reads a companion, which lives
/// as long as its session.
pub(super) fn get(store: &RedisSessionStore, operation: &'static str, key: &str) -> Result<Option<Stored>> {
    let pttl = command("PTTL", key);
    get_with_ttl(store, operation, Effect::Reads, key, |get, connection| {
        let [payload, left] = connection.pipeline2(get, &pttl)?;
        Ok([payload, time_left(&left, store.grace_millis()).map_or(Value::Nil, Value::Int)])
    })
}

/// Reads a session and sets its TTL. With `extend`, a deadline that is further away stays.
pub(super) fn get_and_touch(
    store: &RedisSessionStore,
    id: &SessionId,
    key: &str,
    ttl: Duration,
    extend: bool,
) -> Result<Option<Stored>> {
    let ttl = data_ttl(store, ttl_millis(ttl));
    let args = &[&*ttl, "1"][..1 + usize::from(extend)];
    get_and_run(store, &store.scripts.touch, id, key, args)
}

/// Reads a session, and sets its TTL unless more than `enough` is left. With `extend`, a deadline that is further away stays.
pub(super) fn get_and_touch_if_due(
    store: &RedisSessionStore,
    id: &SessionId,
    key: &str,
    [ttl, enough]: [Duration; 2],
    extend: bool,
) -> Result<Option<Stored>> {
    let [ttl, enough] = [ttl, enough].map(|time| data_ttl(store, ttl_millis(time)));
    let args = &[&*ttl, &*enough, "1"][..2 + usize::from(extend)];
    get_and_run(store, &store.scripts.touch_if_due, id, key, args)
}

/// Reads a payload and runs a script that touches its session.
fn get_and_run(
    store: &RedisSessionStore,
    script: &Script,
    id: &SessionId,
    key: &str,
    args: &[&str],
) -> Result<Option<Stored>> {
    let keys: Vec<&str> = [key].into_iter().chain(store.index_key(id)).collect();
    get_with_ttl(store, operation::READ, Effect::Touches, key, |get, connection| {
        script.call_after(get, connection, &keys, args)
    })
}

/// Reads a payload and, by another command in the same pipeline, the TTL that is left. Returns `None` if the key has no live
/// session.
///
/// Commands of other clients may run between the two. They do no harm because no id is used twice: a session that is live at
/// the second command was live at the first.
fn get_with_ttl(
    store: &RedisSessionStore,
    operation: &'static str,
    effect: Effect,
    key: &str,
    pipeline: impl Fn(&Cmd, &mut RedisConnection) -> RedisResult<[Value; 2]>,
) -> Result<Option<Stored>> {
    let get = command("GET", key);
    let answer = store.pool.call(operation, effect, To::Key(key), |connection| {
        Ok(match pipeline(&get, connection)? {
            [_, Value::Nil] | [Value::Nil, _] => Value::Nil,
            [payload, left] => Value::Array(vec![payload, left]),
        })
    })?;
    match answer.value {
        Value::Nil => Ok(None),
        other => decode_stored_with_ttl(operation, other).map(Some),
    }
}

/// Runs a script that writes. In an expiring store, the index is the last key. There, and in a store that notes ends, the key base
/// is the last argument.
fn run(
    store: &RedisSessionStore,
    operation: &'static str,
    script: &Script,
    id: &SessionId,
    keys: &[&str],
    args: Args<'_>,
) -> Result<Answer> {
    let keys: Vec<&str> = keys.iter().copied().chain(store.index_key(id)).collect();
    let base = (store.expiring || store.ends.are_noted()).then(|| store.keys.base_of(id));
    store
        .pool
        .call(operation, Effect::Writes, To::Key(keys[0]), |connection| script.call(connection, &keys, &args, base))
}

/// Returns the TTL of a session's data in milliseconds, as the scripts take it.
fn data_ttl(store: &RedisSessionStore, ttl: u64) -> String {
    (ttl + store.grace_millis()).to_string()
}

/// Returns the first arguments of the scripts that write: payload, TTL, and one value for each companion that the store keeps.
/// The value is `+` and the bytes to write, or `=` to keep the companion that the session has.
pub(super) fn write_args<'a>(store: &RedisSessionStore, write: Write<'a>) -> Result<Args<'a>> {
    companion::check_kept(&store.companions, write.companions)?;
    let ttl = write.ttl_millis().map(|ttl| data_ttl(store, ttl)).unwrap_or_default();
    let mut args = Args::with_capacity(6 + store.companions.len());
    args.extend([write.payload.into(), ttl.into_bytes().into()]);
    args.extend(store.companions.iter().map(|suffix| {
        let value = write.companions.iter().find(|companion| companion.suffix == *suffix);
        value.map_or(b"=".into(), |companion| [b"+", &*companion.value].concat().into())
    }));
    Ok(args)
}

/// Returns the last arguments of the scripts that write, owner and cap, or `None` if the owner stays the same.
fn bind_args(
    store: &RedisSessionStore,
    operation: &'static str,
    bind: Bind<'_>,
) -> Result<Option<[Cow<'static, [u8]>; 2]>> {
    let is_partitioned = store.keys.partitions() > 1;
    let (owner, cap) = match bind {
        Bind::Keep => return Ok(None),
        Bind::Unbind if !store.expiring => return Ok(None),
        Bind::Unbind => (String::new(), None),
        Bind::To { .. } | Bind::WithinCap { .. } if !store.expiring => return Err(without_principals(operation)),
        Bind::To { principal, cap } => (keys::owner(principal), cap.map(|cap| cap.to_string())),
        // For a script, a cap that begins with `-` rejects a session instead of ending others.
        Bind::WithinCap { principal, cap } => (keys::owner(principal), Some(format!("-{cap}"))),
    };
    let cap = cap.filter(|_| !is_partitioned).unwrap_or_default();
    Ok(Some([owner.into_bytes().into(), cap.into_bytes().into()]))
}
