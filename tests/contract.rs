//! Every store passes the contract suite, and a store that breaks a promise fails it.

#[path = "contract/broken.rs"]
mod broken;
mod support;

use std::thread::{self, sleep};
use std::time::Duration;

use support::{PATIENCE, RedisServer, shared, shared_cluster, unique};
use threaded_sessions::step::{Next, WriteOperation, Written};
use threaded_sessions::{
    Clock, MemorySessionStore, RedisSessionStore, RedisSessionStoreBuilder, Result, SessionStore, Step, StepStore,
    contract,
};

fn check(mut store: impl SessionStore, wait: impl Fn(Duration)) {
    contract::all(&store, &wait);
    contract::companions(&mut store, &wait);
    // Some stores work in other ways from now on.
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
