//! The stores that the steps are taken on, and the changes that a test makes to them directly.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::Duration;

use threaded_sessions::redis::{Connection, FromRedisValue, cmd};
use threaded_sessions::store::Touch;
use threaded_sessions::{
    Clock, MemorySessionStore, NearCache, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionStore,
};

use crate::support::{PATIENCE, shared, unique};

pub(crate) trait Ground {
    fn store(&self) -> Arc<dyn SessionStore>;

    /// The partition of a session, if there is more than one.
    fn partition(&self, _id: &SessionId) -> Option<u32> {
        None
    }

    /// Lets the time of a session pass, but no other's.
    fn expire(&self, id: &SessionId);

    /// Lets no time pass for the mark of a session that was renewed.
    fn keep_mark(&self, _id: &SessionId) {}

    /// Lets enough time pass that no session is bound in the same millisecond as the last.
    fn tick(&self) {}

    /// Returns all stored keys, without tombstones, after all sessions have ended.
    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) struct Memory {
    store: MemorySessionStore,
    clock: Clock,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let clock = Clock::manual();
        Self { store: MemorySessionStore::new().with_clock(clock.clone()), clock }
    }
}

impl Ground for Memory {
    fn store(&self) -> Arc<dyn SessionStore> {
        Arc::new(self.store.clone())
    }

    fn expire(&self, id: &SessionId) {
        let _ = self.store.read(id, Touch::Set(Duration::from_millis(1))).unwrap();
        self.clock.advance(Duration::from_millis(1));
    }
}

pub(crate) struct Redis {
    store: RedisSessionStore,
    connection: RefCell<Connection>,
    prefix: String,
    expiring: bool,
    partitions: u32,
}

impl Redis {
    pub(crate) fn plain() -> Self {
        Self::new(false, 1, None)
    }

    pub(crate) fn expiring(partitions: u32) -> Self {
        Self::new(true, partitions, None)
    }

    /// A store with a near cache.
    pub(crate) fn cached(expiring: bool, lease: Duration) -> Self {
        Self::new(expiring, 1, Some(lease))
    }

    fn new(expiring: bool, partitions: u32, lease: Option<Duration>) -> Self {
        static POOL: OnceLock<RedisPool> = OnceLock::new();
        let pool = POOL.get_or_init(|| {
            // Nothing here is about being slow.
            RedisPool::new(RedisConnectionManager::open(&shared().url()).unwrap().with_deadline(PATIENCE).unwrap())
        });
        let prefix = unique("model");
        let builder = RedisSessionStore::builder().pool(pool.clone()).prefix(&prefix).partitions(partitions);
        let builder = if expiring { builder.expiring() } else { builder };
        let builder = match lease {
            Some(lease) => builder.near_cache(NearCache::new().lease(lease)),
            None => builder,
        };
        let store = builder.build().unwrap();
        Self { store, connection: RefCell::new(shared().connection()), prefix, expiring, partitions }
    }

    fn ask<V: FromRedisValue>(&self, command: &[&str]) -> V {
        cmd(command[0]).arg(&command[1..]).query(&mut *self.connection.borrow_mut()).unwrap()
    }
}

impl Ground for Redis {
    fn store(&self) -> Arc<dyn SessionStore> {
        Arc::new(self.store.clone())
    }

    fn partition(&self, id: &SessionId) -> Option<u32> {
        let key = self.store.key(id);
        key.split(['{', '}']).nth(1).map(|partition| partition.parse().unwrap())
    }

    fn expire(&self, id: &SessionId) {
        let key = self.store.key(id);
        if self.expiring {
            // Into the 24 hours that the data stays for the reaper.
            let _: i64 = self.ask(&["PEXPIRE", &key, "86400000"]);
            let index = format!("{}index", key.strip_suffix(&id.expose()).unwrap());
            let _: i64 = self.ask(&["ZADD", &index, "XX", "1", &key]);
        } else {
            let _: i64 = self.ask(&["DEL", &key]);
        }
        // A near cache may miss for a moment what another process does.
        self.store.forget(&[*id]);
    }

    fn keep_mark(&self, id: &SessionId) {
        let _: i64 = self.ask(&["PERSIST", &format!("{}:renewed", self.store.key(id))]);
    }

    fn tick(&self) {
        if self.partitions > 1 {
            sleep(Duration::from_millis(2));
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let keys: Vec<String> = self.ask(&["KEYS", &format!("{}*", self.prefix)]);
        let (marks, others): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.ends_with(":renewed"));
        for mark in marks {
            let _: i64 = self.ask(&["DEL", &mark]);
        }
        others
    }
}
