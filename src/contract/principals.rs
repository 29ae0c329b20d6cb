//! Whom sessions belong to.

use std::time::Duration;

use super::kit::{
    HOUR, SHORT, assert_absent, assert_created, assert_missing, assert_stored, at_once, is_live, live, ok,
};
use crate::store::{Bind, Ending, SessionIndex, SessionStore, Touch, Write};
use crate::{ErrorKind, Handle, SessionId};

/// A session belongs to whom it was bound to, through saves and rotations, until it is bound to another or to nobody.
pub fn principals_keep_their_sessions(store: &dyn SessionStore, index: &dyn SessionIndex, wait: &dyn Fn(Duration)) {
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
    assert_eq!(ok(index.end(&ada, Ending::AllExcept(&third))), 1);
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
    let lives = ids.iter().filter(|id| is_live(store, id, Touch::No)).count();
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
