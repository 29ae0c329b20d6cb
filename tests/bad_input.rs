//! Invalid input from browsers, from Redis or from a program's settings has a documented outcome.

#[path = "bad_input/cookies.rs"]
mod cookies;
#[path = "bad_input/depth.rs"]
mod depth;
#[path = "bad_input/keys.rs"]
mod keys;
#[path = "bad_input/payloads.rs"]
mod payloads;
#[path = "bad_input/settings.rs"]
mod settings;
mod support;
#[path = "bad_input/values.rs"]
mod values;

use std::sync::Arc;
use std::time::Duration;

use support::{PATIENCE, shared, unique};
use threaded_sessions::store::{Created, Found, Touch, Write};
use threaded_sessions::{MemorySessionStore, RedisSessionStore, RedisSessionStoreBuilder, SessionId, SessionStore};

const HOUR: Duration = Duration::from_secs(3600);

/// A store with a unique prefix. Its deadline is long, because no test here is about time.
fn redis() -> RedisSessionStoreBuilder {
    RedisSessionStore::builder().url(shared().url()).prefix(unique("bad")).deadline(PATIENCE)
}

/// One of each kind.
fn stores() -> [Arc<dyn SessionStore>; 3] {
    [
        Arc::new(MemorySessionStore::new()),
        Arc::new(redis().build().unwrap()),
        Arc::new(redis().expiring().build().unwrap()),
    ]
}

/// Puts a payload there that no manager made.
#[track_caller]
fn plant(store: &dyn SessionStore, payload: &[u8]) -> SessionId {
    let id = store.fresh_id(None);
    let created = store.create(&id, Write::new(payload, HOUR)).unwrap();
    assert!(matches!(created, Created::Stored(_)), "{created:?}");
    id
}

/// Returns the stored payload of an id, or `None` if the session is not live.
fn payload(store: &dyn SessionStore, id: &SessionId) -> Option<Vec<u8>> {
    match store.read(id, Touch::No).unwrap() {
        Found::Live(stored) => Some(stored.payload.to_vec()),
        Found::Renewed | Found::Ended(_) | Found::Absent => None,
    }
}
