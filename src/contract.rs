//! The test suite that every store has to pass, for stores of one's own as well.
//!
//! Each check is one sentence of the [contract](crate::store). [`all`] runs every one of them; a check that fails panics
//! and says what it saw.
//!
//! ```
//! use threaded_sessions::{Clock, MemorySessionStore, contract};
//!
//! let clock = Clock::manual();
//! let store = MemorySessionStore::new().with_clock(clock.clone());
//! contract::all(&store, |time| clock.advance(time));
//! ```

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::store::{
    Bind, Created, Ending, Found, MAX_TTL, Saved, SessionIndex, SessionStore, Stored, Touch, Version, Write,
};
use crate::{Error, ErrorKind, Handle, SessionId};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

/// Runs every check. `wait` lets this much time pass for the store: `thread::sleep`, or the advance of a clock.
///
/// # Panics
///
/// If the store breaks the contract.
pub fn all(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    absent_is_an_outcome(store);
    what_was_stored_is_read(store);
    create_never_overwrites(store);
    save_replaces(store);
    save_never_brings_back(store);
    save_if_unchanged(store);
    rotate_moves(store);
    rotate_if_unchanged(store);
    delete_ends(store);
    repeated_writes_know_their_own_success(store);
    expiry_is_exact(store, &wait);
    touch_moves_the_deadline(store, &wait);
    extreme_times_to_live(store, &wait);
    one_of_many_writers_wins(store);
    one_of_many_rotations_wins(store);
    if let Some(index) = store.index() {
        principals_keep_their_sessions(store, index, &wait);
        principals_lose_what_ends(store, index, &wait);
        principals_end_their_sessions(store, index);
        the_cap_ends_the_oldest(store, index);
    } else {
        principals_are_unsupported(store);
    }
}

/// Any operation on an id that never was answers that there is none.
pub fn absent_is_an_outcome(store: &dyn SessionStore) {
    let id = store.fresh_id(None);
    assert_absent(store, &id);
    assert_missing(store.save(&id, Write::new(b"v", HOUR), None));
    assert_missing(store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"v", HOUR), None));
    assert!(!ok(store.delete(&id)), "an unknown id was deleted");
    assert_absent(store, &id);
}

/// A payload comes back as it was, whatever bytes it has.
pub fn what_was_stored_is_read(store: &dyn SessionStore) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![7; 100_000];
    for payload in [b"v".as_slice(), b"", &every_byte, &large] {
        let id = create(store, payload, HOUR);
        assert_eq!(&*live(store, &id, Touch::No).payload, payload);
    }
}

/// A second session under the same id is refused, and the first stays.
pub fn create_never_overwrites(store: &dyn SessionStore) {
    let id = create(store, b"first", HOUR);
    let second = ok(store.create(&id, Write::new(b"second", HOUR)));
    assert!(matches!(second, Created::Taken), "{second:?}");
    assert_eq!(&*live(store, &id, Touch::No).payload, b"first");
}

/// A save replaces the whole payload.
pub fn save_replaces(store: &dyn SessionStore) {
    let id = create(store, b"a long first payload", HOUR);
    assert_stored(store.save(&id, Write::new(b"short", HOUR), None));
    assert_eq!(&*live(store, &id, Touch::No).payload, b"short");
}

/// After a session was deleted or renewed, a save under its id stores nothing, with or without a version.
pub fn save_never_brings_back(store: &dyn SessionStore) {
    let id = create(store, b"v", HOUR);
    let version = live(store, &id, Touch::No).version;
    assert!(ok(store.delete(&id)));
    assert_missing(store.save(&id, Write::new(b"late", HOUR), None));
    assert_missing(store.save(&id, Write::new(b"late", HOUR), Some(&version)));
    assert_absent(store, &id);

    let old = create(store, b"v", HOUR);
    let version = live(store, &old, Touch::No).version;
    let new = store.fresh_id(Some(&old));
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR), None));
    assert_missing(store.save(&old, Write::new(b"late", HOUR), None));
    assert_missing(store.save(&old, Write::new(b"late", HOUR), Some(&version)));
    assert!(matches!(ok(store.read(&old, Touch::No)), Found::Renewed));
    assert_eq!(&*live(store, &new, Touch::No).payload, b"w");
}

/// A save with a version succeeds while the session has it, and otherwise changes nothing and answers what is there.
pub fn save_if_unchanged(store: &dyn SessionStore) {
    let id = create(store, b"1", HOUR);
    let first = live(store, &id, Touch::No).version;
    let second = assert_stored(store.save(&id, Write::new(b"2", HOUR), Some(&first)));
    let there = assert_conflict(store.save(&id, Write::new(b"3", HOUR), Some(&first)));
    assert_eq!(&*there.payload, b"2");
    assert_eq!(&*live(store, &id, Touch::No).payload, b"2");
    assert_stored(store.save(&id, Write::new(b"4", HOUR), Some(&second)));
    let there = assert_conflict(store.save(&id, Write::new(b"5", HOUR), Some(&second)));
    assert_stored(store.save(&id, Write::new(b"6", HOUR), Some(&there.version)));
    assert_eq!(&*live(store, &id, Touch::No).payload, b"6");
}

/// After a rotation the new id lives, with the new payload, and the old id is known as renewed.
pub fn rotate_moves(store: &dyn SessionStore) {
    let old = create(store, b"before", HOUR);
    let new = store.fresh_id(Some(&old));
    assert_stored(store.rotate(&old, &new, Write::new(b"after", HOUR), None));
    assert_eq!(&*live(store, &new, Touch::No).payload, b"after");
    assert!(matches!(ok(store.read(&old, Touch::Set(HOUR))), Found::Renewed), "the old id is not known as renewed");
    assert!(!ok(store.delete(&old)), "the old id lives");
}

/// A rotation with a version that the session does not have changes nothing and answers what is there.
pub fn rotate_if_unchanged(store: &dyn SessionStore) {
    let old = create(store, b"1", HOUR);
    let first = live(store, &old, Touch::No).version;
    assert_stored(store.save(&old, Write::new(b"2", HOUR), None));
    let new = store.fresh_id(Some(&old));
    let there = assert_conflict(store.rotate(&old, &new, Write::new(b"3", HOUR), Some(&first)));
    assert_eq!(&*there.payload, b"2");
    assert_absent(store, &new);
    assert_stored(store.rotate(&old, &new, Write::new(b"4", HOUR), Some(&there.version)));
    assert_eq!(&*live(store, &new, Touch::No).payload, b"4");
}

/// A deleted session is gone, for every operation and at once.
pub fn delete_ends(store: &dyn SessionStore) {
    let id = create(store, b"v", HOUR);
    assert!(ok(store.delete(&id)), "there was a session");
    assert_absent(store, &id);
    assert!(!ok(store.delete(&id)), "it was deleted twice");
    assert_missing(store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"late", HOUR), None));
}

/// The same write sent again, as after a lost answer, succeeds again and changes nothing.
pub fn repeated_writes_know_their_own_success(store: &dyn SessionStore) {
    let id = create(store, b"1", HOUR);
    let again = ok(store.create(&id, Write::new(b"1", HOUR)));
    assert!(matches!(again, Created::Stored(_)), "{again:?}");

    let first = live(store, &id, Touch::No).version;
    for _ in 0..2 {
        assert_stored(store.save(&id, Write::new(b"2", HOUR), Some(&first)));
    }
    let second = live(store, &id, Touch::No).version;
    let new = store.fresh_id(Some(&id));
    for _ in 0..2 {
        assert_stored(store.rotate(&id, &new, Write::new(b"3", HOUR), Some(&second)));
    }
    assert_eq!(&*live(store, &new, Touch::No).payload, b"3");
}

/// A session whose time has passed is absent for every operation, and its id is free.
pub fn expiry_is_exact(store: &dyn SessionStore, wait: &dyn Fn(Duration)) {
    let (read, saved, rotated, created, deleted) = (
        create(store, b"v", SHORT),
        create(store, b"v", SHORT),
        create(store, b"v", SHORT),
        create(store, b"v", SHORT),
        create(store, b"v", SHORT),
    );
    let stays = create(store, b"v", HOUR);
    wait(SHORT * 2);
    assert_absent(store, &read);
    assert_missing(store.save(&saved, Write::new(b"late", HOUR), None));
    assert_absent(store, &saved);
    let new = store.fresh_id(Some(&rotated));
    assert_missing(store.rotate(&rotated, &new, Write::new(b"late", HOUR), None));
    assert_absent(store, &new);
    assert!(!ok(store.delete(&deleted)), "an expired session was deleted");
    let again = ok(store.create(&created, Write::new(b"w", HOUR)));
    assert!(matches!(again, Created::Stored(_)), "{again:?}");
    assert_eq!(&*live(store, &created, Touch::No).payload, b"w");
    assert_eq!(&*live(store, &stays, Touch::No).payload, b"v");
}

/// `Set` moves the deadline both ways, `Extend` only further away, a save moves it as it says, and no touch changes
/// anything.
pub fn touch_moves_the_deadline(store: &dyn SessionStore, wait: &dyn Fn(Duration)) {
    let shortened = create(store, b"v", HOUR);
    let _ = live(store, &shortened, Touch::Set(SHORT));
    let lengthened = create(store, b"v", HOUR);
    assert_left(live(store, &lengthened, Touch::Set(HOUR * 3)), HOUR * 3);
    assert_left(live(store, &lengthened, Touch::Extend(HOUR)), HOUR * 3);
    assert_left(live(store, &lengthened, Touch::Extend(HOUR * 5)), HOUR * 5);
    let saved = create(store, b"v", HOUR);
    assert_stored(store.save(&saved, Write::new(b"w", SHORT), None));
    let for_ever = create(store, b"v", None);
    assert_eq!(live(store, &for_ever, Touch::Extend(SHORT)).expires_in, None);
    let no_more = create(store, b"v", HOUR);
    assert_stored(store.save(&no_more, Write::new(b"w", None), None));
    assert_eq!(live(store, &no_more, Touch::Extend(SHORT)).expires_in, None);
    let ending = create(store, b"v", None);
    assert_left(live(store, &ending, Touch::Set(SHORT)), SHORT);
    wait(SHORT * 2);
    for gone in [shortened, saved, ending] {
        assert_absent(store, &gone);
    }
    for lives in [lengthened, for_ever, no_more] {
        let _ = live(store, &lives, Touch::No);
    }
}

/// A time to live of zero counts as a millisecond, one of ages as [`MAX_TTL`].
pub fn extreme_times_to_live(store: &dyn SessionStore, wait: &dyn Fn(Duration)) {
    let (at_once, touched) = (create(store, b"v", Duration::ZERO), create(store, b"v", HOUR));
    let _ = live(store, &touched, Touch::Set(Duration::ZERO));
    let (a_century, ages) = (create(store, b"v", MAX_TTL), create(store, b"v", Duration::MAX));
    assert_left(live(store, &a_century, Touch::Set(Duration::MAX)), MAX_TTL);
    wait(SHORT);
    assert_absent(store, &at_once);
    assert_absent(store, &touched);
    for lives in [a_century, ages] {
        assert_left(live(store, &lives, Touch::Extend(HOUR)), MAX_TTL);
    }
}

/// Of several that save at once expecting the same version, exactly one succeeds.
pub fn one_of_many_writers_wins(store: &dyn SessionStore) {
    let id = create(store, b"start", HOUR);
    let start = live(store, &id, Touch::No).version;
    let outcomes = at_once(8, |n| ok(store.save(&id, Write::new(format!("by {n}").as_bytes(), HOUR), Some(&start))));
    let won = outcomes.iter().filter(|saved| matches!(saved, Saved::Stored(_))).count();
    assert_eq!(won, 1, "{outcomes:?}");
}

/// Of several that rotate a session at once exactly one succeeds, and exactly one new id lives.
pub fn one_of_many_rotations_wins(store: &dyn SessionStore) {
    let old = create(store, b"start", HOUR);
    let new: Vec<SessionId> = (0..8).map(|_| store.fresh_id(Some(&old))).collect();
    let outcomes =
        at_once(8, |n| ok(store.rotate(&old, &new[n], Write::new(format!("by {n}").as_bytes(), HOUR), None)));
    let won = outcomes.iter().filter(|saved| matches!(saved, Saved::Stored(_))).count();
    let lives = new.iter().filter(|id| matches!(ok(store.read(id, Touch::No)), Found::Live(_))).count();
    assert_eq!((won, lives), (1, 1), "{outcomes:?}");
}

/// A session belongs to whom it was bound to, through saves and rotations, until it is bound to another or to nobody.
pub fn principals_keep_their_sessions(store: &dyn SessionStore, index: &dyn SessionIndex, wait: &dyn Fn(Duration)) {
    let (ada, bob) = (principal("ada"), principal("bob"));
    let id = create_for(store, &ada, None);
    assert_eq!(handles(index, &ada), [store.handle(&id)]);
    let since = ok(index.of(&ada))[0].since;
    assert_stored(store.save(&id, Write::new(b"2", HOUR), None));
    wait(SHORT);
    let (new, again) = (store.fresh_id(Some(&id)), Bind::To { principal: &ada, cap: None });
    assert_stored(store.rotate(&id, &new, Write::new(b"3", HOUR).with_bind(again), None));
    assert_eq!(handles(index, &ada), [store.handle(&new)]);
    let found = &ok(index.of(&ada))[0];
    assert_eq!((&*found.payload, found.since), (b"3".as_slice(), since));

    let to_bob = Bind::To { principal: &bob, cap: None };
    assert_stored(store.save(&new, Write::new(b"4", HOUR).with_bind(to_bob), None));
    assert_eq!((handles(index, &ada), handles(index, &bob)), (vec![], vec![store.handle(&new)]));
    assert_stored(store.save(&new, Write::new(b"5", HOUR).with_bind(Bind::Nobody), None));
    assert_eq!(handles(index, &bob), []);
}

/// A principal loses a session with the session itself, however it ends, and only then.
pub fn principals_lose_what_ends(store: &dyn SessionStore, index: &dyn SessionIndex, wait: &dyn Fn(Duration)) {
    let ada = principal("ada");
    let [deleted, expired, stays] = std::array::from_fn(|_| create_for(store, &ada, None));
    assert!(ok(store.delete(&deleted)));
    let _ = live(store, &expired, Touch::Set(SHORT));
    wait(SHORT * 2);
    assert_eq!(handles(index, &ada), [store.handle(&stays)]);
}

/// Ending a principal's sessions ends those that were meant, and no others.
pub fn principals_end_their_sessions(store: &dyn SessionStore, index: &dyn SessionIndex) {
    let (ada, bob) = (principal("ada"), principal("bob"));
    let bobs = create_for(store, &bob, None);
    let [first, second, third] = std::array::from_fn(|_| create_for(store, &ada, None));
    assert_eq!(ok(index.end(&ada, Ending::Only(store.handle(&bobs)))), 0, "it is another's");
    assert_eq!(ok(index.end(&ada, Ending::Only(store.handle(&first)))), 1);
    assert_absent(store, &first);
    assert_eq!(ok(index.end(&ada, Ending::AllBut(&third))), 1);
    assert_absent(store, &second);
    assert_missing(store.save(&second, Write::new(b"late", HOUR), None));
    assert_eq!(handles(index, &ada), [store.handle(&third)]);
    assert_eq!(ok(index.end(&ada, Ending::All)), 1);
    assert_absent(store, &third);
    assert_eq!(ok(index.end(&ada, Ending::All)), 0);
    assert_eq!(handles(index, &bob), [store.handle(&bobs)]);
}

/// Of several sessions bound at once to a principal with a cap, as many as the cap live.
pub fn the_cap_ends_the_oldest(store: &dyn SessionStore, index: &dyn SessionIndex) {
    let ada = principal("ada");
    let ids = at_once(10, |_| create_for(store, &ada, Some(3)));
    let lives = ids.iter().filter(|id| matches!(ok(store.read(id, Touch::No)), Found::Live(_))).count();
    assert_eq!((lives, handles(index, &ada).len()), (3, 3));
}

/// A store without an index refuses to bind a session, and stores nothing.
pub fn principals_are_unsupported(store: &dyn SessionStore) {
    let id = store.fresh_id(None);
    let write = Write::new(b"v", HOUR).with_bind(Bind::To { principal: "ada", cap: None });
    let error = store.create(&id, write).expect_err("it has no index");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_absent(store, &id);
}

/// A principal that no other run of the suite has.
fn principal(name: &str) -> String {
    format!("{name} {}", SessionId::random().expose())
}

#[track_caller]
fn create_for(store: &dyn SessionStore, principal: &str, cap: Option<u32>) -> SessionId {
    let id = store.fresh_id(None);
    let payload = id.expose();
    let write = Write::new(payload.as_bytes(), HOUR).with_bind(Bind::To { principal, cap });
    let created = ok(store.create(&id, write));
    assert!(matches!(created, Created::Stored(_)), "{created:?}");
    id
}

#[track_caller]
fn handles(index: &dyn SessionIndex, principal: &str) -> Vec<Handle> {
    ok(index.of(principal)).iter().map(|belonging| belonging.handle).collect()
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
        running.into_iter().map(|thread| thread.join().expect("it did not panic")).collect()
    })
}

#[track_caller]
fn ok<O>(result: Result<O, Error>) -> O {
    result.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

#[track_caller]
fn create(store: &dyn SessionStore, payload: &[u8], ttl: impl Into<Option<Duration>>) -> SessionId {
    let id = store.fresh_id(None);
    match ok(store.create(&id, Write::new(payload, ttl))) {
        Created::Stored(_) => id,
        taken => panic!("a fresh id is {taken:?}"),
    }
}

#[track_caller]
fn live(store: &dyn SessionStore, id: &SessionId, touch: Touch) -> Stored {
    match ok(store.read(id, touch)) {
        Found::Live(stored) => stored,
        other => panic!("the session should live: {other:?}"),
    }
}

#[track_caller]
fn assert_absent(store: &dyn SessionStore, id: &SessionId) {
    let found = ok(store.read(id, Touch::Set(HOUR)));
    assert!(matches!(found, Found::Absent), "the session should be absent: {found:?}");
}

#[track_caller]
fn assert_stored(saved: Result<Saved, Error>) -> Version {
    match ok(saved) {
        Saved::Stored(version) => version,
        other => panic!("it should be stored: {other:?}"),
    }
}

#[track_caller]
fn assert_missing(saved: Result<Saved, Error>) {
    let saved = ok(saved);
    assert!(matches!(saved, Saved::Missing), "there should be no session: {saved:?}");
}

#[track_caller]
fn assert_conflict(saved: Result<Saved, Error>) -> Stored {
    match ok(saved) {
        Saved::Conflict(there) => there,
        other => panic!("it should be a conflict: {other:?}"),
    }
}

/// The time left is what was asked for, but for the minute that a slow machine may have taken.
#[track_caller]
fn assert_left(stored: Stored, expected: Duration) {
    let left = stored.expires_in.unwrap_or_else(|| panic!("the time left is told"));
    let range = expected.saturating_sub(Duration::from_secs(60))..=expected;
    assert!(range.contains(&left), "{left:?} left of {expected:?}");
}
