//! What a cache serves, what it asks for, and what it forgets.
//!
//! The [door](super::Door) calls it for each read and write. The [line](super::line) fills and invalidates the entries.
//!
//! Invariant: a read that begins after a write of this process returned never gets the session as it was before that write. In
//! a child of the process the cache is out of service, and no lock of it is taken.

use std::io;
use std::mem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::super::net::connector::RedisConnectionManager;
use super::super::net::error::Cause;
use super::super::net::push::PushConnection;
use super::super::version::version_of;
use super::entries::{Entries, Fill};
use super::lease::Lease;
use super::seen::Seen;
use super::waker::Waker;
use crate::process::Origin;
use crate::store::{NearCacheHealth, Stored, Touch, Version};
use crate::{Result, sync};

/// How often a write that waits for the announcements of its own changes looks whether the lease still holds.
const SETTLE_POLL: Duration = Duration::from_millis(5);

/// The number of requests that may wait for the thread.
const REQUESTS_MAX: usize = 1024;

/// What a read or a write asks of the thread.
pub(super) enum Request {
    /// To read a session, and to make an entry of it.
    Fill(Fill),
    /// To report when everything that the server did before is known here.
    Settle(SyncSender<()>),
}

pub(super) struct Cache {
    pub(super) entries: Entries,
    pub(super) lease: Lease,
    pub(super) waker: Waker,
    pub(super) manager: RedisConnectionManager,
    /// By how much the data of a session outlives it.
    pub(super) grace: Duration,
    pub(super) invalidations: AtomicU64,
    pub(super) is_stopped: AtomicBool,
    /// The generation of connections to a master that Sentinel names.
    pub(super) generation: AtomicU64,
    seen: Seen,
    requests: Mutex<Vec<Request>>,
    hits: AtomicU64,
    misses: AtomicU64,
    origin: Origin,
}

impl Cache {
    pub(super) fn new(
        lease: Duration,
        max_bytes: u64,
        grace: Duration,
        manager: &RedisConnectionManager,
    ) -> io::Result<Self> {
        Ok(Self {
            entries: Entries::new(max_bytes),
            lease: Lease::new(lease),
            waker: Waker::new()?,
            manager: manager.clone(),
            grace,
            invalidations: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            seen: Seen::new(max_bytes),
            requests: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            origin: Origin::here(),
        })
    }

    /// Returns a session from its entry, or from Redis.
    pub(super) fn read(
        &self,
        key: &str,
        touch: Touch,
        read: impl FnOnce(Touch) -> Result<Option<Stored>>,
    ) -> Result<Option<Stored>> {
        // Take the time first, so that a thread that is suspended in between finds an entry that was right when it began.
        let now = Instant::now();
        if !self.is_in_service(now) {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return read(touch);
        }
        if let Some(stored) = self.hit(key, touch, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(stored));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let hash = self.seen.hash(key.as_bytes());
        let sent = if self.seen.is_admitted(hash) { touch.if_due() } else { touch.with_slack() };
        let found = read(sent);
        // A fill that is under way may have read the deadline before this touch, so it comes to nothing.
        if !matches!(&found, Ok(Some(stored)) if sent.has_moved_nothing(stored.expires_in, now.elapsed())) {
            self.forget(key);
        }
        let Some(stored) = found? else { return Ok(None) };
        if self.seen.record(hash, version_of(&stored.payload).as_bytes())
            && let Some(fill) = self.entries.begin(key, &stored.payload)
        {
            self.request(Request::Fill(fill));
        }
        Ok(Some(Stored { expires_in: touch.reported(stored.expires_in), ..stored }))
    }

    /// Returns a session from its entry, unless it must be touched. Then the entry is dropped, so that only one request touches it.
    fn hit(&self, key: &str, touch: Touch, now: Instant) -> Option<Stored> {
        let entry = self.entries.get(key)?;
        match entry.left(now) {
            Some(left) if !touch.is_due(left) => {
                let version = Version(entry.payload.clone());
                Some(Stored { payload: entry.payload, version, expires_in: touch.reported(left) })
            }
            _ => {
                self.entries.invalidate(key);
                None
            }
        }
    }

    /// Drops a session, because this process writes it or wants to know.
    pub(super) fn forget(&self, key: &str) {
        if self.origin.is_here() {
            self.entries.forget(key);
        }
    }

    /// Waits until the changes that the server has made so far are known here, or until nothing is served any more.
    pub(super) fn settle(&self) {
        if !self.is_in_service(Instant::now()) {
            return self.clear();
        }
        let (done, is_done) = mpsc::sync_channel(1);
        self.request(Request::Settle(done));
        while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(SETTLE_POLL) {
            if !self.lease.holds(Instant::now()) {
                return self.clear();
            }
        }
    }

    /// Forgets all entries. Otherwise a lease that is renewed before the changes are known would serve them again.
    fn clear(&self) {
        if self.origin.is_here() {
            self.entries.clear();
        }
    }

    /// Returns the figures. In a child of the process the cache is out of service, and nothing is known of its entries.
    pub(super) fn health(&self) -> NearCacheHealth {
        if !self.origin.is_here() {
            return NearCacheHealth { out_of_service_for: Some(Duration::ZERO), ..NearCacheHealth::default() };
        }
        NearCacheHealth {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
            entries: self.entries.len() as u64,
            out_of_service_for: self.lease.lapsed_for(),
        }
    }

    /// Returns the reason why the server or the user cannot serve a cache, if there is one.
    pub(super) fn check(&self) -> Option<String> {
        PushConnection::tracker(&self.manager).err().map(|error| Cause::of(&error).to_string())
    }

    /// Takes the requests that wait.
    pub(super) fn take_requests(&self) -> Vec<Request> {
        mem::take(&mut *sync::lock(&self.requests))
    }

    /// Takes the cache out of service, because the connection failed: the server forgets then what it would have to announce.
    pub(super) fn leave_service(&self) {
        self.lease.end();
        // Drop the requests before the fills. A fill that begins in between is asked for on the next connection.
        drop(self.take_requests());
        self.entries.clear();
    }

    fn is_in_service(&self, now: Instant) -> bool {
        self.origin.is_here()
            && self.lease.holds(now)
            && self.manager.leads_to_master_of(self.generation.load(Ordering::Acquire))
    }

    fn request(&self, request: Request) {
        let mut requests = sync::lock(&self.requests);
        if let (Request::Fill(_), true) = (&request, requests.len() >= REQUESTS_MAX) {
            drop(requests);
            if let Request::Fill(fill) = request {
                self.entries.finish(fill, None);
            }
            return;
        }
        requests.push(request);
        drop(requests);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn read(cache: &Cache, touch: Touch, left: Duration) {
        let found = Stored::new(&b"payload"[..], Version::new(&b"payload"[..]), Some(left));
        assert!(cache.read("key", touch, |_| Ok(Some(found))).unwrap().is_some());
    }

    fn next_fill(cache: &Cache) -> Option<Fill> {
        cache.take_requests().into_iter().find_map(|request| match request {
            Request::Fill(fill) => Some(fill),
            Request::Settle(_) => None,
        })
    }

    #[test]
    fn lapsed_lease_serves_no_entry_after_a_change() {
        let manager = RedisConnectionManager::open("redis://127.0.0.1:1").unwrap();
        let cache = Cache::new(HOUR, 1 << 20, Duration::ZERO, &manager).unwrap();
        cache.lease.renew(Instant::now());
        (0..2).for_each(|_| read(&cache, Touch::No, 3 * HOUR));
        let fill = next_fill(&cache).expect("the second read admits");
        cache.entries.finish(fill, Some(Some(Instant::now() + 3 * HOUR)));
        assert!(cache.entries.get("key").is_some());
        cache.lease.end();
        cache.settle();
        cache.lease.renew(Instant::now());
        assert!(cache.entries.get("key").is_none(), "the change may have ended the session");
    }

    #[test]
    fn own_touch_ends_a_fill_under_way() {
        let manager = RedisConnectionManager::open("redis://127.0.0.1:1").unwrap();
        let touch = Touch::SetIfDue { ttl: 5 * HOUR, enough: 3 * HOUR };
        for (left, is_ended) in [(5 * HOUR, true), (4 * HOUR, false)] {
            let cache = Cache::new(HOUR, 1 << 20, Duration::ZERO, &manager).unwrap();
            cache.lease.renew(Instant::now());
            (0..2).for_each(|_| read(&cache, Touch::No, 3 * HOUR));
            let under_way = next_fill(&cache).expect("the second read admits");
            read(&cache, touch, left);
            cache.entries.finish(under_way, Some(Some(Instant::now() + 3 * HOUR)));
            assert_eq!(cache.entries.get("key").is_none(), is_ended, "{left:?}");
            assert_eq!(next_fill(&cache).is_some(), is_ended, "{left:?}");
        }
    }
}
