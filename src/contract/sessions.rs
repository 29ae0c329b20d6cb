//! Checks of the operations on single sessions.
//!
//! The list of [checks](super::checks) names each function with its promise. Every check makes its sessions, so concurrent runs
//! do not meet.

use std::array;
use std::time::Duration;

use super::kit::{
    HOUR, SHORT, Tested, assert_absent, assert_conflict, assert_left, assert_missing, assert_stored, at_once, create,
    expire, fails, is_live, live, ok,
};
use super::principals::{create_for, handles, principal};
use crate::store::{Created, Found, MAX_TTL, Saved, Touch, Write};
use crate::{AllSessions, ErrorKind, SessionId};

pub(super) fn absent_is_an_outcome(tested: &Tested<'_>) {
    let store = tested.store;
    let id = store.fresh_id(None);
    assert_absent(store, &id);
    assert_missing(store.save(&id, Write::new(b"v", HOUR), None));
    assert_missing(store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"v", HOUR), None));
    assert!(!ok(store.delete(&id)), "an unknown id was deleted");
    assert_absent(store, &id);
}

pub(super) fn what_was_stored_is_read(tested: &Tested<'_>) {
    let store = tested.store;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![7; 100_000];
    for payload in [b"v".as_slice(), b"", &every_byte, &large] {
        let id = create(store, payload, HOUR);
        assert_eq!(&*live(store, &id, Touch::No).payload, payload);
    }
}

pub(super) fn create_never_overwrites(tested: &Tested<'_>) {
    let store = tested.store;
    let id = create(store, b"first", HOUR);
    let second = ok(store.create(&id, Write::new(b"second", HOUR)));
    assert!(matches!(second, Created::Taken), "{second:?}");
    assert_eq!(&*live(store, &id, Touch::No).payload, b"first");
}

pub(super) fn the_first_live_session_is_read(tested: &Tested<'_>) {
    let store = tested.store;
    let unknown = store.fresh_id(None);
    let ended = create(store, b"ended", HOUR);
    assert!(ok(store.delete(&ended)));
    let renewed = create(store, b"renewed", HOUR);
    assert_stored(store.rotate(&renewed, &store.fresh_id(Some(&renewed)), Write::new(b"v", HOUR), None));
    let [one, other] = [b"one".as_slice(), b"other"].map(|payload| create(store, payload, HOUR));
    let read = |ids: &[&SessionId], touch| {
        let ids: Vec<SessionId> = ids.iter().map(|id| **id).collect();
        let (at, found) = store.read_first(&ids, touch);
        let payload = match ok(found) {
            Found::Live(stored) => Some(stored.payload.to_vec()),
            Found::Renewed => Some(b"(renewed)".to_vec()),
            Found::Ended(_) | Found::Absent => None,
        };
        (at, payload)
    };
    for (ids, at, payload) in [
        (&[&one][..], 0, "one"),
        (&[&one, &other], 0, "one"),
        (&[&other, &one], 0, "other"),
        (&[&unknown, &one], 1, "one"),
        (&[&renewed, &one, &other], 1, "one"),
        (&[&unknown, &renewed, &ended, &other], 3, "other"),
        (&[&unknown, &ended, &unknown, &ended, &unknown, &other], 5, "other"),
        (&[&unknown, &renewed, &ended], 1, "(renewed)"),
        (&[&renewed, &unknown], 0, "(renewed)"),
        (&[&unknown, &ended, &renewed], 2, "(renewed)"),
    ] {
        for touch in [Touch::No, Touch::Set(HOUR), Touch::Extend(HOUR)] {
            assert_eq!(read(ids, touch), (at, Some(payload.as_bytes().to_vec())));
        }
    }
    assert_eq!(read(&[], Touch::No).1, None);
    assert_eq!(read(&[&unknown], Touch::No).1, None);
    assert_eq!(read(&[&unknown, &ended], Touch::Set(HOUR)).1, None);

    assert_eq!(read(&[&ended, &one, &other], Touch::Set(2 * HOUR)).0, 1);
    assert_left(store, live(store, &one, Touch::Extend(HOUR)), 2 * HOUR);
    assert_left(store, live(store, &other, Touch::Extend(HOUR)), HOUR);
}

pub(super) fn save_replaces(tested: &Tested<'_>) {
    let store = tested.store;
    let id = create(store, b"a long first payload", HOUR);
    assert_stored(store.save(&id, Write::new(b"short", HOUR), None));
    assert_eq!(&*live(store, &id, Touch::No).payload, b"short");
}

pub(super) fn save_never_brings_back(tested: &Tested<'_>) {
    let store = tested.store;
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

pub(super) fn save_if_unchanged(tested: &Tested<'_>) {
    let store = tested.store;
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

pub(super) fn a_version_names_one_write(tested: &Tested<'_>) {
    let store = tested.store;
    // The formats of this crate, with a revision at the beginning.
    let json =
        |revision: u64, data| format!("{{\"v\":1,\"rev\":{revision},\"created\":0,\"data\":{data}}}").into_bytes();
    let packed = |revision: u64| {
        [b"\x84\xa1v\x01\xa3rev\xcf", &revision.to_be_bytes()[..], b"\xa7created\x00\xa4data\x01"].concat()
    };
    let opaque = |end| [&[7; 1000][..], &[end]].concat();
    for [first, second] in [
        [json(12_345_678_901_234_567_890, 1), json(12_345_678_901_234_567_891, 1)],
        [json(1, 1), json(11, 1)],
        [packed(1), packed(2)],
        [opaque(1), opaque(2)],
    ] {
        let id = create(store, &first, HOUR);
        let outdated = live(store, &id, Touch::No).version;
        let current = live(store, &id, Touch::Set(HOUR * 2)).version;
        assert_stored(store.save(&id, Write::new(&second, HOUR), Some(&current)));
        let there = assert_conflict(store.save(&id, Write::new(b"third", HOUR), Some(&outdated)));
        assert_eq!(&*there.payload, second);
        let new = store.fresh_id(Some(&id));
        assert_conflict(store.rotate(&id, &new, Write::new(b"third", HOUR), Some(&outdated)));
        assert_stored(store.rotate(&id, &new, Write::new(b"third", HOUR), Some(&there.version)));
    }
    // No manager writes two payloads with one revision. A store may count them as one version, or as two.
    let id = create(store, &json(7, 1), HOUR);
    let version = live(store, &id, Touch::No).version;
    assert_stored(store.save(&id, Write::new(&json(7, 2), HOUR), Some(&version)));
    assert_eq!(&*live(store, &id, Touch::No).payload, json(7, 2), "the whole payload is replaced");
    let saved = ok(store.save(&id, Write::new(&json(8, 3), HOUR), Some(&version)));
    let there = match &saved {
        Saved::Stored(_) => json(8, 3),
        Saved::Conflict(_) => json(7, 2),
        Saved::Missing | Saved::OverCap => panic!("the session lives: {saved:?}"),
    };
    assert_eq!(&*live(store, &id, Touch::No).payload, there);
}

pub(super) fn rotate_moves(tested: &Tested<'_>) {
    let store = tested.store;
    let old = create(store, b"before", HOUR);
    let new = store.fresh_id(Some(&old));
    assert_stored(store.rotate(&old, &new, Write::new(b"after", HOUR), None));
    assert_eq!(&*live(store, &new, Touch::No).payload, b"after");
    assert!(matches!(ok(store.read(&old, Touch::Set(HOUR))), Found::Renewed), "the old id is not known as renewed");
    assert!(!ok(store.delete(&old)), "the old id lives");
}

pub(super) fn rotate_if_unchanged(tested: &Tested<'_>) {
    let store = tested.store;
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

pub(super) fn delete_ends(tested: &Tested<'_>) {
    let store = tested.store;
    let id = create(store, b"v", HOUR);
    assert!(ok(store.delete(&id)), "there was a session");
    assert_absent(store, &id);
    assert!(!ok(store.delete(&id)), "it was deleted twice");
    assert_missing(store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"late", HOUR), None));
}

pub(super) fn repeated_writes_know_their_own_success(tested: &Tested<'_>) {
    let store = tested.store;
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

pub(super) fn expiry_is_exact(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
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

pub(super) fn touch_moves_the_deadline(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let shortened = create(store, b"v", HOUR);
    let _ = live(store, &shortened, Touch::Set(SHORT));
    let lengthened = create(store, b"v", HOUR);
    assert_left(store, live(store, &lengthened, Touch::Set(HOUR * 3)), HOUR * 3);
    assert_left(store, live(store, &lengthened, Touch::Extend(HOUR)), HOUR * 3);
    assert_left(store, live(store, &lengthened, Touch::Extend(HOUR * 5)), HOUR * 5);
    let saved = create(store, b"v", HOUR);
    assert_stored(store.save(&saved, Write::new(b"w", SHORT), None));
    let for_ever = create(store, b"v", None);
    assert_eq!(live(store, &for_ever, Touch::Extend(SHORT)).expires_in, None);
    let no_more = create(store, b"v", HOUR);
    assert_stored(store.save(&no_more, Write::new(b"w", None), None));
    assert_eq!(live(store, &no_more, Touch::Extend(SHORT)).expires_in, None);
    let ending = create(store, b"v", None);
    assert_left(store, live(store, &ending, Touch::Set(SHORT)), SHORT);
    wait(SHORT * 2);
    for gone in [shortened, saved, ending] {
        assert_absent(store, &gone);
    }
    for lives in [lengthened, for_ever, no_more] {
        let _ = live(store, &lives, Touch::No);
    }
}

pub(super) fn peeks_tell_the_time_left(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let [lives, ends] = [HOUR, SHORT].map(|ttl| create(store, b"v", ttl));
    let for_ever = create(store, b"v", None);
    let left = live(store, &lives, Touch::Peek);
    assert_eq!(&*left.payload, b"v");
    assert_left(store, left, HOUR);
    assert_eq!(live(store, &for_ever, Touch::Peek).expires_in, None);
    let _ = ok(store.read(&ends, Touch::Peek));
    wait(SHORT * 2);
    let found = ok(store.read(&ends, Touch::Peek));
    assert!(matches!(found, Found::Absent), "a peek moved the deadline: {found:?}");
}

pub(super) fn touches_that_are_due_move_the_deadline(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let set = |ttl: u32, enough: u32| Touch::SetIfDue { ttl: HOUR * ttl, enough: HOUR * enough };
    let extend = |ttl: u32, enough: u32| Touch::ExtendIfDue { ttl: HOUR * ttl, enough: HOUR * enough };
    let id = create(store, b"v", HOUR * 3);
    for (touch, left) in [
        (set(4, 2), 3),
        (extend(4, 2), 3),
        (set(5, 3), 5),
        (set(4, 2), 4),
        (extend(3, 2), 4),
        (extend(6, 4), 6),
        (extend(3, 1), 6),
    ] {
        assert_left(store, live(store, &id, touch), HOUR * left);
        assert_left(store, live(store, &id, Touch::Peek), HOUR * left);
    }
    let for_ever = create(store, b"v", None);
    assert_eq!(live(store, &for_ever, extend(2, 1)).expires_in, None);
    assert_left(store, live(store, &for_ever, set(2, 1)), HOUR * 2);
    let due = create(store, b"v", HOUR);
    let _ = live(store, &due, Touch::SetIfDue { ttl: SHORT, enough: SHORT / 2 });
    wait(SHORT * 2);
    assert_absent(store, &due);
    let _ = live(store, &id, Touch::No);
}

pub(super) fn extreme_times_to_live(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let (at_once, touched) = (create(store, b"v", Duration::ZERO), create(store, b"v", HOUR));
    let _ = live(store, &touched, Touch::Set(Duration::ZERO));
    let (a_century, ages) = (create(store, b"v", MAX_TTL), create(store, b"v", Duration::MAX));
    assert_left(store, live(store, &a_century, Touch::Set(Duration::MAX)), MAX_TTL);
    wait(SHORT);
    assert_absent(store, &at_once);
    assert_absent(store, &touched);
    for lives in [a_century, ages] {
        assert_left(store, live(store, &lives, Touch::Extend(HOUR)), MAX_TTL);
    }
}

pub(super) fn one_of_many_writers_wins(tested: &Tested<'_>) {
    let store = tested.store;
    let id = create(store, b"start", HOUR);
    let start = live(store, &id, Touch::No).version;
    let outcomes = at_once(8, |n| ok(store.save(&id, Write::new(format!("by {n}").as_bytes(), HOUR), Some(&start))));
    let won = outcomes.iter().filter(|saved| matches!(saved, Saved::Stored(_))).count();
    assert_eq!(won, 1, "{outcomes:?}");
}

pub(super) fn one_of_many_rotations_wins(tested: &Tested<'_>) {
    let store = tested.store;
    let old = create(store, b"start", HOUR);
    let new: Vec<SessionId> = (0..8).map(|_| store.fresh_id(Some(&old))).collect();
    let outcomes =
        at_once(8, |n| ok(store.rotate(&old, &new[n], Write::new(format!("by {n}").as_bytes(), HOUR), None)));
    let won = outcomes.iter().filter(|saved| matches!(saved, Saved::Stored(_))).count();
    let lives = new.iter().filter(|id| is_live(store, id, Touch::No)).count();
    assert_eq!((won, lives), (1, 1), "{outcomes:?}");
}

pub(super) fn a_full_store_ends_no_session(tested: &Tested<'_>) {
    let store = tested.store;
    let mut ids: Vec<SessionId> = (0..tested.bound()).map(|_| create(store, b"v", HOUR)).collect();
    let refused = || {
        let error = fails(store.create(&store.fresh_id(None), Write::new(b"v", HOUR)));
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error:?}");
    };
    refused();
    // A session that changes or moves takes no more room.
    for id in &mut ids {
        assert_stored(store.save(id, Write::new(b"w", HOUR), None));
        let new = store.fresh_id(Some(id));
        assert_stored(store.rotate(id, &new, Write::new(b"x", HOUR), None));
        *id = new;
    }
    refused();
    for id in &ids {
        assert_eq!(&*live(store, id, Touch::No).payload, b"x", "it lived before the store was full");
    }
    assert!(ok(store.delete(&ids[0])));
    ids[0] = create(store, b"x", HOUR);
    refused();
    for id in &ids {
        assert!(ok(store.delete(id)));
    }
}

pub(super) fn reads_need_no_write(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let [lives, expired, deleted, old] = array::from_fn(|_| create(store, b"v", HOUR));
    let new = store.fresh_id(Some(&old));
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR), None));
    assert!(ok(store.delete(&deleted)));
    let ada = principal("ada");
    let hers = store.index().map(|_| [(); 2].map(|()| create_for(store, &ada, None)));
    expire(store, &[expired], wait);
    if let Some([_, expired]) = &hers {
        expire(store, &[*expired], wait);
    }

    tested.refuse_writes();
    fails(store.delete(&lives));
    fails(store.save(&lives, Write::new(b"late", HOUR), None));
    for touch in [Touch::No, Touch::Peek] {
        assert_eq!(&*live(store, &lives, touch).payload, b"v");
        assert_eq!(&*live(store, &new, touch).payload, b"w");
    }
    for gone in [&expired, &deleted] {
        let found = ok(store.read(gone, Touch::No));
        assert!(matches!(found, Found::Absent), "the session should be absent: {found:?}");
    }
    assert!(matches!(ok(store.read(&old, Touch::No)), Found::Renewed), "the old id is not known as renewed");
    let (at, found) = store.read_first(&[expired, deleted, lives], Touch::No);
    assert!(at == 2 && matches!(ok(found), Found::Live(_)), "the first live session has position {at}, not 2");
    if store.walk().is_ok() {
        let walked: Vec<_> = AllSessions::new(store).iter().map(|session| ok(session).handle).collect();
        assert!(walked.contains(&store.handle(&lives)), "a walk does not find a live session");
    }
    if let (Some(index), Some([hers, _])) = (store.index(), hers) {
        assert!(ok(index.count()) >= 3);
        let listed = ok(index.page(0, usize::MAX));
        assert!(listed.iter().any(|entry| entry.handle == store.handle(&lives)), "a live session is not listed");
        assert_eq!(handles(index, &ada), [store.handle(&hers)]);
    }
}
