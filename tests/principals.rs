//! Sessions with an owner: listed, ended and capped, and never out of reach of `end_all`.

#[path = "principals/cap.rs"]
mod cap;
#[path = "principals/damage.rs"]
mod damage;
#[path = "principals/denied.rs"]
mod denied;
#[path = "principals/ends.rs"]
mod ends;
#[path = "principals/lists.rs"]
mod lists;
#[path = "principals/on_cap.rs"]
mod on_cap;
mod support;
#[path = "principals/update_all.rs"]
mod update_all;

use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use redis::FromRedisValue;
use support::{PATIENCE, eventually, shared, shared_cluster, unique};
use threaded_sessions::store::{Found, Touch};
use threaded_sessions::{
    Clock, MemorySessionStore, Outcome, RedisConnectionManager, RedisPool, RedisSessionStore, RedisSessionStoreBuilder,
    Session, SessionId, SessionManager, SessionManagerBuilder, SessionStore,
};

type Fields = BTreeMap<String, u32>;
type Settings = SessionManagerBuilder<Fields>;

/// One store, and a manager on it.
struct Room {
    sessions: SessionManager<Fields>,
    /// The prefix of its keys, if it is in Redis.
    prefix: Option<String>,
    in_cluster: bool,
}

/// Runs a test on each store that knows principals.
fn in_each_room(test: impl Fn(Room)) {
    in_each_room_with(|settings| settings, test);
}

fn in_each_room_with(settings: impl Fn(Settings) -> Settings, test: impl Fn(Room)) {
    // On the clock that Redis has, too.
    test(Room::new(MemorySessionStore::new().with_clock(Clock::system()), &settings));
    test(Room::redis(|builder| builder, &settings));
    test(Room::redis(|builder| builder.partitions(4).hashed_keys(), &settings));
    test(Room::cluster(&settings));
}

impl Room {
    fn new(store: impl SessionStore, settings: impl Fn(Settings) -> Settings) -> Self {
        let sessions = settings(SessionManager::builder(store)).build().unwrap();
        Self { sessions, prefix: None, in_cluster: false }
    }

    fn redis(
        keys: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder,
        settings: impl Fn(Settings) -> Settings,
    ) -> Self {
        static POOL: OnceLock<RedisPool> = OnceLock::new();
        let pool = POOL.get_or_init(|| {
            // Nothing here is about being slow.
            RedisPool::new(RedisConnectionManager::open(&shared().url()).unwrap().with_deadline(PATIENCE).unwrap())
        });
        let prefix = unique("principals");
        let builder = RedisSessionStore::builder().pool(pool.clone()).prefix(&prefix).expiring();
        let room = Self::new(keys(builder).build().unwrap(), settings);
        Self { prefix: Some(prefix), ..room }
    }

    fn cluster(settings: impl Fn(Settings) -> Settings) -> Self {
        let prefix = unique("principals");
        let builder = RedisSessionStore::builder().url(shared_cluster().url()).prefix(&prefix).deadline(PATIENCE);
        let room = Self::new(builder.expiring().build().unwrap(), settings);
        Self { prefix: Some(prefix), in_cluster: true, ..room }
    }

    fn login(&self, principal: &str, label: &str) -> SessionId {
        let mut session = self.sessions.fresh();
        session.bind(principal, label);
        self.store(session)
    }

    /// Commits what must be stored.
    #[track_caller]
    fn store(&self, session: Session<Fields>) -> SessionId {
        let committed = self.sessions.commit(session).unwrap();
        assert_eq!(committed.outcome(), Outcome::Stored);
        *committed.id().unwrap()
    }

    #[track_caller]
    fn open(&self, id: &SessionId) -> Session<Fields> {
        self.sessions.open_id(id).unwrap().expect("it lives")
    }

    fn lives(&self, id: &SessionId) -> bool {
        self.sessions.open_id(id).unwrap().is_some()
    }

    fn renew(&self, id: &SessionId) -> SessionId {
        let mut session = self.open(id);
        session.renew();
        self.store(session)
    }

    fn destroy(&self, id: &SessionId) {
        let mut session = self.open(id);
        session.destroy();
        assert_eq!(self.sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
    }

    /// Lets the time of a session pass.
    fn expire(&self, id: &SessionId) {
        let read = |touch| self.sessions.store().read(id, touch).unwrap();
        let _ = read(Touch::Set(Duration::from_millis(1)));
        assert!(eventually(PATIENCE, || matches!(read(Touch::No), Found::Absent)));
    }

    fn reap(&self) {
        let index = self.sessions.store().index().unwrap();
        for partition in 0..index.partitions() {
            index.reap(partition, 1000, false).unwrap();
        }
    }

    /// The labels of a principal's sessions, the newest first.
    fn labels(&self, principal: &str) -> Vec<String> {
        self.sessions.list(principal).unwrap().into_iter().map(|session| session.label).collect()
    }

    /// The keys in Redis, without tombstones, which expire by themselves.
    fn keys(&self) -> Vec<String> {
        let Some(prefix) = &self.prefix else { return Vec::new() };
        let mut keys: Vec<String> =
            if self.in_cluster { shared_cluster().keys(prefix) } else { ask(&["KEYS", &format!("{prefix}*")]) };
        keys.retain(|key| !key.ends_with(":renewed"));
        keys
    }
}

/// Asks the server of the room that has this key.
fn ask_for<V: FromRedisValue>(room: &Room, key: &str, command: &[&str]) -> V {
    let server = if room.in_cluster { shared_cluster().master_of(key) } else { shared() };
    redis::from_redis_value(server.cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Asks the shared server.
fn ask<V: FromRedisValue>(command: &[&str]) -> V {
    redis::from_redis_value(shared().cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Lets a millisecond pass, so that what comes next is newer.
fn tick() {
    thread::sleep(Duration::from_millis(2));
}

fn at_once<R: Send>(threads: usize, act: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let (act, start) = (&act, &Barrier::new(threads));
    thread::scope(|scope| {
        let spawn = |n| {
            scope.spawn(move || {
                start.wait();
                act(n)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
