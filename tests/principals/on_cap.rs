//! Caps that reject the next login instead of ending the oldest session.

use threaded_sessions::{ErrorKind, MemorySessionStore, OnCap, Outcome, Session, SessionManager, SignIn};

use crate::{Fields, Room, Settings, at_once, in_each_room_with};

fn refuse_third(settings: Settings) -> Settings {
    settings.max_per_principal(2).on_cap(OnCap::Refuse)
}

fn fill(room: &Room) {
    room.login("ada", "phone");
    room.login("ada", "laptop");
}

fn sign_in(room: &Room, session: &mut Session<Fields>) -> SignIn {
    room.sessions.sign_in(session, "ada", "tablet").unwrap()
}

#[test]
fn login_beyond_cap_is_refused_at_once() {
    in_each_room_with(refuse_third, |room| {
        fill(&room);
        let mut visitor = room.sessions.fresh();
        assert_eq!(sign_in(&room, &mut visitor), SignIn::Refused);
        assert_eq!((visitor.principal(), visitor.is_new()), (None, true));
        assert_eq!(room.sessions.commit(visitor).unwrap().outcome(), Outcome::Unchanged);
        assert_eq!(room.labels("ada").len(), 2);
        assert_eq!(room.sessions.count().unwrap(), 2);

        // A session that has ended or expired makes room.
        let ended = room.sessions.list("ada").unwrap()[0].handle;
        assert!(room.sessions.end("ada", ended).unwrap());
        let mut visitor = room.sessions.fresh();
        assert_eq!(sign_in(&room, &mut visitor), SignIn::Done);
        let id = *visitor.id().unwrap();
        assert!(room.sessions.commit(visitor).unwrap().headers().any(|(name, _)| name == "Set-Cookie"));
        assert_eq!(sign_in(&room, &mut room.sessions.fresh()), SignIn::Refused);
        room.expire(&id);
        assert_eq!(sign_in(&room, &mut room.sessions.fresh()), SignIn::Done);
    });
}

#[test]
fn own_session_signs_in_at_full_cap() {
    in_each_room_with(refuse_third, |room| {
        fill(&room);
        let id = room.login("bob", "phone");
        assert_eq!(sign_in(&room, &mut room.open(&id)), SignIn::Refused);
        assert_eq!(room.open(&id).principal(), Some("bob"));
        let mut own = room.sessions.fresh();
        own.bind("bob", "laptop");
        let own = room.store(own);
        let mut session = room.open(&own);
        assert_eq!(room.sessions.sign_in(&mut session, "bob", "again").unwrap(), SignIn::Done);
        assert!(room.labels("bob").contains(&"again".to_owned()));
        assert!(!room.lives(&own));
    });
}

#[test]
fn refused_bind_stores_nothing_and_keeps_id() {
    in_each_room_with(refuse_third, |room| {
        fill(&room);
        type Ask = fn(&mut Session<Fields>);
        let asks: [Ask; 3] = [|_| (), Session::renew, Session::reset];
        for ask in asks {
            let mut session = room.sessions.fresh();
            session.insert("cart".into(), 1);
            let id = room.store(session);
            let mut session = room.open(&id);
            ask(&mut session);
            session.remember(true);
            session.insert("cart".into(), 2);
            session.bind("ada", "tablet");
            let committed = room.sessions.commit(session).unwrap();
            assert_eq!((committed.outcome(), committed.id()), (Outcome::Refused, Some(&id)));
            assert!(committed.outcome().is_lost());
            assert!(committed.headers().all(|(name, _)| name != "Set-Cookie"));
            let session = room.open(&id);
            assert_eq!((session["cart"], session.principal(), session.is_remembered()), (1, None, false));
        }
        let mut session = room.sessions.fresh();
        session.bind("ada", "tablet");
        let committed = room.sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Refused, None));
        assert_eq!(room.labels("ada").len(), 2);
    });
}

#[test]
fn refused_sign_in_keeps_pending_changes() {
    in_each_room_with(refuse_third, |room| {
        fill(&room);
        let mut session = room.sessions.fresh();
        session.insert("cart".into(), 1);
        let id = room.store(session);
        let mut session = room.open(&id);
        session.insert("cart".into(), 2);
        assert_eq!(sign_in(&room, &mut session), SignIn::Refused);
        session.bind("ada", "tablet");
        let updated = room.sessions.update_in(&mut session, |fields| fields.insert("cart".into(), 9)).unwrap();
        assert_eq!(updated, None);
        session.unbind();
        assert_eq!(room.store(session), id);
        let mut session = room.open(&id);
        assert_eq!((session["cart"], session.principal()), (2, None));
        assert_eq!(sign_in(&room, &mut session), SignIn::Refused);
        let committed = room.sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
    });
}

#[test]
fn concurrent_logins_fill_the_cap_exactly() {
    for room in [Room::new(MemorySessionStore::new(), refuse_third), Room::redis(|all| all, refuse_third)] {
        for _ in 0..5 {
            let logins = at_once(10, |_| sign_in(&room, &mut room.sessions.fresh()));
            assert_eq!(logins.iter().filter(|login| **login == SignIn::Done).count(), 2);
            assert_eq!(room.sessions.end_all("ada").unwrap(), 2);
        }
    }
}

#[test]
fn partitions_admit_only_logins_of_one_moment() {
    let room = Room::redis(|builder| builder.partitions(4), refuse_third);
    let logins = at_once(6, |_| sign_in(&room, &mut room.sessions.fresh()));
    let admitted = logins.iter().filter(|login| **login == SignIn::Done).count();
    assert!((2..=6).contains(&admitted), "{admitted} are admitted");
    assert_eq!(room.labels("ada").len(), admitted);
    assert_eq!(sign_in(&room, &mut room.sessions.fresh()), SignIn::Refused);
}

#[test]
fn sign_in_to_ended_session_is_lost() {
    in_each_room_with(refuse_third, |room| {
        let id = room.login("bob", "phone");
        let mut late = room.open(&id);
        let mut discarded = room.open(&id);
        discarded.discard();
        assert_eq!(sign_in(&room, &mut discarded), SignIn::Lost);
        room.destroy(&id);
        assert_eq!(sign_in(&room, &mut late), SignIn::Lost);
        assert_eq!(late.principal(), Some("bob"));
        assert_eq!(room.labels("ada"), [""; 0]);
    });
}

#[cfg(feature = "rouille")]
#[test]
fn refused_bind_is_a_409_in_an_adapter() {
    use rouille::{Request, Response};

    let room = Room::new(MemorySessionStore::new(), refuse_third);
    fill(&room);
    let request = Request::fake_http("GET", "/", vec![], vec![]);
    let response = threaded_sessions::rouille::session(&room.sessions, &request, |session| {
        session.bind("ada", "tablet");
        Response::text("welcome")
    });
    assert_eq!(response.status_code, 409);
}

#[test]
fn refusing_without_cap_is_misconfigured() {
    let built = SessionManager::<Fields>::builder(MemorySessionStore::new()).on_cap(OnCap::Refuse).build();
    assert_eq!(built.unwrap_err().kind(), ErrorKind::Misconfigured);
}
