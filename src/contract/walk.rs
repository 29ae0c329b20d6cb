//! Checks of the walk over all sessions, and of ending sessions by their handles.
//!
//! The list of [checks](super::checks) names each function with its promise. A store that cannot walk has to report so, and passes.

use std::array;
use std::ops::ControlFlow;

use super::kit::{HOUR, Tested, assert_absent, assert_stored, comes_to, create, expire, hours_left, live, ok};
use super::principals::{create_for, handles, principal};
use crate::store::{EndedAll, Progress, SessionStore, Touch, Write};
use crate::{AllSessions, EndedByHandle, ErrorKind, FoundByHandle, Handle, HandlePrefix, SessionInfo};

/// The callback of an operation that runs to its end.
fn run_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Returns `false` if the store cannot walk. Then it reports so everywhere.
fn can_walk(store: &dyn SessionStore) -> bool {
    let Some(error) = store.walk().err() else { return true };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "a store that cannot walk reports so");
    let all = AllSessions::new(store);
    let kinds = all.iter().map(|session| session.map_err(|error| error.kind()));
    assert_eq!(kinds.collect::<Vec<_>>(), [Err(ErrorKind::Unsupported)], "a walk has one error and ends");
    let ended = all.end_by_handle(Handle::of_key(b"of no session"), run_on);
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::Unsupported));
    false
}

fn listed(store: &dyn SessionStore) -> Vec<SessionInfo> {
    AllSessions::new(store).iter().map(ok).collect()
}

pub(super) fn a_walk_finds_what_lives_once(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    if !can_walk(store) {
        return;
    }
    let [one, two, old, deleted, expired] = array::from_fn(|_| create(store, b"v", HOUR * 2));
    let (new, for_ever) = (store.fresh_id(Some(&old)), create(store, b"v", None));
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR * 3), None));
    let _ = live(store, &one, Touch::Set(HOUR * 4));
    assert!(ok(store.delete(&deleted)));
    expire(store, &[expired], wait);

    let own = [one, two, old, deleted, expired, new, for_ever].map(|id| store.handle(&id));
    let hours = |session: &SessionInfo| session.expires_in.map(|left| hours_left(store, left));
    let expected: [Vec<Option<u32>>; 7] =
        [vec![Some(4)], vec![Some(2)], vec![], vec![], vec![], vec![Some(3)], vec![None]];
    // Twice, because a walk must move no deadline.
    for _ in 0..2 {
        comes_to(expected.clone(), "each session is listed once, with the hours that it has left", || {
            let all = listed(store);
            own.map(|handle| all.iter().filter(|session| session.handle == handle).map(hours).collect())
        });
    }
    let all = AllSessions::new(store);
    let mut walk = all.iter();
    walk.by_ref().for_each(|session| assert!(ok(session).partition < store.partition_count()));
    let Progress { done, total } = walk.progress();
    assert!(done == total && total >= 4, "{done} of {total} after a walk over 4 sessions at least");
}

pub(super) fn a_walk_counts_what_lives(tested: &Tested<'_>) {
    let store = tested.store;
    if !can_walk(store) {
        return;
    }
    let all = AllSessions::new(store);
    comes_to(true, "three more sessions are counted, each in a partition", || {
        let before = ok(all.count());
        let _ = [HOUR, HOUR, HOUR * 2].map(|ttl| create(store, b"v", ttl));
        let counts = ok(all.count_by_partition());
        counts.len() == store.partition_count() as usize
            && counts.iter().sum::<u64>() == before + 3
            && ok(all.count()) == before + 3
    });
}

pub(super) fn a_handle_ends_its_session(tested: &Tested<'_>) {
    let store = tested.store;
    if !can_walk(store) {
        return;
    }
    let all = AllSessions::new(store);
    let ada = principal("ada");
    let create_hers =
        || if store.index().is_some() { create_for(store, &ada, None) } else { create(store, b"v", HOUR) };
    let [first, second, third, stays] = array::from_fn(|_| create_hers());
    let [one, two, three, other] = [first, second, third, stays].map(|id| store.handle(&id));

    assert_eq!(ok(all.end_by_handle(one, |_| ControlFlow::Break(()))), EndedByHandle::Interrupted);
    let _ = live(store, &first, Touch::No);
    assert_eq!(ok(all.end_by_handle(one, run_on)), EndedByHandle::Ended(one));
    assert_eq!(ok(all.end_by_handle(one, run_on)), EndedByHandle::AlreadyGone(one));
    let prefix: HandlePrefix = two.to_string()[..12].parse().expect("it is part of a handle");
    assert_eq!(ok(all.end_by_handle(prefix.clone(), run_on)), EndedByHandle::Ended(two));
    assert_eq!(ok(all.end_by_handle(prefix, run_on)), EndedByHandle::NoMatch);
    let FoundByHandle::One(found) = ok(all.find(three, run_on)) else { panic!("the session should be found") };
    assert!(ok(all.end(&found)), "the session lived");
    assert!(!ok(all.end(&found)), "the session ended before");

    for id in [&first, &second, &third] {
        assert_absent(store, id);
    }
    let _ = live(store, &stays, Touch::No);
    if let Some(index) = store.index() {
        assert_eq!(handles(index, &ada), [other], "the sessions leave the list of their principal");
    }
}

pub(super) fn ending_all_reports_its_progress(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    if !can_walk(store) {
        return;
    }
    let all = AllSessions::new(store);
    let [expired, renewed] = array::from_fn(|_| create(store, b"v", HOUR));
    let new = store.fresh_id(Some(&renewed));
    assert_stored(store.rotate(&renewed, &new, Write::new(b"v", HOUR), None));
    expire(store, &[expired], wait);
    let ids = [new, create(store, b"v", HOUR), create(store, b"v", None)];
    let mut last = Progress::default();
    let ended = ok(all.end_everybody(|progress| {
        last = progress;
        ControlFlow::Continue(())
    }));
    assert!(ended.ended >= 3 && !ended.interrupted, "{ended:?}, of 3 at least");
    assert!(last.done == last.total, "{last:?} at the end");
    for id in &ids {
        assert_absent(store, id);
    }
    assert_eq!(ok(all.end_everybody(run_on)), EndedAll::default(), "no session is left to end");
    assert_eq!(listed(store), [], "no session is left to list");
}
