//! The settings of a near cache.
//!
//! Applications pass them to the builder of a Redis store. Invariant: a lease has an upper bound, so that a wrong unit is noticed
//! when the store is built.

use std::time::Duration;

use super::super::net::pool::RedisPool;
use super::Door;
use super::line::Service;
use crate::{Error, Result, operation};

/// The longest lease that a cache may have.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// The lease, unless configured otherwise.
const DEFAULT_LEASE: Duration = Duration::from_secs(1);

/// The bytes that entries may take, unless configured otherwise.
const DEFAULT_MAX_BYTES: u64 = 64 << 20;

/// Settings of a near cache: a copy of hot sessions in the process, for
/// [`RedisSessionStoreBuilder::near_cache`](crate::RedisSessionStoreBuilder::near_cache).
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use threaded_sessions::{NearCache, RedisSessionStore};
///
/// let cache = NearCache::new().lease(Duration::from_millis(500)).max_bytes(32 << 20);
/// let store = RedisSessionStore::builder().near_cache(cache).build()?;
/// # let _ = store;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct NearCache {
    lease: Duration,
    max_bytes: u64,
}

impl Default for NearCache {
    fn default() -> Self {
        Self { lease: DEFAULT_LEASE, max_bytes: DEFAULT_MAX_BYTES }
    }
}

impl NearCache {
    /// Creates the default settings: a lease of 1 second, and 64 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets for how long the cache may serve a session after Redis was last heard of, at most 1 hour. Defaults to 1 second.
    ///
    /// In normal operation a change elsewhere arrives within a millisecond. The lease is the bound if the network fails: no read
    /// that begins a lease after a change returns the session as it was before. A lease of zero serves nothing.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Sets how many bytes the entries may take, at least 1. Defaults to 64 MiB.
    ///
    /// An entry takes the bytes of its payload and its key, and about 150 more. The least useful entries give way.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Starts the cache of a store. The data of a session outlives it by `grace`.
    pub(in super::super) fn start(self, pool: &RedisPool, grace: Duration) -> Result<Door> {
        let rules = [
            (self.lease > LONGEST_LEASE, "the lease of the near cache must be at most 1 hour"),
            (self.max_bytes == 0, "`max_bytes` of the near cache must be at least 1"),
        ];
        Error::first_broken(operation::BUILD_STORE, rules)?;
        if pool.is_cluster() {
            let why = "a cluster has no near cache: leave `near_cache` out";
            return Err(Error::unsupported(operation::BUILD_STORE, why));
        }
        let server = pool.server_of(operation::BUILD_STORE, "")?;
        let service = Service::start(self.lease, self.max_bytes, grace, &server.manager)?;
        Ok(Door { cache: Some(service) })
    }
}
