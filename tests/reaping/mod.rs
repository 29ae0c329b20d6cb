//! Helpers that the tests of the reaper and the index share.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)]

mod other;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::FromRedisValue;
use threaded_sessions::store::{
    Belonging, Created, Ending, Entry, Found, Reaped, Saved, SessionIndex, Touch, Verified, VerifyOptions, Version,
    Write,
};
use threaded_sessions::{ExpiredSession, Handle, RedisSessionStore, Result, SessionId, SessionManager, SessionStore};

pub use self::other::Other;
use crate::support::{PATIENCE, RedisServer};
pub use crate::support::{keep_logs, logged_by};

pub const HOUR: Duration = Duration::from_secs(3600);

/// By how much the data outlives a session, in milliseconds.
pub const GRACE: i64 = 86_400_000;

/// A payload of a `SessionManager<u64>` with the value 7.
pub const SEVEN: &str = r#"{"v":1,"rev":1,"created":1,"data":7}"#;

pub fn expiring(server: &RedisServer, prefix: &str, partitions: u32) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(server.url()).prefix(prefix).deadline(PATIENCE);
    builder.partitions(partitions).expiring().build().unwrap()
}

/// The prefix of the keys of a partition.
pub fn prefix_of(store: &RedisSessionStore, partition: u32) -> String {
    let id = format!("00000000-0000-0000-0000-{partition:012x}");
    store.key(&id.parse().unwrap()).strip_suffix(&id).unwrap().to_owned()
}

pub fn idle_for(store: impl SessionStore, timeout: Duration) -> SessionManager<u64> {
    SessionManager::builder(store).idle_timeout(timeout).build().unwrap()
}

pub fn create(sessions: &SessionManager<u64>, value: u64) -> SessionId {
    let mut session = sessions.fresh();
    *session = value;
    *sessions.commit(session).unwrap().id().unwrap()
}

#[track_caller]
pub fn is_live(store: &dyn SessionStore, id: &SessionId) -> bool {
    match store.read(id, Touch::No).unwrap() {
        Found::Live(_) => true,
        Found::Absent => false,
        found => panic!("{found:?}"),
    }
}

pub fn index(store: &impl SessionStore) -> &dyn SessionIndex {
    store.index().unwrap()
}

/// Reaps a partition until nothing is due; how many sessions were removed.
#[track_caller]
pub fn reap_all(store: &impl SessionStore, partition: u32) -> u64 {
    let mut removed = 0;
    for _ in 0..1000 {
        let reaped = index(store).reap(partition, 50, false).unwrap();
        removed += reaped.removed;
        if reaped.backlog == 0 {
            return removed;
        }
    }
    panic!("the same entries again and again");
}

#[track_caller]
pub fn ask<R: FromRedisValue>(server: &RedisServer, command: &[&str]) -> R {
    redis::from_redis_value(server.cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Stores sessions as if they had been used a while ago, and returns their keys. `left` is the number of milliseconds until they
/// expire, negative if they have expired. `indexed` is the same number in the index. The prefix is everything before the id, with
/// colon and hash tag.
pub fn load(server: &RedisServer, prefix: &str, numbers: Range<u32>, left: i64, indexed: i64) -> Vec<String> {
    const LOAD: &str = "
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local keys = {}
        for number = ARGV[2], ARGV[3] - 1 do
            local key = ARGV[1] .. string.format('%08x-0000-4000-8000-000000000000', number)
            redis.call('SET', key, ARGV[7], 'PX', ARGV[4] + ARGV[6])
            redis.call('ZADD', ARGV[1] .. 'index', now + ARGV[5], key)
            keys[#keys + 1] = key
        end
        return keys";
    let args = [numbers.start.into(), numbers.end.into(), left, indexed, GRACE].map(|arg: i64| arg.to_string());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    ask(server, &[&["EVAL", LOAD, "0", prefix], &args[..], &[SEVEN]].concat())
}

/// The entries of an index, the next to expire first.
pub fn entries(server: &RedisServer, index: &str) -> Vec<(String, f64)> {
    ask(server, &["ZRANGE", index, "0", "-1", "WITHSCORES"])
}

/// The expired sessions that a callback got.
#[derive(Clone, Default)]
pub struct Reported(Arc<Mutex<Vec<(Handle, u64)>>>);

impl Reported {
    pub fn callback(&self) -> impl FnMut(ExpiredSession<u64>) + Send + 'static {
        let reported = self.clone();
        move |session| reported.0.lock().unwrap().push((session.handle, session.data))
    }

    /// All so far, in order.
    pub fn sorted(&self) -> Vec<(Handle, u64)> {
        let mut reported = self.0.lock().unwrap().clone();
        reported.sort();
        reported
    }
}

/// A custom store: it wraps another store and replaces the `reap` of its index.
pub struct Wrapped<S> {
    pub store: S,
    pub reap: Box<Reap>,
}

pub type Reap = dyn Fn(&dyn SessionIndex, u32, usize, bool) -> Result<Reaped> + Send + Sync;

impl<S: SessionStore> Wrapped<S> {
    pub fn new(
        store: S,
        reap: impl Fn(&dyn SessionIndex, u32, usize, bool) -> Result<Reaped> + Send + Sync + 'static,
    ) -> Self {
        Self { store, reap: Box::new(reap) }
    }
}

impl<S> fmt::Debug for Wrapped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapped")
    }
}

impl<S: SessionStore> SessionStore for Wrapped<S> {
    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        self.store.create(id, write)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        self.store.read(id, touch)
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        self.store.save(id, write, expected)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        self.store.rotate(old, new, write, expected)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        self.store.delete(id)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        Some(self)
    }
}

impl<S: SessionStore> SessionIndex for Wrapped<S> {
    fn partitions(&self) -> u32 {
        index(&self.store).partitions()
    }

    fn keep_expired(&self) {
        index(&self.store).keep_expired();
    }

    fn stop_keeping_expired(&self) {
        index(&self.store).stop_keeping_expired();
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        (self.reap)(index(&self.store), partition, limit, payloads)
    }

    fn count(&self) -> Result<u64> {
        index(&self.store).count()
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        index(&self.store).page(offset, limit)
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        index(&self.store).list_by_principal(principal)
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        index(&self.store).end(principal, which)
    }

    fn end_everybody(&self) -> Result<u64> {
        index(&self.store).end_everybody()
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        index(&self.store).verify(options)
    }
}
