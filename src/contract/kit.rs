//! The tools of the checks: the store under test, locks between runs, and assertions.
//!
//! Every check uses them. An assertion panics with the place of its caller, and [`run`](super::checks::run) adds the promise.

use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::{Barrier, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use crate::store::{Created, Found, Saved, SessionIndex, SessionStore, Stored, Touch, Version, Write};
use crate::{Error, Result, SessionId, sync};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const SHORT: Duration = Duration::from_millis(10);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// The store under test, as every check gets it.
#[derive(Clone, Copy)]
pub(super) struct Tested<'a> {
    pub(super) store: &'a dyn SessionStore,
    /// Lets time pass for the store.
    pub(super) wait: &'a dyn Fn(Duration),
    pub(super) declared: Option<&'a Declared>,
    /// The number of sessions that the store is bounded to.
    pub(super) bound: Option<usize>,
    /// Makes every later write fail.
    pub(super) refuse_writes: Option<&'a dyn Fn()>,
}

/// The companions that the suite made the store keep.
pub(super) struct Declared {
    pub(super) suffixes: [String; 2],
    /// The result of declaring a suffix a second time.
    pub(super) given_twice: Result<()>,
}

impl<'a> Tested<'a> {
    pub(super) fn new(store: &'a dyn SessionStore, wait: &'a dyn Fn(Duration)) -> Self {
        Self { store, wait, declared: None, bound: None, refuse_writes: None }
    }

    pub(super) fn bound(&self) -> usize {
        self.bound.expect("checks of bounds run with a bound")
    }

    /// Makes every later write fail.
    pub(super) fn refuse_writes(&self) {
        self.refuse_writes.expect("checks of refused writes can refuse them")();
    }

    pub(super) fn index(&self) -> &'a dyn SessionIndex {
        self.store.index().expect("the store has an index")
    }

    pub(super) fn suffixes(&self) -> [&'a str; 2] {
        self.declared().suffixes.each_ref().map(String::as_str)
    }

    pub(super) fn given_twice(&self) -> &'a Result<()> {
        &self.declared().given_twice
    }

    fn declared(&self) -> &'a Declared {
        self.declared.expect("checks of companions run after their declaration")
    }
}

/// Runs of the suite in this process may share a store: checks of single sessions hold it to read, checks of the whole store
/// to write.
static RUNS: RwLock<()> = RwLock::new(());

/// While the guard lives, other runs may use the store as well.
pub(super) fn beside_others() -> RwLockReadGuard<'static, ()> {
    sync::read(&RUNS)
}

/// While the guard lives, no other run uses the store.
pub(super) fn alone() -> RwLockWriteGuard<'static, ()> {
    sync::write(&RUNS)
}

/// Looks until it sees the expected value. Other users of the store can disturb one look at the whole store, but not every look.
#[track_caller]
pub(super) fn comes_to<V: PartialEq + Debug>(expected: V, what: &str, look: impl Fn() -> V) {
    let mut seen = look();
    for pause in 1..30 {
        if seen == expected {
            return;
        }
        thread::sleep(MILLISECOND * pause);
        seen = look();
    }
    assert_eq!(seen, expected, "{what}");
}

pub(super) fn at_once<R: Send>(threads: usize, act: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let (act, start) = (&act, &Barrier::new(threads));
    thread::scope(|scope| {
        let spawn = |n| {
            scope.spawn(move || {
                start.wait();
                act(n)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

#[track_caller]
pub(super) fn ok<O>(result: Result<O, Error>) -> O {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

#[track_caller]
pub(super) fn create(store: &dyn SessionStore, payload: &[u8], ttl: impl Into<Option<Duration>>) -> SessionId {
    let id = store.fresh_id(None);
    assert_created(store.create(&id, Write::new(payload, ttl)));
    id
}

/// Lets these live sessions expire.
#[track_caller]
pub(super) fn expire(store: &dyn SessionStore, ids: &[SessionId], wait: &dyn Fn(Duration)) {
    for id in ids {
        let _ = live(store, id, Touch::Set(SHORT));
    }
    wait(SHORT * 2);
}

/// Creates sessions with a short TTL, uses them before it has passed, and returns them after it has passed. If this machine is
/// too slow for a TTL, the function tries one that is twice as long.
#[track_caller]
pub(super) fn used_in_time<const N: usize>(
    wait: &dyn Fn(Duration),
    create: impl Fn(Duration) -> [SessionId; N],
    use_them: impl Fn(&mut [SessionId; N]) -> bool,
) -> [SessionId; N] {
    let mut ttl = SHORT;
    loop {
        let mut ids = create(ttl);
        if use_them(&mut ids) {
            wait(ttl * 2);
            return ids;
        }
        ttl *= 2;
        assert!(ttl < HOUR, "sessions were absent before their TTL had passed");
    }
}

#[track_caller]
pub(super) fn live(store: &dyn SessionStore, id: &SessionId, touch: Touch) -> Stored {
    match ok(store.read(id, touch)) {
        Found::Live(stored) => stored,
        other => panic!("the session should live: {other:?}"),
    }
}

#[track_caller]
pub(super) fn fails<O: Debug>(result: Result<O, Error>) -> Error {
    result.expect_err("it should fail")
}

#[track_caller]
pub(super) fn is_live(store: &dyn SessionStore, id: &SessionId, touch: Touch) -> bool {
    matches!(ok(store.read(id, touch)), Found::Live(_))
}

#[track_caller]
pub(super) fn is_stored(saved: Result<Saved, Error>) -> bool {
    matches!(ok(saved), Saved::Stored(_))
}

#[track_caller]
pub(super) fn assert_absent(store: &dyn SessionStore, id: &SessionId) {
    let found = ok(store.read(id, Touch::Set(HOUR)));
    assert!(matches!(found, Found::Absent), "the session should be absent: {found:?}");
}

#[track_caller]
pub(super) fn assert_created(created: Result<Created, Error>) {
    let created = ok(created);
    assert!(matches!(created, Created::Stored(_)), "it should be created: {created:?}");
}

#[track_caller]
pub(super) fn assert_stored(saved: Result<Saved, Error>) -> Version {
    match ok(saved) {
        Saved::Stored(version) => version,
        other => panic!("it should be stored: {other:?}"),
    }
}

#[track_caller]
pub(super) fn assert_missing(saved: Result<Saved, Error>) {
    let saved = ok(saved);
    assert!(matches!(saved, Saved::Missing), "there should be no session: {saved:?}");
}

#[track_caller]
pub(super) fn assert_conflict(saved: Result<Saved, Error>) -> Stored {
    match ok(saved) {
        Saved::Conflict(there) => there,
        other => panic!("it should be a conflict: {other:?}"),
    }
}

/// Returns by how much a deadline may be later than asked. Only a near cache moves it further, by a 64th of the TTL.
fn slack(store: &dyn SessionStore, ttl: Duration) -> Duration {
    if store.health().near_cache.is_some() { ttl / 64 } else { Duration::ZERO }
}

/// The time left is the expected TTL, less the minute that a slow machine may have taken.
#[track_caller]
pub(super) fn assert_left(store: &dyn SessionStore, stored: Stored, expected: Duration) {
    let left = stored.expires_in.unwrap_or_else(|| panic!("the session has no deadline"));
    let range = expected.saturating_sub(Duration::from_secs(60))..=expected + slack(store, expected);
    assert!(range.contains(&left), "{left:?} left of {expected:?}");
}

/// Returns the hours that a session has left, of which the last one has begun.
pub(super) fn hours_left(store: &dyn SessionStore, left: Duration) -> u32 {
    ((left - slack(store, left)).as_secs_f64() / HOUR.as_secs_f64()).ceil() as u32
}
