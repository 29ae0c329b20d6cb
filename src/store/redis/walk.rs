//! The walk over all sessions of a Redis store, and reading and ending the sessions that it found.
//!
//! The trait implementation of the store calls it. An expiring store walks the index of one partition after the other, a plain
//! store all keys of one server after the other. The invariant: a command takes Redis well under 2 ms, however many sessions
//! there are, and only `end` changes anything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::vec;

use redis::{Cmd, ConnectionLike, ServerError, Value};

use super::RedisSessionStore;
pub(super) use super::net::commands::command;
use super::net::error::Effect;
use super::net::pool::To;
use super::net::server::Server;
use super::reply::{decode, decode_ttl, keys_of_pairs, time_left, unexpected_part};
use crate::store::{Bytes, KeyPage, KeyPages, Progress, SessionKey, Snapshot};
use crate::{Error, ErrorKind, Handle, Result, operation};

/// The number of keys that one step of a scan or a `page` looks at. A step blocks the server for well under 1 ms.
pub(super) const SCAN_STEP: usize = 200;

/// The result of one step of a scan: the next cursor, which is 0 after the last step, and what the step has found.
type ScanPage = (u64, Vec<Vec<u8>>);

/// Begins a walk.
pub(super) fn pages(store: &RedisSessionStore) -> Result<KeyPages<'_>> {
    if store.expiring {
        let total = store.index_total(operation::WALK)?;
        return Ok(Box::new(IndexPages { store, partitions: 0..store.keys.partitions(), open: None, total }));
    }
    if store.keys.kind() == "custom" {
        let why = "a plain store cannot recognise keys of a custom key mapper: use an expiring store";
        return Err(Error::unsupported(operation::WALK, why));
    }
    let total = store.server_total(operation::WALK)?;
    let servers = store.pool.servers(operation::WALK)?.into_iter();
    Ok(Box::new(ServerPages { store, servers, open: None, total }))
}

/// The pages of a walk over the indexes of an expiring store.
struct IndexPages<'a> {
    store: &'a RedisSessionStore,
    /// The partitions that the walk has not begun.
    partitions: Range<u32>,
    /// The partition that the walk is in, and its cursor.
    open: Option<(u32, u64)>,
    total: Progress,
}

impl IndexPages<'_> {
    fn read(&mut self, partition: u32, cursor: u64) -> Result<KeyPage> {
        let (store, index) = (self.store, self.store.keys.index(partition));
        let (next, entries) = store.scan(operation::WALK, To::Key(index), &["ZSCAN", index], cursor, SCAN_STEP, &[])?;
        let keys = keys_of_pairs(entries);
        store.foreign_keys.look(&store.keys, partition, keys.iter().map(Vec::as_slice));
        self.open = (next != 0).then_some((partition, next));
        self.total = self.total.after(keys.len() as u64);
        let keys = keys.into_iter().filter(|key| store.keys.is_in(partition, key));
        Ok(KeyPage::new(keys.map(|key| session_key(partition, key)).collect(), self.total))
    }
}

impl Iterator for IndexPages<'_> {
    type Item = Result<KeyPage>;

    fn next(&mut self) -> Option<Self::Item> {
        let (partition, cursor) = match self.open.take() {
            Some(open) => open,
            None => (self.partitions.next()?, 0),
        };
        Some(self.read(partition, cursor).inspect_err(|_| self.partitions = 0..0))
    }
}

/// The pages of a walk over the keys of all servers. A plain store walks so.
struct ServerPages<'a> {
    store: &'a RedisSessionStore,
    /// The servers that the walk has not begun.
    servers: vec::IntoIter<Arc<Server>>,
    /// The server that the walk is on, and its cursor.
    open: Option<(Arc<Server>, u64)>,
    total: Progress,
}

impl ServerPages<'_> {
    fn read(&mut self, server: Arc<Server>, cursor: u64) -> Result<KeyPage> {
        let store = self.store;
        let pattern = store.keys.pattern();
        let after = ["MATCH", &pattern, "TYPE", "string"];
        let (next, keys) = store.scan(operation::WALK, To::Server(&server), &["SCAN"], cursor, SCAN_STEP, &after)?;
        self.open = (next != 0).then_some((server, next));
        self.total = store.scanned(self.total, next, self.servers.len());
        let keys = keys.into_iter().filter_map(|key| Some(session_key(store.keys.partition_of(&key)?, key)));
        Ok(KeyPage::new(keys.collect(), self.total))
    }
}

impl Iterator for ServerPages<'_> {
    type Item = Result<KeyPage>;

    fn next(&mut self) -> Option<Self::Item> {
        let (server, cursor) = match self.open.take() {
            Some(open) => open,
            None => (self.servers.next()?, 0),
        };
        Some(self.read(server, cursor).inspect_err(|_| self.servers = Vec::new().into_iter()))
    }
}

fn session_key(partition: u32, key: Vec<u8>) -> SessionKey {
    SessionKey::new(Handle::of_key(&key), partition, key)
}

/// Reads the live sessions under these keys.
pub(super) fn snapshots(store: &RedisSessionStore, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
    let mut found: Vec<Option<Snapshot>> = Vec::new();
    found.resize_with(keys.len(), || None);
    for (partition, positions) in by_partition(store, keys) {
        for positions in positions.chunks(SCAN_STEP) {
            let some: Vec<&SessionKey> = positions.iter().map(|&position| &keys[position]).collect();
            for (position, snapshot) in positions.iter().zip(read(store, partition, &some)?) {
                found[*position] = snapshot;
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Groups keys, by their positions, so that one pipeline can go to each group.
fn by_partition(store: &RedisSessionStore, keys: &[SessionKey]) -> BTreeMap<u32, Vec<usize>> {
    let is_one_group = !store.expiring && !store.pool.is_cluster();
    let mut groups = BTreeMap::<u32, Vec<usize>>::new();
    for (position, key) in keys.iter().enumerate() {
        groups.entry(if is_one_group { 0 } else { key.partition() }).or_default().push(position);
    }
    groups
}

/// Reads sessions of one group in one round trip.
fn read(store: &RedisSessionStore, partition: u32, keys: &[&SessionKey]) -> Result<Vec<Option<Snapshot>>> {
    // One MGET costs Redis less than many GETs. But while a hash slot moves, only commands about one key are sure to find it.
    let payloads_at_once = !store.pool.is_cluster();
    let mut commands: Vec<Cmd> = Vec::with_capacity(2 * keys.len() + 1);
    if payloads_at_once {
        commands.push(with_names(redis::cmd("MGET"), keys));
    } else {
        commands.extend(keys.iter().map(|key| command("GET", key.name())));
    }
    commands.extend(keys.iter().map(|key| command("PTTL", key.name())));
    if store.expiring {
        commands.push(with_names(command("HMGET", store.keys.owners(partition).as_bytes()), keys));
    }
    let mut replies = pipeline(store, operation::WALK, Effect::Reads, text(keys[0])?, commands)?.into_iter();
    let payloads = match payloads_at_once {
        true => array(replies.next()),
        false => replies.by_ref().take(keys.len()).collect(),
    };
    let left: Vec<Value> = replies.by_ref().take(keys.len()).collect();
    // Another program may have written over the hash of owners.
    let mut owners = array(replies.next()).into_iter();
    let each = keys.iter().zip(payloads.into_iter().zip(left));
    let snapshots = each.map(|(key, (payload, left))| {
        let owner = owners.next();
        let snapshot = snapshot(store, key, payload, left)?;
        Some(Snapshot { owner_hash: owner.and_then(|owner| decode(operation::WALK, owner).ok()), ..snapshot })
    });
    Ok(snapshots.collect())
}

fn with_names(mut command: Cmd, keys: &[&SessionKey]) -> Cmd {
    command.arg(keys.iter().map(|key| key.name()).collect::<Vec<_>>());
    command
}

/// The elements of an array. A reply of another type has none.
fn array(reply: Option<Value>) -> Vec<Value> {
    if let Some(Value::Array(elements)) = reply { elements } else { Vec::new() }
}

/// Returns a session, if it is live and its key has the right type.
fn snapshot(store: &RedisSessionStore, key: &SessionKey, payload: Value, left: Value) -> Option<Snapshot> {
    let Value::BulkString(payload) = payload else { return None };
    let left = decode_ttl(time_left(&left, store.grace_millis())?);
    Some(Snapshot::new(key.clone(), Bytes::from(payload), left))
}

/// Ends sessions, and returns how many were live.
pub(super) fn end(store: &RedisSessionStore, keys: &[SessionKey]) -> Result<u64> {
    let names: Vec<&str> = keys.iter().filter_map(|key| text(key).ok()).collect();
    let _near: Vec<_> = names.iter().map(|name| store.near.forgets(name)).collect();
    if store.expiring || store.ends.are_noted() {
        return keys.iter().try_fold(0, |ended, key| Ok(ended + end_by_script(store, key)?));
    }
    let mut ended = 0;
    for positions in by_partition(store, keys).values() {
        for positions in positions.chunks(SCAN_STEP) {
            let some: Vec<&SessionKey> = positions.iter().map(|&position| &keys[position]).collect();
            ended += end_plain(store, &some)?;
        }
    }
    Ok(ended)
}

/// Ends a session by the script that also clears index, owner and companions, and notes the end.
fn end_by_script(store: &RedisSessionStore, key: &SessionKey) -> Result<u64> {
    let (name, partition) = (text(key)?, key.partition());
    if partition >= store.keys.partitions() {
        return Ok(0);
    }
    let (index, base) = (store.keys.index(partition), Some(store.keys.base(partition)));
    let reason = &["ended"][..usize::from(store.ends.are_noted())];
    let keys = &[name, index][..1 + usize::from(store.expiring)];
    let deleted = store.pool.call(operation::END, Effect::Writes, To::Key(name), |connection| {
        store.scripts.delete.call(connection, keys, reason, base)
    });
    match deleted {
        Ok(deleted) => decode(operation::END, deleted.value),
        // Another program wrote over the key, so there is no session.
        Err(error) if error.kind() == ErrorKind::WrongType => Ok(0),
        Err(error) => Err(error),
    }
}

/// Ends sessions of a plain store with their companions, in one round trip. While a hash slot moves, a command about one key finds
/// the key, and a command about several keys may not.
fn end_plain(store: &RedisSessionStore, keys: &[&SessionKey]) -> Result<u64> {
    let mut commands = Vec::with_capacity(keys.len() * (1 + store.companions.len()));
    for key in keys {
        let name = text(key)?;
        commands.push(command("DEL", name));
        commands.extend(store.companions.iter().map(|suffix| command("DEL", &store.keys.companion(name, suffix))));
    }
    let replies = pipeline(store, operation::END, Effect::Writes, text(keys[0])?, commands)?;
    let sessions = replies.iter().step_by(1 + store.companions.len());
    Ok(sessions.filter(|deleted| **deleted == Value::Int(1)).count() as u64)
}

/// Sends commands about keys in one hash slot, or on the only server, in one round trip. A reply of the wrong type is
/// among the replies; if any command fails for another reason, so does the call.
///
/// While a hash slot moves, a node rejects some of the commands, and carries out others. The first reply to each command
/// counts, because a second attempt would find its session ended.
pub(super) fn pipeline(
    store: &RedisSessionStore,
    operation: &'static str,
    effect: Effect,
    key: &str,
    commands: Vec<Cmd>,
) -> Result<Vec<Value>> {
    let mut packed = Vec::new();
    commands.iter().for_each(|command| command.write_packed_command(&mut packed));
    let replies = RefCell::new(vec![None; commands.len()]);
    let send = |connection: &mut super::RedisConnection| {
        let mut replies = replies.borrow_mut();
        for (first, reply) in replies.iter_mut().zip(connection.req_packed_commands(&packed, 0, commands.len())?) {
            if first.as_ref().is_none_or(|first| rejection(first).is_some()) {
                *first = Some(reply);
            }
        }
        let rejected = replies.iter().flatten().find_map(rejection);
        rejected.map_or(Ok(Value::Nil), |error| Err(error.into()))
    };
    let sent = store.pool.call(operation, effect, To::Key(key), send);
    let mut replies = replies.into_inner();
    match sent {
        Ok(_) => {}
        // While a hash slot moves to another node, one command at a time finds its key.
        Err(error) if store.pool.is_cluster() && error.kind() == ErrorKind::Unavailable => {
            one_by_one(store, operation, effect, key, &commands, &mut replies)?;
        }
        Err(error) => return Err(error),
    }
    replies.into_iter().collect::<Option<_>>().ok_or_else(|| unexpected_part(operation))
}

/// Returns the error of a command that was not carried out. A reply of the wrong type is none.
fn rejection(reply: &Value) -> Option<ServerError> {
    match reply {
        Value::ServerError(error) if error.code() != "WRONGTYPE" => Some(error.clone()),
        _ => None,
    }
}

/// Sends commands about keys in one hash slot that have no reply yet, in one round trip each.
fn one_by_one(
    store: &RedisSessionStore,
    operation: &'static str,
    effect: Effect,
    key: &str,
    commands: &[Cmd],
    replies: &mut [Option<Value>],
) -> Result<()> {
    let is_open = |reply: &Option<Value>| reply.as_ref().is_none_or(|reply| rejection(reply).is_some());
    for (command, reply) in commands.iter().zip(replies).filter(|(_, reply)| is_open(reply)) {
        *reply = Some(match store.command(operation, effect, To::Key(key), command) {
            Ok(answer) => answer.value,
            Err(error) if error.kind() == ErrorKind::WrongType => Value::Nil,
            Err(error) => return Err(error),
        });
    }
    Ok(())
}

impl RedisSessionStore {
    /// Runs a step of a command such as `SCAN`, with the cursor between `before` and `after`. Returns about `count` keys.
    fn scan(
        &self,
        operation: &'static str,
        to: To<'_>,
        before: &[&str],
        cursor: u64,
        count: usize,
        after: &[&str],
    ) -> Result<ScanPage> {
        let mut scan = redis::Cmd::new();
        scan.arg(before).arg(cursor).arg("COUNT").arg(count).arg(after);
        decode(operation, self.command(operation, Effect::Reads, to, &scan)?.value)
    }

    /// Runs a command such as `SCAN` to its end. Returns its pages. If one is an error, it is the last.
    pub(super) fn scan_pages<'a>(
        &'a self,
        operation: &'static str,
        to: To<'a>,
        before: &'a [&'a str],
        count: usize,
    ) -> impl Iterator<Item = Result<ScanPage>> {
        let mut cursor = Some(0);
        iter::from_fn(move || {
            let page = self.scan(operation, to, before, cursor.take()?, count, &[]);
            cursor = page.as_ref().ok().map(|(next, _)| *next).filter(|next| *next != 0);
            Some(page)
        })
    }

    /// Returns a progress of 0 out of all entries of all indexes.
    pub(super) fn index_total(&self, operation: &'static str) -> Result<Progress> {
        let mut total = 0;
        for partition in 0..self.keys.partitions() {
            let index = self.keys.index(partition);
            let mut zcount = redis::cmd("ZCOUNT");
            zcount.arg(index).arg("-inf").arg("+inf");
            total += decode::<u64>(operation, self.command(operation, Effect::Reads, To::Key(index), &zcount)?.value)?;
        }
        Ok(Progress::new(0, total))
    }

    /// Returns a progress of 0 out of all keys of all servers, or out of 0 if the user may not run `DBSIZE`.
    pub(super) fn server_total(&self, operation: &'static str) -> Result<Progress> {
        let mut total = 0;
        for server in &self.pool.servers(operation)? {
            match self.command(operation, Effect::Reads, To::Server(server), &redis::cmd("DBSIZE")) {
                Ok(keys) => total += decode::<u64>(operation, keys.value)?,
                Err(error) if error.kind() == ErrorKind::Denied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::new(0, total))
    }

    /// Returns the progress of a scan over all servers after a step, from the next cursor and the number of servers that the scan
    /// has not begun.
    ///
    /// `SCAN` does not report how many keys it looked at. It counts the cursor up with its bits in reverse order, so the reversed
    /// cursor is the part of the keys that it has passed. In a cluster, newer servers put the hash slot into the cursor.
    pub(super) fn scanned(&self, so_far: Progress, cursor: u64, servers_left: usize) -> Progress {
        let done = match (cursor, servers_left) {
            (0, 0) => so_far.total,
            _ if self.pool.is_cluster() => so_far.total.min(so_far.done + SCAN_STEP as u64),
            _ => ((u128::from(so_far.total) * u128::from(cursor.reverse_bits())) >> 64) as u64,
        };
        Progress::new(done.max(so_far.done), so_far.total)
    }
}

/// The key of a session as text. A store makes no other keys.
pub(super) fn text(key: &SessionKey) -> Result<&str> {
    str::from_utf8(key.name()).map_err(|_| unexpected_part(operation::WALK))
}
