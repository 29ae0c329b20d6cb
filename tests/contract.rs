//! Every store passes the same suite.

mod support;

use std::thread::sleep;

use support::{shared, shared_cluster, unique};
use threaded_sessions::{Clock, MemorySessionStore, RedisSessionStore, RedisSessionStoreBuilder, contract};

fn redis(settings: impl FnOnce(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder) {
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("contract"));
    let store = settings(builder).build().expect("the settings are valid");
    contract::all(&store, sleep);
}

#[test]
fn memory() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    contract::all(&store, |time| clock.advance(time));
}

#[test]
fn memory_on_the_system_clock() {
    contract::all(&MemorySessionStore::new(), sleep);
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
