//! What goes with a session.

use std::array;
use std::fmt::Debug;
use std::time::Duration;

use super::kit::{
    HOUR, SHORT, alone, assert_absent, assert_conflict, assert_created, assert_missing, assert_stored, create, expire,
    is_live, is_stored, live, ok, used_in_time,
};
use super::principals::{create_for, principal};
use crate::store::{Bind, Companion, Created, Ending, SessionStore, Touch, Write};
use crate::{Error, ErrorKind, SessionId};

/// Checks what the store does with [companions](Companion). It keeps two more of them from now on, so take a store that
/// nobody else has yet, and sessions that nobody else ends. If it keeps none, that is checked.
///
/// Not a part of [`all`](super::all), because a store may work in other ways once it has companions: run that before,
/// and once more after.
///
/// # Panics
///
/// If the store breaks the contract.
pub fn companions(store: &mut dyn SessionStore, wait: impl Fn(Duration)) {
    let _alone = alone();
    let suffixes = ["one", "two"].map(|name| format!("{name}-{}", SessionId::random().expose()));
    match store.keep_companions(&suffixes) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return companions_are_unsupported(store),
        kept => ok(kept),
    }
    suffixes_are_not_shared(store, &suffixes[1]);
    let suffixes = suffixes.each_ref().map(String::as_str);
    undeclared_companions_are_refused(store);
    companions_are_written_with_their_session(store, suffixes);
    companions_move_with_their_session(store, suffixes);
    refused_writes_leave_companions_alone(store, suffixes);
    companions_live_as_long_as_their_session(store, suffixes, &wait);
    companions_end_with_their_session(store, suffixes, &wait);
}

/// A companion that the store was not told to keep is refused, and with it the whole write.
pub fn undeclared_companions_are_refused(store: &dyn SessionStore) {
    let undeclared = [Companion::new("undeclared", "1")];
    let write = |payload| Write::new(payload, HOUR).with_companions(&undeclared);
    let id = store.fresh_id(None);
    assert_unsupported(store.create(&id, write(b"v")));
    assert_absent(store, &id);
    let id = create(store, b"v", HOUR);
    let new = store.fresh_id(Some(&id));
    assert_unsupported(store.save(&id, write(b"w"), None));
    assert_unsupported(store.rotate(&id, &new, write(b"w"), None));
    assert_eq!(&*live(store, &id, Touch::No).payload, b"v");
    assert_absent(store, &new);
}

/// A store that keeps no companions says so to who asks for one.
pub fn companions_are_unsupported(store: &dyn SessionStore) {
    let id = create(store, b"v", HOUR);
    assert_unsupported(store.companion(&id, "one"));
}

/// A suffix that somebody else was given is refused: each would take the other's companion for its own.
pub fn suffixes_are_not_shared(store: &mut dyn SessionStore, suffix: &str) {
    let error = store.keep_companions(&[suffix.to_owned()]).expect_err("the suffix is given away twice");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

/// A companion is written with its session, is read as it was written, and stays until it is written again.
pub fn companions_are_written_with_their_session(store: &dyn SessionStore, suffixes: [&str; 2]) {
    let [one, two] = suffixes;
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [&every_byte[..], b""] {
        let id = create_with(store, &[Companion::new(one.to_owned(), value)]);
        assert_eq!(read(store, &id, suffixes), [Some(value.to_vec()), None]);
    }
    let id = create_both(store, suffixes);
    assert_eq!(read(store, &id, suffixes), both());
    assert_stored(store.save(&id, Write::new(b"2", HOUR), None));
    let _ = live(store, &id, Touch::Set(HOUR * 2));
    assert_eq!(read(store, &id, suffixes), both(), "companions outlast a save without them");
    let version = live(store, &id, Touch::No).version;
    let changed = [Companion::new(two.to_owned(), "3")];
    assert_stored(store.save(&id, Write::new(b"3", HOUR).with_companions(&changed), Some(&version)));
    assert_eq!(read(store, &id, suffixes), [Some(b"1".to_vec()), Some(b"3".to_vec())], "one of two was replaced");
    let bare = create(store, b"v", HOUR);
    assert_eq!(read(store, &bare, suffixes), [None, None]);
    assert_eq!(read(store, &store.fresh_id(None), suffixes), [None, None], "there is no session");
}

/// Companions move to the new id with their session, but for those that are written anew.
pub fn companions_move_with_their_session(store: &dyn SessionStore, suffixes: [&str; 2]) {
    let old = create_both(store, suffixes);
    let new = store.fresh_id(Some(&old));
    let changed = [Companion::new(suffixes[1].to_owned(), "3")];
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR).with_companions(&changed), None));
    assert_eq!(read(store, &new, suffixes), [Some(b"1".to_vec()), Some(b"3".to_vec())], "under the new id");
    assert_eq!(read(store, &old, suffixes), [None, None], "under the old id");
}

/// A write that is not carried out changes no companion.
pub fn refused_writes_leave_companions_alone(store: &dyn SessionStore, suffixes: [&str; 2]) {
    let id = create_both(store, suffixes);
    let outdated = live(store, &id, Touch::No).version;
    assert_stored(store.save(&id, Write::new(b"2", HOUR), None));
    let new = store.fresh_id(Some(&id));
    let others = suffixes.map(|suffix| Companion::new(suffix.to_owned(), "another"));
    let write = |payload| Write::new(payload, HOUR).with_companions(&others);
    let taken = ok(store.create(&id, write(b"3")));
    assert!(matches!(taken, Created::Taken), "{taken:?}");
    assert_conflict(store.save(&id, write(b"4"), Some(&outdated)));
    assert_conflict(store.rotate(&id, &new, write(b"5"), Some(&outdated)));
    assert_missing(store.save(&new, write(b"6"), None));
    assert_eq!(read(store, &id, suffixes), both(), "nothing was written");
    assert_eq!(read(store, &new, suffixes), [None, None], "there is no session");
}

/// Whatever moves the deadline of a session moves that of its companions.
pub fn companions_live_as_long_as_their_session(
    store: &dyn SessionStore,
    suffixes: [&str; 2],
    wait: &dyn Fn(Duration),
) {
    let values = suffixes.map(|suffix| Companion::new(suffix.to_owned(), "1"));
    let create_some = |ttl| {
        array::from_fn(|_| {
            let id = store.fresh_id(None);
            assert_created(store.create(&id, Write::new(b"v", ttl).with_companions(&values)));
            id
        })
    };
    let lengthened = used_in_time(wait, create_some, |[touched, extended, saved, renewed]| {
        let (new, old) = (store.fresh_id(Some(renewed)), *renewed);
        *renewed = new;
        is_live(store, touched, Touch::Set(HOUR))
            && is_live(store, extended, Touch::Extend(HOUR))
            && is_stored(store.save(saved, Write::new(b"w", None), None))
            && is_stored(store.rotate(&old, &new, Write::new(b"w", HOUR), None))
    });
    for id in &lengthened {
        let value = Some(b"1".to_vec());
        assert_eq!(read(store, id, suffixes), [value.clone(), value], "companions live on with their session");
    }
    let [touched, saved] = array::from_fn(|_| create_both(store, suffixes));
    let _ = live(store, &touched, Touch::Set(SHORT));
    assert_stored(store.save(&saved, Write::new(b"w", SHORT), None));
    wait(SHORT * 2);
    for id in [&touched, &saved] {
        assert_eq!(read(store, id, suffixes), [None, None], "companions expire with their session");
    }
}

/// However a session ends, its companions end with it, and another one under its id has none.
pub fn companions_end_with_their_session(store: &dyn SessionStore, suffixes: [&str; 2], wait: &dyn Fn(Duration)) {
    let [deleted, expired] = array::from_fn(|_| create_both(store, suffixes));
    assert!(ok(store.delete(&deleted)));
    expire(store, &[expired], wait);
    let mut gone = vec![(deleted, "was deleted"), (expired, "has expired")];
    if let Some(index) = store.index() {
        index.keep_expired();
        let ada = principal("ada");
        let [ended, capped, reaped] = array::from_fn(|_| create_both(store, suffixes));
        expire(store, &[reaped], wait);
        for partition in 0..index.partitions().max(1) {
            while ok(index.reap(partition, 1000, false)).backlog > 0 {}
        }
        bind(store, &ended, &ada);
        assert_eq!(ok(index.end(&ada, Ending::All)), 1);
        bind(store, &capped, &ada);
        // Or both would be as old.
        wait(SHORT);
        let _ = create_for(store, &ada, Some(1));
        gone.extend([(ended, "was ended"), (capped, "was one too many"), (reaped, "was reaped")]);
    }
    for (id, why) in gone {
        assert_eq!(read(store, &id, suffixes), [None, None], "its session {why}");
        assert_created(store.create(&id, Write::new(b"another", HOUR)));
        assert_eq!(read(store, &id, suffixes), [None, None], "a session whose id is that of one that {why}");
    }
}

/// What [`create_both`] has.
fn both() -> [Option<Vec<u8>>; 2] {
    [Some(b"1".to_vec()), Some(b"2".to_vec())]
}

#[track_caller]
fn create_both(store: &dyn SessionStore, [one, two]: [&str; 2]) -> SessionId {
    create_with(store, &[Companion::new(one.to_owned(), "1"), Companion::new(two.to_owned(), "2")])
}

#[track_caller]
fn create_with(store: &dyn SessionStore, companions: &[Companion]) -> SessionId {
    let id = store.fresh_id(None);
    assert_created(store.create(&id, Write::new(b"1", HOUR).with_companions(companions)));
    id
}

#[track_caller]
fn read(store: &dyn SessionStore, id: &SessionId, suffixes: [&str; 2]) -> [Option<Vec<u8>>; 2] {
    suffixes.map(|suffix| ok(store.companion(id, suffix)))
}

#[track_caller]
fn bind(store: &dyn SessionStore, id: &SessionId, principal: &str) {
    let bind = Bind::To { principal, cap: None };
    assert_stored(store.save(id, Write::new(principal.as_bytes(), HOUR).with_bind(bind), None));
}

#[track_caller]
fn assert_unsupported<O: Debug>(result: Result<O, Error>) {
    let error = result.expect_err("it should be refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}
