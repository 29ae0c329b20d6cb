//! Sessions that a near cache serves.

use std::thread::sleep;
use std::time::Duration;

use threaded_sessions::store::{Found, NearCacheHealth, Touch};
use threaded_sessions::{SessionId, SessionStore};

use super::{PATIENCE, eventually};

/// Returns the figures of the cache.
#[track_caller]
pub fn near(store: &impl SessionStore) -> NearCacheHealth {
    store.health().near_cache.expect("the store has a cache")
}

/// Reads a session until the cache serves it. Its TTL is an hour then.
#[track_caller]
pub fn heat(store: &impl SessionStore, id: &SessionId) {
    let touch = Touch::Set(Duration::from_secs(3600));
    let read = || matches!(store.read(id, touch), Ok(Found::Live(_)));
    let is_hot = || {
        let before = near(store).hits;
        let found = read();
        sleep(Duration::from_millis(1));
        found && read() && near(store).hits == before + 2
    };
    assert!(eventually(PATIENCE, is_hot), "{:?}", near(store));
}

/// Returns `true` if the store reports that the session is gone.
pub fn is_gone(store: &impl SessionStore, id: &SessionId) -> bool {
    matches!(store.read(id, Touch::No), Ok(Found::Absent))
}
