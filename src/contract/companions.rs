//! Checks of companions, the values that go with a session.
//!
//! The list of [checks](super::checks) names each function with its promise. The checks write only to sessions and suffixes of
//! their own.

use std::array;
use std::fmt::Debug;

use super::kit::{
    HOUR, SHORT, Tested, assert_absent, assert_conflict, assert_created, assert_missing, assert_stored, create, expire,
    is_live, is_stored, live, ok, used_in_time,
};
use super::principals::{create_for, principal};
use crate::store::{Bind, Companion, Created, Ending, SessionStore, Touch, Write};
use crate::{Error, ErrorKind, SessionId};

pub(super) fn undeclared_companions_are_refused(tested: &Tested<'_>) {
    let store = tested.store;
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

pub(super) fn companions_are_unsupported(tested: &Tested<'_>) {
    let store = tested.store;
    let id = create(store, b"v", HOUR);
    assert_unsupported(store.companion(&id, "one"));
}

pub(super) fn suffixes_are_not_shared(tested: &Tested<'_>) {
    let error = tested.given_twice().as_ref().expect_err("the suffix is accepted twice");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

pub(super) fn companions_are_written_with_their_session(tested: &Tested<'_>) {
    let store = tested.store;
    let suffixes = tested.suffixes();
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

pub(super) fn companions_move_with_their_session(tested: &Tested<'_>) {
    let store = tested.store;
    let suffixes = tested.suffixes();
    let old = create_both(store, suffixes);
    let new = store.fresh_id(Some(&old));
    let changed = [Companion::new(suffixes[1].to_owned(), "3")];
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR).with_companions(&changed), None));
    assert_eq!(read(store, &new, suffixes), [Some(b"1".to_vec()), Some(b"3".to_vec())], "under the new id");
    assert_eq!(read(store, &old, suffixes), [None, None], "under the old id");
}

pub(super) fn refused_writes_leave_companions_alone(tested: &Tested<'_>) {
    let store = tested.store;
    let suffixes = tested.suffixes();
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

pub(super) fn companions_live_as_long_as_their_session(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let suffixes = tested.suffixes();
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

pub(super) fn a_reused_id_keeps_no_companions(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let suffixes = tested.suffixes();
    if let Some(index) = store.index() {
        index.keep_expired();
    }
    let expired = create_both(store, suffixes);
    expire(store, &[expired], wait);
    let moves = store.fresh_id(Some(&expired));
    let own = [Companion::new(suffixes[0].to_owned(), "3")];
    assert_created(store.create(&moves, Write::new(b"1", HOUR).with_companions(&own)));
    assert_stored(store.rotate(&moves, &expired, Write::new(b"2", HOUR), None));
    assert_eq!(read(store, &expired, suffixes), [Some(b"3".to_vec()), None], "a session has its own companions");
}

pub(super) fn companions_end_with_their_session(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let suffixes = tested.suffixes();
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
        // The next session must be newer, because the cap ends the oldest one.
        wait(SHORT);
        let _ = create_for(store, &ada, Some(1));
        gone.extend([(ended, "was ended"), (capped, "was one too many"), (reaped, "was reaped")]);
    }
    for (id, why) in gone {
        assert_eq!(read(store, &id, suffixes), [None, None], "its session {why}");
        assert_created(store.create(&id, Write::new(b"another", HOUR)));
        assert_eq!(read(store, &id, suffixes), [None, None], "a session under the id of a session that {why}");
    }
}

/// The companions that [`create_both`] writes.
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
    let error = result.expect_err("the call should be rejected");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}
