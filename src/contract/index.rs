//! Checks of the index: counting, listing, reaping, verifying, and the end of all sessions.
//!
//! The list of [checks](super::checks) names each function with its promise. They run while no
//! other run of the suite uses the store, because they look at the whole store.

use std::array;
use std::time::Duration;

use super::kit::{
    HOUR, MILLISECOND, SHORT, Tested, assert_absent, assert_created, assert_missing, assert_stored, at_once, comes_to,
    create, expire, hours_left, is_live, is_stored, live, ok, used_in_time,
};
use super::principals::{create_for, handles, principal};
use super::sessions::expiry_is_exact;
use crate::SessionId;
use crate::store::{Bind, Ending, Entry, Expired, SessionIndex, SessionStore, Touch, Verified, VerifyOptions, Write};

pub(super) fn the_index_counts_what_lives(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    let difference = |act: &dyn Fn()| {
        let before = ok(index.count()) as i64;
        act();
        ok(index.count()) as i64 - before
    };
    comes_to(3, "three more sessions are counted", || {
        difference(&|| {
            for ttl in [Some(HOUR), None, Some(HOUR * 2)] {
                create(store, b"v", ttl);
            }
        })
    });
    comes_to(0, "a session that is saved, touched or renewed is one session", || {
        let id = create(store, b"1", HOUR);
        difference(&|| {
            assert_stored(store.save(&id, Write::new(b"2", HOUR), None));
            let _ = live(store, &id, Touch::Set(HOUR * 2));
            assert_stored(store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"3", HOUR), None));
        })
    });
    comes_to(-1, "a session that was deleted is not counted", || {
        let id = create(store, b"v", HOUR);
        difference(&|| assert!(ok(store.delete(&id))))
    });
    comes_to(-1, "a session that has expired is not counted", || {
        let id = create(store, b"v", HOUR);
        difference(&|| expire(store, &[id], wait))
    });
}

pub(super) fn the_index_lists_what_lives(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    let [two, three, five] = [2, 3, 5].map(|hours| create(store, b"v", HOUR * hours));
    let [touched, saved, old, deleted, expired] = array::from_fn(|_| create(store, b"v", HOUR));
    let (new, for_ever) = (store.fresh_id(Some(&old)), create(store, b"v", None));
    let _ = live(store, &touched, Touch::Set(HOUR * 6));
    assert_stored(store.save(&saved, Write::new(b"w", HOUR * 4), None));
    assert_stored(store.rotate(&old, &new, Write::new(b"w", HOUR * 7), None));
    assert!(ok(store.delete(&deleted)));
    expire(store, &[expired], wait);

    let order = [for_ever, new, touched, five, saved, three, two].map(|id| store.handle(&id));
    let gone = [old, deleted, expired].map(|id| store.handle(&id));
    let hours = [None, Some(7), Some(6), Some(5), Some(4), Some(3), Some(2)];
    let expected: Vec<_> = order.into_iter().zip(hours).collect();
    comes_to(expected, "sessions are listed with the hours that they have left", || {
        let own = |entry: &Entry| order.contains(&entry.handle) || gone.contains(&entry.handle);
        let listed = ok(index.page(0, usize::MAX)).into_iter().filter(own);
        listed.map(|entry| (entry.handle, entry.expires_in.map(|left| hours_left(store, left)))).collect()
    });
}

pub(super) fn pages_are_pieces_of_one_list(tested: &Tested<'_>) {
    let store = tested.store;
    let index = tested.index();
    for hours in 1..=7 {
        create(store, b"v", HOUR * hours);
    }
    let handles = |offset, limit| -> Vec<_> {
        let page = ok(index.page(offset, limit));
        assert!(page.len() <= limit, "{} sessions on a page of {limit}", page.len());
        page.into_iter().map(|entry| entry.handle).collect()
    };
    comes_to(None, "pages make up the whole list", || {
        let whole = handles(0, usize::MAX);
        let size = whole.len().div_ceil(3).max(1);
        let pieces: Vec<_> = (0..whole.len()).step_by(size).flat_map(|offset| handles(offset, size)).collect();
        (pieces != whole).then_some((whole, pieces))
    });
    assert_eq!(handles(0, 0), [], "on a page of none");
    assert_eq!(handles(usize::MAX, 10), [], "beyond the end");
}

pub(super) fn what_waits_for_a_reaper_is_absent(tested: &Tested<'_>) {
    tested.index().keep_expired();
    expiry_is_exact(tested);
    the_index_counts_what_lives(tested);
    the_index_lists_what_lives(tested);
}

pub(super) fn reaping_tells_what_expired_once(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let [idle, saved, old, deleted, lives, for_ever] = array::from_fn(|_| create_own(store, None, HOUR));
    let new = store.fresh_id(Some(&old));
    assert_stored(store.rotate(&old, &new, Write::new(own(&new).as_bytes(), HOUR), None));
    assert_stored(store.save(&saved, Write::new(again(&saved).as_bytes(), HOUR), None));
    assert_stored(store.save(&for_ever, Write::new(again(&for_ever).as_bytes(), None), None));
    assert!(ok(store.delete(&deleted)));
    expire(store, &[idle, saved, new], wait);
    let (removed, first) = reap(index, 1000, true);
    let (_, second) = reap(index, 1000, true);

    let ids = [idle, saved, new, old, deleted, lives, for_ever];
    let mut first = told(store, &first, &ids);
    first.sort_unstable();
    assert_eq!(first, [(0, own(&idle)), (1, again(&saved)), (2, own(&new))], "each expired session is reported");
    assert!(removed >= 3, "{removed} of 3 are counted as removed");
    assert_eq!(told(store, &second, &ids), [], "each session is reported once");
    for lives in [lives, for_ever] {
        let _ = live(store, &lives, Touch::No);
    }
}

pub(super) fn reaping_keeps_its_limit(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    // Other runs may have left overdue sessions.
    let _ = reap(index, 1000, false);
    let first = create_own(store, None, HOUR);
    // All five share a partition, because each partition has its own order.
    let ids: [SessionId; 5] = array::from_fn(|n| if n == 0 { first } else { create_own(store, Some(&first), HOUR) });
    for (id, later) in ids.iter().zip(0..) {
        let _ = live(store, id, Touch::Set(SHORT + MILLISECOND * later));
    }
    wait(SHORT * 2);
    let (_, expired) = reap(index, 2, true);
    let told: Vec<usize> = told(store, &expired, &ids).into_iter().map(|(position, _)| position).collect();
    assert_eq!(told, [0, 1, 2, 3, 4], "all are reported, the longest overdue first");
}

pub(super) fn reaping_tells_who_asks(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let ids = [(); 3].map(|()| create_own(store, None, HOUR));
    expire(store, &ids, wait);
    let (removed, unasked) = reap(index, 1000, false);
    let (_, later) = reap(index, 1000, true);
    assert!(removed >= 3, "{removed} of 3 are counted as removed");
    assert!(unasked.is_empty(), "payloads were returned without a request for them");
    assert_eq!(told(store, &later, &ids), [], "it was removed before");
}

pub(super) fn reaping_spares_what_was_used(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let create_some = |ttl| array::from_fn(|_| create_own(store, None, ttl));
    let ids = used_in_time(wait, create_some, |[touched, extended, saved, renewed]| {
        let (new, old) = (store.fresh_id(Some(renewed)), *renewed);
        *renewed = new;
        is_live(store, touched, Touch::Set(HOUR))
            && is_live(store, extended, Touch::Extend(HOUR))
            && is_stored(store.save(saved, Write::new(again(saved).as_bytes(), None), None))
            && is_stored(store.rotate(&old, &new, Write::new(own(&new).as_bytes(), HOUR), None))
    });
    // Another session takes the id of one that expired.
    let reused = create_own(store, None, HOUR);
    expire(store, &[reused], wait);
    assert_created(store.create(&reused, Write::new(b"another", HOUR)));

    let (_, expired) = reap(index, 1000, true);
    assert_eq!(told(store, &expired, &ids), [], "they were used in time");
    for id in ids.iter().chain([&reused]) {
        let _ = live(store, id, Touch::No);
    }
}

pub(super) fn a_reused_id_keeps_no_owner(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let (ada, bob) = (principal("ada"), principal("bob"));
    let [created, moved, bobs] = array::from_fn(|_| create_for(store, &ada, None));
    expire(store, &[created, moved, bobs], wait);

    let near = |id: &SessionId| store.fresh_id(Some(id));
    assert_created(store.create(&created, Write::new(b"another", HOUR)));
    let nobodys = near(&moved);
    assert_created(store.create(&nobodys, Write::new(b"1", HOUR)));
    assert_stored(store.rotate(&nobodys, &moved, Write::new(b"2", HOUR), None));
    let before = near(&bobs);
    assert_created(store.create(&before, Write::new(b"1", HOUR).with_bind(Bind::To { principal: &bob, cap: None })));
    assert_stored(store.rotate(&before, &bobs, Write::new(b"2", HOUR), None));

    assert_eq!(handles(index, &ada), [], "the sessions of ada have expired");
    assert_eq!(handles(index, &bob), [store.handle(&bobs)]);
    assert_eq!(ok(index.end(&ada, Ending::All)), 0, "the sessions of ada have expired");
    let ids = [created, moved, bobs];
    for (_, payload) in told(store, &reap(index, 1000, true).1, &ids) {
        assert!(ids.iter().any(|id| payload == own(id)), "a live session is reported as expired: {payload}");
    }
    for id in &ids {
        let _ = live(store, id, Touch::No);
    }
    comes_to(Verified::default(), "there is nothing to correct", || ok(index.verify(VerifyOptions::new())));
}

pub(super) fn keeping_can_be_taken_back(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let [before, lives] = array::from_fn(|_| create_own(store, None, HOUR));
    expire(store, &[before], wait);
    index.stop_keeping_expired();
    let after = create_own(store, None, HOUR);
    expire(store, &[after], wait);
    for gone in [&before, &after] {
        assert_absent(store, gone);
    }
    assert_eq!(live(store, &lives, Touch::No).payload, own(&lives));

    index.keep_expired();
    expire(store, &[lives], wait);
    let (_, expired) = reap(index, 1000, true);
    let told = told(store, &expired, &[before, after, lives]);
    assert!(
        told.contains(&(2, own(&lives))),
        "the reaper gets the session that expired after its announcement: {told:?}"
    );
}

/// Without an index no session waits for a reaper, and nothing is checked.
pub(super) fn a_bound_counts_what_waits_for_a_reaper(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let Some(index) = store.index() else { return };
    index.keep_expired();
    let bound = tested.bound();
    let mut newest = Vec::new();
    for _ in 0..3 {
        newest = (0..bound).map(|_| create_own(store, None, HOUR)).collect();
        expire(store, &newest, wait);
    }
    // One live session takes the room of one that waits.
    let lives = create_own(store, None, HOUR);
    let (removed, expired) = reap(index, 1000, true);
    assert!(removed < bound as u64, "{removed} sessions waited in a store of {bound} in which one lives");
    let told = told(store, &expired, &newest);
    assert_eq!(told.len(), expired.len(), "the sessions that expired last are reported");
    let _ = live(store, &lives, Touch::No);
}

pub(super) fn a_session_is_used_or_reaped(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let ids: Vec<SessionId> = (0..60).map(|_| create_own(store, None, HOUR)).collect();
    for (id, later) in ids.iter().zip(0..) {
        let _ = live(store, id, Touch::Set(SHORT + MILLISECOND * later));
    }
    // About half of the sessions expire.
    wait(SHORT + MILLISECOND * 30);
    let rounds = ids.len() / index.partitions().max(1) as usize + 1;
    let outcomes = at_once(2, |thread| match thread {
        0 => (ids.iter().map(|id| is_live(store, id, Touch::Set(HOUR))).collect(), Vec::new()),
        _ => (Vec::new(), (0..rounds).flat_map(|_| reap(index_of(store), 7, true).1).collect()),
    });
    let (used, expired): (Vec<Vec<bool>>, Vec<Vec<Expired>>) = outcomes.into_iter().unzip();
    let (used, expired) = (used.concat(), [expired.concat(), reap(index, 1000, true).1].concat());

    let mut told: Vec<usize> = told(store, &expired, &ids).into_iter().map(|(position, _)| position).collect();
    told.sort_unstable();
    let absent: Vec<usize> = (0..ids.len()).filter(|&position| !used[position]).collect();
    assert_eq!(told, absent, "the absent sessions are reported, and no others");
    for (id, _) in ids.iter().zip(used).filter(|(_, used)| *used) {
        let _ = live(store, id, Touch::No);
    }
}

pub(super) fn one_of_many_reapers_is_told(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let ids: Vec<SessionId> = (0..40).map(|_| create_own(store, None, HOUR)).collect();
    expire(store, &ids, wait);
    let expired = at_once(4, |_| reap(index_of(store), 3, true).1).concat();
    let mut told: Vec<usize> = told(store, &expired, &ids).into_iter().map(|(position, _)| position).collect();
    told.sort_unstable();
    assert_eq!(told, (0..ids.len()).collect::<Vec<_>>(), "each session is reported to one reaper");
}

pub(super) fn verifying_leaves_a_healthy_index_alone(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let ada = principal("ada");
    let (hers, for_ever, expired) =
        (create_for(store, &ada, None), create(store, b"v", None), create_own(store, None, HOUR));
    expire(store, &[expired], wait);
    // The first call may mend what other runs left.
    comes_to(Verified::default(), "there is nothing to correct", || ok(index.verify(VerifyOptions::new())));
    assert_eq!(handles(index, &ada), [store.handle(&hers)]);
    for id in [&hers, &for_ever] {
        let _ = live(store, id, Touch::No);
    }
    let ids = [expired, hers, for_ever];
    assert_eq!(
        told(store, &reap(index, 1000, true).1, &ids),
        [(0, own(&expired))],
        "the expired session still waits for a reaper"
    );
}

pub(super) fn ending_all_ends_what_lives(tested: &Tested<'_>) {
    let Tested { store, wait, .. } = *tested;
    let index = tested.index();
    index.keep_expired();
    let ada = principal("ada");
    let [expired, hers, renewed] = array::from_fn(|_| create_for(store, &ada, None));
    let new = store.fresh_id(Some(&renewed));
    assert_stored(store.rotate(&renewed, &new, Write::new(b"v", HOUR), None));
    expire(store, &[expired], wait);
    let ids = [expired, hers, new, create(store, b"v", HOUR), create(store, b"v", None)];
    let ended = ok(index.end_everybody());
    assert!(ended >= 4, "{ended} sessions ended, of 4 at least");
    for id in &ids {
        assert_absent(store, id);
        assert_missing(store.save(id, Write::new(b"late", HOUR), None));
    }
    assert_eq!(handles(index, &ada), [], "the sessions of a principal end as well");
    assert_eq!(ok(index.end_everybody()), 0, "no session is left to end");
    let told = told(store, &reap(index, 1000, true).1, &ids);
    assert_eq!(told, [(0, own(&expired))], "expired sessions are left to the reaper, and ended ones are not");
    assert!(is_live(store, &create_for(store, &ada, None), Touch::No), "a session that begins later is live");
}

/// A payload that identifies its session.
fn own(id: &SessionId) -> String {
    id.expose()
}

/// A second payload that identifies its session.
fn again(id: &SessionId) -> String {
    format!("{} again", id.expose())
}

#[track_caller]
fn create_own(store: &dyn SessionStore, beside: Option<&SessionId>, ttl: Duration) -> SessionId {
    let id = store.fresh_id(beside);
    assert_created(store.create(&id, Write::new(own(&id).as_bytes(), ttl)));
    id
}

/// Reaps all partitions until none has a backlog, `limit` sessions at a time. Returns the number of removed sessions and those
/// that the store reported.
#[track_caller]
fn reap(index: &dyn SessionIndex, limit: usize, payloads: bool) -> (u64, Vec<Expired>) {
    let (mut removed, mut told) = (0, Vec::new());
    for partition in 0..index.partitions().max(1) {
        for batch in 0.. {
            let reaped = ok(index.reap(partition, limit, payloads));
            let sessions = reaped.sessions.len() as u64;
            assert!(reaped.removed <= limit as u64, "{} were removed, and {limit} might be", reaped.removed);
            assert!(sessions <= reaped.removed, "{sessions} were told, and {} removed", reaped.removed);
            removed += reaped.removed;
            told.extend(reaped.sessions);
            if reaped.backlog == 0 {
                break;
            }
            assert!(batch < 100_000, "the backlog never ends");
        }
    }
    (removed, told)
}

/// Returns the position and the payload of each session in `expired` that is one of `ids`.
fn told(store: &dyn SessionStore, expired: &[Expired], ids: &[SessionId]) -> Vec<(usize, String)> {
    let handles: Vec<_> = ids.iter().map(|id| store.handle(id)).collect();
    let one = |expired: &Expired| {
        let position = handles.iter().position(|handle| *handle == expired.handle)?;
        Some((position, String::from_utf8_lossy(&expired.payload).into_owned()))
    };
    expired.iter().filter_map(one).collect()
}

/// Returns the index inside a thread. Threads can share a store, but not its index.
fn index_of(store: &dyn SessionStore) -> &dyn SessionIndex {
    store.index().expect("the store has an index")
}
