//! Every store passes the contract suite, and a store that breaks a promise fails it.

#[path = "contract/broken.rs"]
mod broken;
mod support;

use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use support::{PATIENCE, RedisServer, shared, shared_cluster, unique};
#[cfg(feature = "encryption")]
use threaded_sessions::step::{Encrypted, EncryptionKey};
use threaded_sessions::step::{Next, WriteOperation, Written};
use threaded_sessions::store::{
    Bind, Created, Found, KeyPages, Saved, SessionIndex, SessionKey, Snapshot, Touch, Version, Write,
};
use threaded_sessions::{
    Clock, ErrorKind, Handle, MemorySessionStore, MigratingStore, RedisSessionStore, RedisSessionStoreBuilder, Result,
    SessionId, SessionStore, Step, StepStore, contract,
};

fn check(mut store: impl SessionStore, wait: impl Fn(Duration)) {
    contract::all(&store, &wait);
    contract::companions(&mut store, &wait);
    // Some stores work in other ways from now on.
    contract::all(&store, &wait);
    contract::everybody(&store, &wait);
}

/// Runs each part of the suite once, for stores that work in one way only.
fn check_once(mut store: impl SessionStore, wait: impl Fn(Duration)) {
    contract::companions(&mut store, &wait);
    contract::all(&store, &wait);
    contract::everybody(&store, &wait);
}

fn redis(settings: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder) {
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("contract"));
    check(settings(builder).build().expect("the settings are valid"), sleep);
}

#[test]
fn memory() {
    let clock = Clock::manual();
    check(MemorySessionStore::new().with_clock(clock.clone()), |time| clock.advance(time));
}

#[test]
fn rotation_onto_live_session_changes_nothing() {
    let builder = || RedisSessionStore::builder().url(shared().url()).deadline(PATIENCE).prefix(unique("rotated"));
    let stores: [Box<dyn SessionStore>; 3] = [
        Box::new(MemorySessionStore::new()),
        Box::new(builder().build().unwrap()),
        Box::new(builder().expiring().build().unwrap()),
    ];
    for store in stores {
        let [old, other] = [(); 2].map(|()| store.fresh_id(None));
        for id in [&old, &other] {
            assert!(matches!(store.create(id, Write::new(b"before", PATIENCE)), Ok(Created::Stored(_))));
        }
        let error = store.rotate(&old, &other, Write::new(b"after", PATIENCE), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
        for id in [&old, &other] {
            let Ok(Found::Live(stored)) = store.read(id, Touch::No) else { panic!("it lives") };
            assert_eq!(&*stored.payload, b"before");
        }
    }
}

#[test]
fn bounded_memory() {
    for bound in [1, 2, 100] {
        let clock = Clock::manual();
        let store = || MemorySessionStore::new().with_max_sessions(bound).with_clock(clock.clone());
        contract::bounded(&store(), bound, |time| clock.advance(time));
        let marked = StepStore::builder(store()).step(Marks).build().unwrap();
        contract::bounded(&marked, bound, |time| clock.advance(time));
    }
}

#[test]
fn read_only_redis() {
    let server = RedisServer::start();
    let builder = || RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).prefix(unique("read-only"));
    let allow = || server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let refuse = || drop(server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]));
    for store in [
        builder().build().unwrap(),
        builder().expiring().build().unwrap(),
        builder().expiring().partitions(3).hashed_keys().build().unwrap(),
    ] {
        contract::read_only(&store, refuse, sleep);
        allow();
        contract::read_only(&StepStore::builder(store).step(Marks).build().unwrap(), refuse, sleep);
        allow();
    }
}

#[test]
fn memory_on_the_system_clock() {
    check(MemorySessionStore::new(), sleep);
}

#[test]
fn plain() {
    redis(|builder| builder);
}

#[test]
fn expiring() {
    redis(|builder| builder.expiring());
}

#[test]
fn plain_with_hashed_keys_in_partitions() {
    redis(|builder| builder.hashed_keys().partitions(5));
}

#[test]
fn expiring_with_hashed_keys_in_partitions() {
    redis(|builder| builder.hashed_keys().partitions(5).expiring());
}

#[test]
fn plain_with_a_key_mapper() {
    let prefix = unique("mapped");
    redis(|builder| builder.key_mapper(move |id| format!("{prefix}/{}", id.expose())));
}

#[test]
fn over_a_unix_socket() {
    redis(|builder| builder.url(shared().unix_url()).expiring());
}

#[test]
fn plain_in_a_cluster() {
    redis(|builder| builder.url(shared_cluster().url()));
}

#[test]
fn expiring_in_a_cluster() {
    redis(|builder| builder.url(shared_cluster().url()).expiring());
}

#[test]
fn over_resp3() {
    redis(|builder| builder.url(format!("{}?protocol=resp3", shared().url())).expiring());
}

/// Marks what is written.
#[derive(Debug)]
struct Marks;

impl Step for Marks {
    fn companions(&self) -> Vec<String> {
        vec!["mark".to_owned()]
    }

    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        operation.set_companion("mark", "written");
        next.write(operation)
    }
}

#[test]
fn with_steps_around_it() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("contract")).expiring().build().unwrap();
    check(StepStore::builder(store).step(Marks).build().unwrap(), sleep);
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    check(StepStore::builder(store).step(Marks).build().unwrap(), |time| clock.advance(time));
}

/// A site that changes its layout: the old processes still create sessions that belong to no principal, in the old store.
#[derive(Debug)]
struct Migrating {
    store: MigratingStore,
    old: Box<dyn SessionStore>,
}

impl Migrating {
    /// Builds the old store twice, once for the old processes.
    fn new<O: SessionStore>(new: impl SessionStore, old: impl Fn() -> O) -> Self {
        Self { store: MigratingStore::new(new, old()), old: Box::new(old()) }
    }
}

impl SessionStore for Migrating {
    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let is_free = !matches!(self.store.read(id, Touch::No)?, Found::Live(_));
        if is_free && write.bind == Bind::Keep { self.old.create(id, write) } else { self.store.create(id, write) }
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        self.store.keep_companions(suffixes)?;
        self.old.keep_companions(suffixes)
    }

    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.store.fresh_id(beside)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        self.store.handle(id)
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

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        self.store.companion(id, suffix)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        self.store.delete(id)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.store.index()
    }

    fn partition_count(&self) -> u32 {
        self.store.partition_count()
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        self.store.walk()
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        self.store.snapshots(keys)
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        self.store.end_keys(keys)
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        self.store.save_key(key, write, expected)
    }
}

#[test]
fn migrating_in_memory() {
    let clock = Clock::manual();
    let (new, old) = (MemorySessionStore::new(), MemorySessionStore::new());
    let [new, old] = [new, old].map(|store| store.with_clock(clock.clone()));
    check(Migrating::new(new, || old.clone()), |time| clock.advance(time));
}

/// With equal keys in two databases, so that a session keeps its handle and the suite finds it in both stores.
fn migrate_between_databases(settings: impl Fn(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder) {
    let prefix = unique("migrating");
    let store = |database| {
        let builder = RedisSessionStore::builder().url(format!("{}/{database}", shared().url())).prefix(&prefix);
        settings(builder).build().expect("the settings are valid")
    };
    check_once(Migrating::new(store(1), || store(0)), sleep);
}

#[test]
fn migrating_between_plain_databases() {
    migrate_between_databases(|builder| builder);
}

#[test]
fn migrating_between_expiring_databases() {
    migrate_between_databases(RedisSessionStoreBuilder::expiring);
}

fn migrate(
    old: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder,
    new: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder,
) {
    let builder = |name| RedisSessionStore::builder().url(shared().url()).prefix(unique(name));
    let [old, new] = [old(builder("migrating-old")).build(), new(builder("migrating-new")).build()]
        .map(|store| Arc::new(store.expect("the settings are valid")));
    let id = old.fresh_id(None);
    let _ = old.create(&id, Write::new(b"v", Duration::from_secs(60))).expect("Redis runs");
    let store = MigratingStore::new(new.clone(), old.clone());
    let Found::Live(stored) = store.read(&id, Touch::Peek).expect("Redis runs") else { panic!("the session moves") };
    assert_eq!(&*stored.payload, b"v");
    assert!(stored.expires_in.is_some_and(|left| left <= Duration::from_secs(60)), "{:?} left", stored.expires_in);
    assert!(!old.delete(&id).expect("Redis runs"), "the session has left the old store");
    assert!(new.delete(&id).expect("Redis runs"), "the session is in the new store");

    drop(store);
    let [old, new] = [old, new].map(|store| Arc::into_inner(store).expect("no other owner is left"));
    check_once(MigratingStore::new(new, old), sleep);
}

#[test]
fn migrating_from_plain_to_expiring() {
    migrate(|old| old, RedisSessionStoreBuilder::expiring);
}

#[test]
fn migrating_to_hashed_keys_in_partitions() {
    migrate(RedisSessionStoreBuilder::expiring, |new| new.expiring().hashed_keys().partitions(3));
}

#[test]
#[cfg(feature = "encryption")]
fn migrating_to_encrypted_payloads() {
    let clock = Clock::manual();
    let (new, old) = (MemorySessionStore::new(), MemorySessionStore::new());
    let [new, old] = [new, old].map(|store| store.with_clock(clock.clone()));
    let encrypted = Encrypted::new(EncryptionKey::from_bytes([7; 32]));
    let new = StepStore::builder(new).step(encrypted).build().unwrap();
    check_once(Migrating::new(new, || old.clone()), |time| clock.advance(time));
}

/// In one store, with sessions that are none of the suite's.
#[test]
fn several_at_once() {
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("contract")).expiring();
    let redis = builder.build().unwrap();
    let memory = MemorySessionStore::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| contract::all(&redis, sleep));
            scope.spawn(|| contract::all(&memory, sleep));
        }
    });
}
