//! Checks of principals, the owners of sessions.
//!
//! The list of [checks](super::checks) names each function with its promise. Every check makes its principals, so concurrent runs
//! do not meet.

use super::kit::{
    HOUR, SHORT, Tested, assert_absent, assert_created, assert_missing, assert_stored, at_once, is_live, live, ok,
};
use crate::store::{Bind, Created, Ending, Owned, Saved, SessionIndex, SessionStore, Touch, Write};
use crate::{ErrorKind, Handle, SessionId};

pub(super) fn principals_keep_their_sessions(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    let (ada, bob) = (principal("ada"), principal("bob"));
    let id = create_for(store, &ada, None);
    assert_eq!(handles(index, &ada), [store.handle(&id)]);
    let since = ok(index.list_by_principal(&ada))[0].since;
    assert_stored(store.save(&id, Write::new(b"2", HOUR), None));
    wait(SHORT);
    let (new, again) = (store.fresh_id(Some(&id)), Bind::To { principal: &ada, cap: None });
    assert_stored(store.rotate(&id, &new, Write::new(b"3", HOUR).with_bind(again), None));
    assert_eq!(handles(index, &ada), [store.handle(&new)]);
    let found = &ok(index.list_by_principal(&ada))[0];
    assert_eq!((&*found.payload, found.since), (b"3".as_slice(), since));

    let to_bob = Bind::To { principal: &bob, cap: None };
    assert_stored(store.save(&new, Write::new(b"4", HOUR).with_bind(to_bob), None));
    assert_eq!((handles(index, &ada), handles(index, &bob)), (vec![], vec![store.handle(&new)]));
    assert_stored(store.save(&new, Write::new(b"5", HOUR).with_bind(Bind::Unbind), None));
    assert_eq!(handles(index, &bob), []);
}

pub(super) fn principals_lose_what_ends(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    let ada = principal("ada");
    let [deleted, expired, stays] = std::array::from_fn(|_| create_for(store, &ada, None));
    assert!(ok(store.delete(&deleted)));
    let _ = live(store, &expired, Touch::Set(SHORT));
    wait(SHORT * 2);
    assert_eq!(handles(index, &ada), [store.handle(&stays)]);
}

pub(super) fn principals_end_their_sessions(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    let (ada, bob) = (principal("ada"), principal("bob"));
    let bobs = create_for(store, &bob, None);
    let [first, second, third] = std::array::from_fn(|_| create_for(store, &ada, None));
    assert_eq!(ok(index.end(&ada, Ending::Only(store.handle(&bobs)))), 0, "the session belongs to another principal");
    assert_eq!(ok(index.end(&ada, Ending::Only(store.handle(&first)))), 1);
    assert_absent(store, &first);
    assert_eq!(ok(index.end(&ada, Ending::AllExcept(&third))), 1);
    assert_absent(store, &second);
    assert_missing(store.save(&second, Write::new(b"late", HOUR), None));
    assert_eq!(handles(index, &ada), [store.handle(&third)]);
    assert_eq!(ok(index.end(&ada, Ending::All)), 1);
    assert_absent(store, &third);
    assert_eq!(ok(index.end(&ada, Ending::All)), 0);
    assert_eq!(handles(index, &bob), [store.handle(&bobs)]);
}

pub(super) fn principals_sessions_change_from_outside(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    let ada = principal("ada");
    let first = create_for(store, &ada, None);
    let mut ids = vec![first];
    for _ in 0..2 {
        let id = store.fresh_id(Some(&first));
        let write = Write::new(b"v", HOUR).with_bind(Bind::To { principal: &ada, cap: None });
        assert_created(store.create(&id, write));
        ids.push(id);
    }
    let Some(found) = owned(index, &ada) else { return };
    let handles_of = |found: &[Owned]| found.iter().map(|owned| owned.key.handle()).collect::<Vec<_>>();
    assert_eq!(handles_of(&found), [0, 1, 2].map(|at| store.handle(&ids[at])), "the first comes first");

    let _ = live(store, &ids[1], Touch::Set(HOUR * 5));
    let changed = assert_stored(store.save_key(&found[1].key, Write::new(b"changed", SHORT), &found[1].version));
    let stored = live(store, &ids[1], Touch::No);
    assert_eq!(&*stored.payload, b"changed");
    assert!(
        stored.expires_in.is_none_or(|left| left > HOUR * 4),
        "the deadline stays: {:?} are left",
        stored.expires_in
    );
    match ok(store.save_key(&found[1].key, Write::new(b"late", HOUR), &found[1].version)) {
        Saved::Conflict(theirs) => assert_eq!(&*theirs.payload, b"changed"),
        other => panic!("a change of another version was {other:?}"),
    }

    let new = store.fresh_id(Some(&ids[1]));
    assert_stored(store.rotate(&ids[1], &new, Write::new(b"renewed", HOUR), Some(&changed)));
    assert_missing(store.save_key(&found[1].key, Write::new(b"late", HOUR), &changed));
    assert!(ok(store.delete(&ids[2])));
    assert_missing(store.save_key(&found[2].key, Write::new(b"late", HOUR), &found[2].version));
    let again = owned(index, &ada).expect("the store can walk the sessions of a principal");
    assert_eq!(handles_of(&again), [store.handle(&first), store.handle(&new)]);
    assert_eq!((again[0].since, again[1].since), (found[0].since, found[1].since), "a renewed session keeps its place");
    let page = ok(index.owned_after(&ada, again[0].key.partition(), Some(again[0].since)));
    assert_eq!(handles_of(&page.sessions), [store.handle(&new)], "a page begins after a time");
}

/// Returns all sessions of a principal, page by page, or `None` if the store cannot walk them.
fn owned(index: &dyn SessionIndex, principal: &str) -> Option<Vec<Owned>> {
    let mut all = Vec::new();
    for partition in 0..index.partitions() {
        let mut after = None;
        loop {
            let page = match index.owned_after(principal, partition, after) {
                Err(error) if error.kind() == ErrorKind::Unsupported => return None,
                page => ok(page),
            };
            let Some(next) = page.next else { break };
            assert!(after.is_none_or(|after| next > after), "a page ends after the page before");
            after = Some(next);
            all.extend(page.sessions);
        }
    }
    Some(all)
}

pub(super) fn the_cap_ends_the_oldest(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    let ada = principal("ada");
    let ids = at_once(10, |_| create_for(store, &ada, Some(3)));
    let lives = ids.iter().filter(|id| is_live(store, id, Touch::No)).count();
    assert_eq!((lives, handles(index, &ada).len()), (3, 3));
}

pub(super) fn a_full_principal_gets_no_session(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    let (ada, within) = (principal("ada"), |principal| Bind::WithinCap { principal, cap: 3 });
    let create = |_| {
        let id = store.fresh_id(None);
        match ok(store.create(&id, Write::new(id.expose().as_bytes(), HOUR).with_bind(within(&ada)))) {
            Created::Stored(_) => Some(id),
            Created::OverCap => {
                assert_absent(store, &id);
                None
            }
            Created::Taken => panic!("the id is new"),
        }
    };
    // In several partitions, concurrent logins may all be admitted.
    let threads = if index.partitions() == 1 { 10 } else { 1 };
    let mut ids: Vec<SessionId> = at_once(threads, create).into_iter().flatten().collect();
    ids.extend((0..10).filter_map(create));
    assert_eq!((ids.len(), handles(index, &ada).len()), (3, 3), "the cap holds");

    let visitor = create_for(store, &principal("bob"), None);
    let [saved, new] =
        [Write::new(b"saved", HOUR), Write::new(b"renewed", HOUR)].map(|write| write.with_bind(within(&ada)));
    let other = store.fresh_id(Some(&visitor));
    assert!(matches!(ok(store.save(&visitor, saved, None)), Saved::OverCap), "a save is rejected");
    assert!(matches!(ok(store.rotate(&visitor, &other, new, None)), Saved::OverCap), "a rotation is rejected");
    assert_eq!(&*live(store, &visitor, Touch::No).payload, visitor.expose().as_bytes(), "a rejected session stays");
    assert_absent(store, &other);
    assert_stored(store.save(&ids[0], saved, None));
    let next = store.fresh_id(Some(&ids[0]));
    assert_stored(store.rotate(&ids[0], &next, new, None));
    assert!(ok(store.delete(&ids[1])));
    assert_stored(store.save(&visitor, saved, None));
    assert_eq!(handles(index, &ada).len(), 3);
}

pub(super) fn a_cap_of_zero_admits_no_session(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(principal);
    let [hers, visitor] = [&ada, &bob].map(|principal| create_for(store, principal, None));
    let within = |principal| Write::new(b"late", HOUR).with_bind(Bind::WithinCap { principal, cap: 0 });
    for full in [&ada, &eve] {
        let [id, new] = [None, Some(&visitor)].map(|beside| store.fresh_id(beside));
        let created = ok(store.create(&id, within(full)));
        assert!(matches!(created, Created::OverCap), "a login should be rejected: {created:?}");
        let saved =
            [store.save(&visitor, within(full), None), store.rotate(&visitor, &new, within(full), None)].map(ok);
        assert!(saved.iter().all(|saved| matches!(saved, Saved::OverCap)), "both should be rejected: {saved:?}");
        [id, new].iter().for_each(|id| assert_absent(store, id));
    }
    assert_stored(store.save(&hers, within(&ada), None));
    assert_eq!(handles(index, &ada), [store.handle(&hers)], "no session ends");
    assert_eq!(handles(index, &bob), [store.handle(&visitor)], "a rejected session keeps its principal");
}

pub(super) fn principals_are_unsupported(tested: &Tested<'_>) {
    let store = tested.store;
    let id = store.fresh_id(None);
    let write = Write::new(b"v", HOUR).with_bind(Bind::To { principal: "ada", cap: None });
    let error = store.create(&id, write).expect_err("a store without an index bound a session");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_absent(store, &id);
}

/// A principal that no other run of the suite uses.
pub(super) fn principal(name: &str) -> String {
    format!("{name} {}", SessionId::random().expose())
}

#[track_caller]
pub(super) fn create_for(store: &dyn SessionStore, principal: &str, cap: Option<u32>) -> SessionId {
    let id = store.fresh_id(None);
    let payload = id.expose();
    let write = Write::new(payload.as_bytes(), HOUR).with_bind(Bind::To { principal, cap });
    assert_created(store.create(&id, write));
    id
}

#[track_caller]
pub(super) fn handles(index: &dyn SessionIndex, principal: &str) -> Vec<Handle> {
    ok(index.list_by_principal(principal)).iter().map(|belonging| belonging.handle).collect()
}
