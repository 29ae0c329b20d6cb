//! The reads of `verify`: sessions, companions, tombstones, reasons of ends, and the structures that follow from them.
//!
//! Only `verify` uses this. The invariant: nothing here changes anything or calls a script. Each function reads with short
//! commands, in one round trip (in a cluster, one for each partition), and returns one result for each item that it got, in
//! their order.

use std::collections::BTreeMap;

use redis::{Cmd, Value};

use super::STEP;
use crate::Result;
use crate::operation;
use crate::store::redis::RedisSessionStore;
use crate::store::redis::keys::{ENDED, TOMBSTONE};
use crate::store::redis::net::error::Effect;
use crate::store::redis::reply::{decode, unexpected_part};
use crate::store::redis::walk::{command, pipeline};

/// Items by the partition that they are in.
pub(super) type Groups<T> = BTreeMap<u32, Vec<T>>;

/// The lag, in ms, that a script leaves between the deadline of a session and the entry in the index, because the clock moves on.
const EXACT: f64 = 1000.0;

/// A key that belongs to a session: a companion, the tombstone or the reason of its end.
pub(super) struct Part<'a> {
    pub(super) key: &'a [u8],
    pub(super) session: &'a [u8],
}

/// Returns `true` for each entry of the index that its session agrees with. If a scan does not recognise the keys of companions,
/// tombstones and reasons of ends, those must be right too.
///
/// A key that expires when the index says so is a session: another program would have had to choose the same second. So only
/// a key that never expires is asked for its type.
pub(super) fn indexed(
    store: &RedisSessionStore,
    partition: u32,
    entries: &[(&[u8], Option<f64>)],
) -> Result<Vec<bool>> {
    let expires = |score: &Option<f64>| score.is_some_and(f64::is_finite);
    let of_key = |(key, score): &(&[u8], Option<f64>)| {
        let [kind, deadline] = data(key);
        if expires(score) { vec![deadline] } else { vec![kind, deadline] }
    };
    let parts: Vec<Vec<Vec<u8>>> = entries.iter().map(|(key, _)| parts_of(store, key)).collect();
    let commands = entries.iter().flat_map(of_key).chain(parts.iter().flatten().flat_map(|part| data(part)));
    let mut replies = read(store, vec![(partition, commands.collect())])?.into_iter().flatten();
    let found: Vec<Data> = entries
        .iter()
        .map(|(_, score)| match expires(score) {
            true => Data::with_deadline(replies.next()),
            false => Data::next(&mut replies),
        })
        .collect();
    let each = entries.iter().zip(&parts).zip(found);
    Ok(each.map(|(((_, score), parts), data)| is_right(store, parts, &data, *score, &mut replies)).collect())
}

/// Returns `true` for each session whose data, entry in the index and parts are right, as [`indexed`] does.
pub(super) fn sessions(store: &RedisSessionStore, groups: &Groups<&[u8]>) -> Result<Vec<Vec<bool>>> {
    let commands = groups.iter().map(|(partition, keys)| {
        let scores = bulk("ZMSCORE", store.keys.index(*partition), keys);
        let parts = keys.iter().flat_map(|key| parts_of(store, key));
        let data_of_parts = parts.flat_map(|part| data(&part));
        (*partition, keys.iter().flat_map(|key| data(key)).chain(scores).chain(data_of_parts).collect())
    });
    let mut replies = read(store, commands.collect())?.into_iter();
    let are_right = |keys: &Vec<&[u8]>| {
        let mut replies = replies.next().unwrap_or_default().into_iter();
        let found: Vec<Data> = keys.iter().map(|_| Data::next(&mut replies)).collect();
        let scores = unbulk(&mut replies, keys.len());
        let each = keys.iter().zip(found).zip(scores);
        each.map(|((key, data), score)| is_right(store, &parts_of(store, key), &data, score, &mut replies)).collect()
    };
    Ok(groups.values().map(are_right).collect())
}

/// Takes the replies about the parts of a session, and returns `true` if they, the session and its entry in the index agree.
fn is_right(
    store: &RedisSessionStore,
    parts: &[Vec<u8>],
    data: &Data,
    score: Option<f64>,
    replies: &mut impl Iterator<Item = Value>,
) -> bool {
    let of_parts: Vec<Data> = parts.iter().map(|_| Data::next(replies)).collect();
    let are_right = parts.iter().zip(&of_parts).all(|(part, of_part)| is_part_right(store, part, of_part, data));
    let is_exact = |score| is_exact(score, data.expires, store.grace_millis() as i64);
    data.is_string && score.is_some_and(is_exact) && are_right
}

/// Returns `true` for each part that follows from its session.
pub(super) fn parts(store: &RedisSessionStore, groups: &Groups<Part<'_>>) -> Result<Vec<Vec<bool>>> {
    let commands = groups.iter().map(|(partition, parts)| {
        let keys = parts.iter().flat_map(|part| [part.key, part.session]);
        (*partition, keys.flat_map(data).collect())
    });
    let mut replies = read(store, commands.collect())?.into_iter();
    let is_right = |parts: &Vec<Part<'_>>| {
        let mut replies = replies.next().unwrap_or_default().into_iter();
        let each = parts.iter().map(|part| {
            let (of_part, of_session) = (Data::next(&mut replies), Data::next(&mut replies));
            is_part_right(store, part.key, &of_part, &of_session)
        });
        each.collect()
    };
    Ok(groups.values().map(is_right).collect())
}

/// The keys in a set, or `None` if the key of the set has another type.
pub(super) type Set = Option<Vec<Vec<u8>>>;

/// Returns the keys in each set, but not more than `STEP`.
pub(super) fn sets(store: &RedisSessionStore, groups: &Groups<String>) -> Result<Vec<Vec<Set>>> {
    let commands = groups.iter().map(|(partition, sets)| {
        // ZRANGE costs less than ZSCAN, which writes all scores as text.
        let range = |set: &String| {
            let mut range = command("ZRANGE", set.as_bytes());
            range.arg(0).arg(STEP - 1);
            range
        };
        (*partition, sets.iter().map(range).collect())
    });
    let replies = read(store, commands.collect())?.into_iter();
    let in_each = |reply| match reply {
        Value::Array(_) => decode(operation::VERIFY, reply).ok(),
        _ => None,
    };
    Ok(replies.map(|replies| replies.into_iter().map(in_each).collect()).collect())
}

/// Returns the owner of each session in the hash of owners.
pub(super) fn owners(store: &RedisSessionStore, partition: u32, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
    let commands = bulk("HMGET", &store.keys.owners(partition), keys).collect();
    let mut replies = read(store, vec![(partition, commands)])?.into_iter().flatten();
    Ok(unbulk(&mut replies, keys.len()))
}

/// Returns `true` for each pair of a session and its owner that is in the set of the owner too.
pub(super) fn pairs(store: &RedisSessionStore, partition: u32, pairs: &[(&[u8], &[u8])]) -> Result<Vec<bool>> {
    let score = |(key, owner): &(&[u8], &[u8])| {
        // A name that is not text becomes the name of another set, so the script decides.
        let set = store.keys.owned(partition, &String::from_utf8_lossy(owner));
        let mut score = command("ZSCORE", set.as_bytes());
        score.arg(key);
        score
    };
    let replies = read(store, vec![(partition, pairs.iter().map(score).collect())])?.into_iter().flatten();
    Ok(replies.map(|reply| matches!(reply, Value::BulkString(_) | Value::Double(_))).collect())
}

/// The state of a key in Redis.
struct Data {
    is_string: bool,
    /// The time at which the key expires, in ms since 1970; -1 if it never does, -2 if there is no key.
    expires: i64,
}

impl Data {
    fn next(replies: &mut impl Iterator<Item = Value>) -> Self {
        let kind = replies.next();
        let is_string = matches!(kind, Some(Value::SimpleString(kind)) if kind == "string");
        Self { is_string, ..Self::with_deadline(replies.next()) }
    }

    /// The state of a key whose type was not asked for.
    fn with_deadline(reply: Option<Value>) -> Self {
        Self { is_string: true, expires: if let Some(Value::Int(expires)) = reply { expires } else { -2 } }
    }
}

/// The commands whose replies `Data::next` takes.
fn data(key: &[u8]) -> [Cmd; 2] {
    [command("TYPE", key), command("PEXPIRETIME", key)]
}

fn is_exact(score: f64, expires: i64, grace: i64) -> bool {
    let deadline = if expires == -1 { f64::INFINITY } else { (expires - grace) as f64 };
    score == deadline || (score - deadline).abs() < EXACT
}

fn is_part_right(store: &RedisSessionStore, key: &[u8], part: &Data, session: &Data) -> bool {
    let is_companion = store.companions.iter().any(|suffix| key.ends_with(format!(":{suffix}").as_bytes()));
    match part.expires {
        -2 => true,
        expires if is_companion => part.is_string && session.is_string && expires == session.expires,
        // A tombstone and the reason of an end only have to expire.
        expires => expires != -1,
    }
}

/// The names of the companions, the tombstone and the reason of the end of a session, if a scan does not recognise them.
fn parts_of(store: &RedisSessionStore, key: &[u8]) -> Vec<Vec<u8>> {
    if store.keys.kind() != "custom" {
        return Vec::new();
    }
    let suffixes = store.companions.iter().map(String::as_str).chain([TOMBSTONE, ENDED]);
    suffixes.map(|suffix| [key, b":", suffix.as_bytes()].concat()).collect()
}

/// Commands that read a field or member for each key. A command with too many would take Redis too long.
fn bulk<'a>(name: &'a str, of: &'a str, keys: &'a [&[u8]]) -> impl Iterator<Item = Cmd> + use<'a> {
    keys.chunks(STEP).map(move |keys| {
        let mut bulk = command(name, of.as_bytes());
        bulk.arg(keys);
        bulk
    })
}

/// The replies to `bulk`. If the structure has another type, it has nothing for any key.
fn unbulk<T: redis::FromRedisValue>(replies: &mut impl Iterator<Item = Value>, len: usize) -> Vec<Option<T>> {
    let mut all = Vec::with_capacity(len);
    while all.len() < len {
        let end = len.min(all.len() + STEP);
        if let Some(Value::Array(some)) = replies.next() {
            all.extend(some.into_iter().map(|reply| decode(operation::VERIFY, reply).ok().flatten()));
        }
        all.resize_with(end, || None);
    }
    all
}

/// Sends the commands for each partition. Returns the replies by partition.
fn read(store: &RedisSessionStore, groups: Vec<(u32, Vec<Cmd>)>) -> Result<Vec<Vec<Value>>> {
    let send = |partition, commands: Vec<Cmd>| match commands.len() {
        0 => Ok(Vec::new()),
        _ => pipeline(store, operation::VERIFY, Effect::Reads, store.keys.index(partition), commands),
    };
    if store.pool.is_cluster() {
        return groups.into_iter().map(|(partition, commands)| send(partition, commands)).collect();
    }
    let lengths: Vec<usize> = groups.iter().map(|(_, commands)| commands.len()).collect();
    let Some(&(partition, _)) = groups.first() else { return Ok(Vec::new()) };
    let mut replies = send(partition, groups.into_iter().flat_map(|(_, commands)| commands).collect())?.into_iter();
    let all: Vec<Vec<Value>> = lengths.into_iter().map(|length| replies.by_ref().take(length).collect()).collect();
    replies.next().map_or(Ok(all), |_| Err(unexpected_part(operation::VERIFY)))
}
