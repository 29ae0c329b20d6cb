use threaded_sessions::store::{Created, RENEWED_FOR, SessionStore, Write};
use threaded_sessions::{Clock, ErrorKind, MemorySessionStore, Outcome, SessionManager};

use super::{HOUR, MILLISECOND};

#[test]
fn what_has_expired_is_evicted_and_debug_shows_what_is_left() {
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
fn the_mark_of_a_renewed_id_is_no_session() {
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
fn a_full_store_refuses_new_sessions_and_loses_nobody() {
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

    // Those who are in go on as before.
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

    // Who leaves makes room, and so does who expires.
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
