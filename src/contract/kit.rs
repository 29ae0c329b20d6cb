//! What the checks have in common.

use std::fmt::Debug;
use std::sync::{Barrier, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use crate::store::{Created, Found, Saved, SessionStore, Stored, Touch, Version, Write};
use crate::{Error, SessionId, sync};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const SHORT: Duration = Duration::from_millis(10);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// Other runs of the suite in this process may be in the same store.
static RUNS: RwLock<()> = RwLock::new(());

/// While this is held others may use the store as well.
pub(super) fn beside_others() -> RwLockReadGuard<'static, ()> {
    sync::read(&RUNS)
}

/// While this is held no other run does: for what concerns the whole store.
pub(super) fn alone() -> RwLockWriteGuard<'static, ()> {
    sync::write(&RUNS)
}

/// Others who use the store may be in the way of a look at the whole of it, but not of every look.
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
        running.into_iter().map(|thread| thread.join().expect("it did not panic")).collect()
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

/// Lets the time of these sessions pass, which live.
#[track_caller]
pub(super) fn expire(store: &dyn SessionStore, ids: &[SessionId], wait: &dyn Fn(Duration)) {
    for id in ids {
        let _ = live(store, id, Touch::Set(SHORT));
    }
    wait(SHORT * 2);
}

/// Creates sessions of little time, and uses them before it has passed: with the first time that is not too short for
/// this machine. Lets that pass, and answers them.
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
        assert!(ttl < HOUR, "sessions were absent before their time had passed");
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

/// The time left is what was asked for, but for the minute that a slow machine may have taken.
#[track_caller]
pub(super) fn assert_left(stored: Stored, expected: Duration) {
    let left = stored.expires_in.unwrap_or_else(|| panic!("the time left is told"));
    let range = expected.saturating_sub(Duration::from_secs(60))..=expected;
    assert!(range.contains(&left), "{left:?} left of {expected:?}");
}
