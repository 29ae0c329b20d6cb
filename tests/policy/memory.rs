//! The memory store: expiry, its bound, and tombstones.

use std::sync::{Arc, Mutex};

use threaded_sessions::step::on_delete;
use threaded_sessions::store::{Created, Expired, Found, RENEWED_FOR, Saved, SessionIndex, SessionStore, Touch, Write};
use threaded_sessions::{
    Clock, ErrorKind, MemorySessionStore, Outcome, RedisSessionStore, SessionId, SessionManager, StepStore,
};

use super::support::{PATIENCE, eventually, shared, unique};
use super::{HOUR, MILLISECOND};

#[test]
fn expired_sessions_are_evicted_and_debug_counts_rest() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let holds = |sessions: usize| format!("{store:?}").contains(&format!("sessions: {sessions},"));
    for hours in [1, 2, 2, 3] {
        let id = store.fresh_id(None);
        let created = store.create(&id, Write::new(&[hours], HOUR * u32::from(hours))).unwrap();
        assert!(matches!(created, Created::Stored(_)));
    }
    assert!(holds(4), "{store:?}");
    clock.advance(HOUR - MILLISECOND);
    assert!(holds(4), "{store:?}");
    for left in [3, 1, 0] {
        clock.advance(if left == 3 { MILLISECOND } else { HOUR });
        assert!(holds(left), "{store:?}");
        assert_eq!(store.index().unwrap().count().unwrap(), left as u64);
    }
}

#[test]
fn tombstone_of_renewed_id_is_no_session() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone()).with_max_sessions(1);
    let sessions = SessionManager::<u32>::builder(store.clone()).clock(clock.clone()).build().unwrap();
    let mut session = sessions.fresh();
    *session = 1;
    let mut id = *sessions.commit(session).unwrap().id().unwrap();
    for _ in 0..10 {
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.renew();
        id = *sessions.commit(session).unwrap().id().unwrap();
        assert!(format!("{store:?}").contains("sessions: 1,"), "{store:?}");
    }
    clock.advance(RENEWED_FOR);
    assert!(sessions.open_id(&id).unwrap().is_some());
}

#[test]
fn renewal_is_remembered_longest_in_full_store() {
    let store = MemorySessionStore::new().with_max_sessions(2).remember_ends(HOUR);
    let sessions = SessionManager::<u32>::new(store);
    let create = || {
        let mut session = sessions.fresh();
        *session = 1;
        *sessions.commit(session).unwrap().id().unwrap()
    };
    for _ in 0..2 {
        let mut session = sessions.open_id(&create()).unwrap().unwrap();
        session.destroy();
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
    }
    let id = create();
    let [mut first, mut late] = [(); 2].map(|()| sessions.open_id(&id).unwrap().unwrap());
    first.renew();
    assert_eq!(sessions.commit(first).unwrap().outcome(), Outcome::Stored);
    late.destroy();
    assert_eq!(
        sessions.commit(late).unwrap().outcome(),
        Outcome::Detached,
        "the visitor is signed in under another id"
    );
}

#[test]
fn full_store_rejects_new_sessions_and_loses_none() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone()).with_max_sessions(2);
    let sessions = SessionManager::<u32>::builder(store.clone()).clock(clock.clone()).idle_timeout(HOUR);
    let sessions = sessions.build().unwrap();
    let create = |value| {
        let mut session = sessions.fresh();
        *session = value;
        sessions.commit(session).map(|committed| *committed.id().unwrap())
    };
    let (one, two) = (create(1).unwrap(), create(2).unwrap());
    let error = create(3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.kind().is_temporary());

    // Existing sessions still work.
    let mut changed = sessions.open_id(&one).unwrap().unwrap();
    *changed = 11;
    assert_eq!(sessions.commit(changed).unwrap().outcome(), Outcome::Stored);
    let mut renewed = sessions.open_id(&two).unwrap().unwrap();
    renewed.renew();
    let two = *sessions.commit(renewed).unwrap().id().unwrap();
    for (id, value) in [(&one, 11), (&two, 2)] {
        assert_eq!(*sessions.open_id(id).unwrap().unwrap(), value);
    }
    assert_eq!(create(3).unwrap_err().kind(), ErrorKind::OutOfMemory);

    // A session that ends or expires makes room.
    let mut left = sessions.open_id(&one).unwrap().unwrap();
    left.destroy();
    assert_eq!(sessions.commit(left).unwrap().outcome(), Outcome::Destroyed);
    clock.advance(MILLISECOND);
    create(4).unwrap();
    assert_eq!(create(5).unwrap_err().kind(), ErrorKind::OutOfMemory);
    clock.advance(HOUR - MILLISECOND);
    assert!(sessions.open_id(&two).unwrap().is_none());
    create(6).unwrap();
    assert_eq!(create(7).unwrap_err().kind(), ErrorKind::OutOfMemory);
}

fn create(store: &dyn SessionStore) -> SessionId {
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(b"v", HOUR)).unwrap(), Created::Stored(_)));
    id
}

/// All sessions that wait for a reaper.
fn waiting(store: &dyn SessionStore) -> Vec<Expired> {
    store.index().unwrap().reap(0, usize::MAX, true).unwrap().sessions
}

#[test]
fn bound_holds_for_waiting_expired_sessions() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone()).with_max_sessions(100);
    store.keep_expired();
    let mut newest = Vec::new();
    for _ in 0..200 {
        newest = (0..100).map(|_| create(&store)).collect();
        clock.advance(HOUR);
    }
    let handles: Vec<_> = waiting(&store).into_iter().map(|expired| expired.handle).collect();
    let newest: Vec<_> = newest.iter().map(|id| store.handle(id)).collect();
    assert_eq!(handles.len(), 100);
    assert!(handles.iter().all(|handle| newest.contains(handle)), "the newest ones wait");
}

#[test]
fn clone_with_smaller_bound_applies_its_own_bound() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    store.keep_expired();
    for _ in 0..10 {
        create(&store);
    }
    clock.advance(HOUR);
    create(&store.clone().with_max_sessions(4));
    assert_eq!(waiting(&store).len(), 3);
}

#[test]
fn end_of_reaper_drops_waiting_sessions() {
    let clock = Clock::manual();
    let inner = MemorySessionStore::new().with_clock(clock.clone());
    // The step wants to see expired sessions, even without a callback.
    let stepped = StepStore::builder(inner.clone()).step(on_delete(|operation, next| next.delete(operation)));
    let stores: [Arc<dyn SessionStore>; 2] = [Arc::new(inner.clone()), Arc::new(stepped.build().unwrap())];
    for store in stores {
        for has_callback in [true, false] {
            let sessions = SessionManager::<u32>::new(store.clone());
            let reaper = if has_callback { sessions.reaper().on_expired(|_| ()) } else { sessions.reaper() };
            let reaper = reaper.start().unwrap();
            let expire_one = || {
                create(&inner);
                clock.advance(HOUR);
                assert_eq!(inner.count().unwrap(), 0);
            };
            expire_one();
            assert_eq!(reaper.reap_now().unwrap(), 1);
            expire_one();
            reaper.stop();
            // The thread may take a moment to end.
            let is_dropped = || {
                expire_one();
                inner.reap(0, usize::MAX, false).unwrap().removed == 0
            };
            assert!(eventually(PATIENCE, is_dropped));
            assert_eq!(waiting(&inner).len(), 0);
            inner.stop_keeping_expired();
        }
    }
}

#[test]
fn remaining_reaper_keeps_waiting_sessions() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let reported = Arc::new(Mutex::new(0));
    let sessions = SessionManager::<u32>::builder(store.clone()).idle_timeout(HOUR).build().unwrap();
    let other = sessions.reaper().start().unwrap();
    let counted = reported.clone();
    let reaper = sessions.reaper().on_expired(move |_| *counted.lock().unwrap() += 1).start().unwrap();
    let mut session = sessions.fresh();
    *session = 1;
    let _ = sessions.commit(session).unwrap();
    clock.advance(HOUR);
    assert_eq!(store.count().unwrap(), 0);
    other.stop();
    assert_eq!(reaper.reap_now().unwrap(), 1);
    assert_eq!(*reported.lock().unwrap(), 1);
}

#[test]
fn bounded_store_remembers_the_latest_renewed_ids() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone()).with_max_sessions(3);
    let mut ids = vec![create(&store)];
    for _ in 0..10 {
        let (old, new) = (*ids.last().unwrap(), store.fresh_id(None));
        assert!(matches!(store.rotate(&old, &new, Write::new(b"v", HOUR), None).unwrap(), Saved::Stored(_)));
        ids.push(new);
        clock.advance(MILLISECOND);
    }
    let found: Vec<Found> = ids.iter().map(|id| store.read(id, Touch::No).unwrap()).collect();
    assert!(found[..7].iter().all(|found| matches!(found, Found::Absent)), "{found:?}");
    assert!(found[7..10].iter().all(|found| matches!(found, Found::Renewed)), "{found:?}");
    assert!(matches!(found[10], Found::Live(_)), "{found:?}");
}

#[test]
fn memory_and_redis_agree_on_versions() {
    let payload = |revision: u8, data: u8| format!("{{\"v\":1,\"rev\":{revision},\"data\":{data}}}").into_bytes();
    let redis = || RedisSessionStore::builder().url(shared().url()).prefix(unique("versions"));
    let stores: [Box<dyn SessionStore>; 3] = [
        Box::new(MemorySessionStore::new()),
        Box::new(redis().build().unwrap()),
        Box::new(redis().expiring().build().unwrap()),
    ];
    for store in stores {
        let id = store.fresh_id(None);
        let Created::Stored(version) = store.create(&id, Write::new(&payload(7, 1), HOUR)).unwrap() else { panic!() };
        // One revision is one version, whatever follows.
        let saved = store.save(&id, Write::new(&payload(7, 2), HOUR), None).unwrap();
        assert!(matches!(saved, Saved::Stored(_)), "{saved:?} in {store:?}");
        let saved = store.save(&id, Write::new(&payload(8, 3), HOUR), Some(&version)).unwrap();
        let Saved::Stored(version) = saved else { panic!("{saved:?} in {store:?}") };
        // The payload that is stored already, on its own version, moves the deadline.
        let saved = store.save(&id, Write::new(&payload(8, 3), HOUR * 3), Some(&version)).unwrap();
        assert!(matches!(saved, Saved::Stored(_)), "{saved:?} in {store:?}");
        let Found::Live(stored) = store.read(&id, Touch::Extend(HOUR)).unwrap() else { panic!() };
        assert!(stored.expires_in > Some(HOUR * 2), "{:?} in {store:?}", stored.expires_in);
        // Another revision is a conflict, and an earlier attempt with the same payload is not.
        let saved = store.save(&id, Write::new(&payload(9, 4), HOUR), None).unwrap();
        assert!(matches!(saved, Saved::Stored(_)));
        let saved = store.save(&id, Write::new(&payload(10, 5), HOUR), Some(&version)).unwrap();
        assert!(matches!(saved, Saved::Conflict(_)), "{saved:?} in {store:?}");
        let saved = store.save(&id, Write::new(&payload(9, 4), HOUR), Some(&version)).unwrap();
        assert!(matches!(saved, Saved::Stored(_)), "{saved:?} in {store:?}");
    }
}
