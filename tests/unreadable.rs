//! A session that cannot be decoded must not lock its visitor out, and nothing may happen to it unless its visitor asks.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use log::Level;
use support::{PATIENCE, RedisServer, keep_logs, logged_by, shared, unique};
use threaded_sessions::observer::ObservedSession;
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{
    Committed, ErrorKind, MemorySessionStore, Observer, OnConflict, Outcome, RedisSessionStore, SessionId,
    SessionManager, SessionStore, Unreadable,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The types of an old and a new version of a program. The new version cannot read values of the old one.
type Before = SessionManager<String>;
type After = SessionManager<u32>;

/// Every kind of store, twice: for the old and for the new version.
fn on_each_store(test: impl Fn(&Before, &After)) {
    let memory = MemorySessionStore::new();
    test(&Before::new(memory.clone()), &After::new(memory));
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("unreadable")).deadline(PATIENCE);
        let store = if expiring { builder.expiring().build() } else { builder.build() }.unwrap();
        test(&Before::new(store.clone()), &After::new(store));
    }
}

fn store(before: &Before, principal: Option<&str>) -> SessionId {
    let mut session = before.fresh();
    *session = "a cart".to_owned();
    if let Some(principal) = principal {
        session.bind(principal, "laptop");
    }
    *before.commit(session).unwrap().id().unwrap()
}

fn cookies(ids: &[SessionId]) -> String {
    ids.iter().map(|id| format!("__Host-session={}", id.expose())).collect::<Vec<_>>().join("; ")
}

fn lives(before: &Before, id: &SessionId) -> bool {
    before.open_id(id).unwrap().is_some_and(|session| *session == "a cart")
}

fn clears_cookie(committed: &Committed) -> bool {
    committed.headers().any(|(name, value)| name == "Set-Cookie" && value.contains("Max-Age=0"))
}

#[test]
fn unreadable_session_is_left_alone_without_request() {
    on_each_store(|before, after| {
        let id = store(before, None);
        let header = cookies(&[id]);
        let kinds = [
            after.open([&*header]).map(drop),
            after.open_id(&id).map(drop),
            after.update(&id, |count| *count += 1).map(drop),
        ];
        assert!(kinds.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::Payload));
        // A sign-in with a wrong password stores nothing.
        let session = after.open_for_sign_in([&*header]).unwrap();
        assert!(session.is_new());
        let committed = after.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.headers().count()), (Outcome::Unchanged, 2));
        let mut session = after.open_for_sign_in([&*header]).unwrap();
        session.renew();
        session.discard();
        let _ = after.commit(session).unwrap();
        assert!(lives(before, &id));
    });
}

/// The new version of the program reads a session, the old version stores one that the new version cannot read, and the new
/// version wants to merge.
#[test]
fn unreadable_conflict_is_not_overwritten() {
    on_each_store(|before, after| {
        for renew in [false, true] {
            let mut session = after.fresh();
            *session = 1;
            let id = *after.commit(session).unwrap().id().unwrap();
            let mut session = after.open_id(&id).unwrap().unwrap();
            *session = 2;
            if renew {
                session.renew();
            }
            let payload = payload_of(before, &store(before, None));
            let _ = after.store().save(&id, Write::new(&payload, HOUR), None).unwrap();
            assert_eq!(after.commit(session).unwrap_err().kind(), ErrorKind::Payload, "{renew}");
            assert!(lives(before, &id), "{renew}");
        }
    });
}

fn payload_of(before: &Before, id: &SessionId) -> Vec<u8> {
    match before.store().read(id, Touch::No).unwrap() {
        Found::Live(stored) => stored.payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn discarding_ends_unreadable_session_and_clears_cookie() {
    on_each_store(|before, after| {
        let id = store(before, None);
        let header = cookies(&[id]);
        let discarded = after.discard_unreadable([&*header]).unwrap();
        assert_eq!((discarded.outcome(), clears_cookie(&discarded)), (Outcome::Destroyed, true));
        assert!(discarded.headers().any(|header| header == ("Cache-Control", "no-store")));
        assert!(!lives(before, &id) && after.open([&*header]).unwrap().is_new());
        let again = after.discard_unreadable([&*header]).unwrap();
        assert_eq!((again.outcome(), clears_cookie(&again)), (Outcome::Unchanged, false));
    });
}

#[test]
fn discarding_spares_readable_sessions() {
    on_each_store(|before, after| {
        let mut session = after.fresh();
        *session = 7;
        let (readable, unreadable) = (*after.commit(session).unwrap().id().unwrap(), store(before, None));
        for ids in [vec![readable], vec![readable, unreadable], vec![SessionId::random(), unreadable, readable]] {
            let discarded = after.discard_unreadable([&*cookies(&ids)]).unwrap();
            assert!(!clears_cookie(&discarded), "the readable session stays the visitor's");
            assert_eq!(*after.open([&*cookies(&ids)]).unwrap(), 7);
        }
        assert!(!lives(before, &unreadable));
        assert_eq!(after.discard_unreadable(None).unwrap().outcome(), Outcome::Unchanged);
    });
}

#[test]
fn sign_in_replaces_unreadable_session() {
    on_each_store(|before, after| {
        for renew in [true, false] {
            let id = store(before, None);
            let mut session = after.open_for_sign_in([&*cookies(&[id])]).unwrap();
            if renew {
                session.renew();
            }
            *session = 1;
            let committed = after.commit(session).unwrap();
            assert_eq!(committed.outcome(), Outcome::Stored);
            let new = *committed.id().unwrap();
            assert!(new != id && !lives(before, &id));
            // Whichever cookie the browser sends first.
            for ids in [[new, id], [id, new]] {
                assert_eq!(*after.open([&*cookies(&ids)]).unwrap(), 1);
            }
        }
    });
}

#[test]
fn login_prefers_live_session_to_unreadable_one() {
    on_each_store(|before, after| {
        let mut session = after.fresh();
        *session = 7;
        let (live, unreadable) = (*after.commit(session).unwrap().id().unwrap(), store(before, None));
        let mut session = after.open_for_sign_in([&*cookies(&[unreadable, live])]).unwrap();
        assert_eq!(*session, 7);
        session.renew();
        let _ = after.commit(session).unwrap();
        assert!(!lives(before, &unreadable) && after.open_id(&live).unwrap().is_none());
    });
}

#[test]
fn logout_ends_unreadable_sessions_of_other_cookies() {
    on_each_store(|before, after| {
        let mut session = after.fresh();
        *session = 7;
        let (live, unreadable) = (*after.commit(session).unwrap().id().unwrap(), store(before, None));
        let mut session = after.open([&*cookies(&[live, unreadable])]).unwrap();
        session.destroy();
        assert_eq!(after.commit(session).unwrap().outcome(), Outcome::Destroyed);
        assert!(!lives(before, &unreadable));
    });
}

#[test]
fn logout_ends_unreadable_session_without_another() {
    on_each_store(|before, after| {
        let id = store(before, None);
        let mut session = after.open_for_sign_in([&*cookies(&[id])]).unwrap();
        assert!(session.is_new());
        session.destroy();
        let committed = after.commit(session).unwrap();
        assert_eq!((committed.outcome(), clears_cookie(&committed)), (Outcome::Destroyed, true));
        assert!(!lives(before, &id));
    });
}

#[test]
fn principal_can_end_unreadable_sessions() {
    on_each_store(|before, after| {
        if after.store().index().is_none() {
            return;
        }
        let ids = [(); 3].map(|()| store(before, Some("ada")));
        assert!(after.end("ada", after.store().handle(&ids[0])).unwrap());
        assert!(!lives(before, &ids[0]) && lives(before, &ids[1]));
        let mut session = after.fresh();
        *session = 1;
        session.bind("ada", "phone");
        let own = *after.commit(session).unwrap().id().unwrap();
        let session = after.open_id(&own).unwrap().unwrap();
        assert_eq!(after.end_others(&session).unwrap(), 2);
        assert!(!lives(before, &ids[1]) && after.open_id(&own).unwrap().is_some());
        let id = store(before, Some("ada"));
        assert_eq!(after.end_all("ada").unwrap(), 2);
        assert!(!lives(before, &id));
        let id = store(before, Some("ada"));
        assert!(after.store().delete(&id).unwrap() && !lives(before, &id));
    });
}

#[cfg(feature = "encryption")]
#[test]
fn session_without_its_key_can_be_replaced() {
    use threaded_sessions::StepStore;
    use threaded_sessions::step::{Encrypted, EncryptionKey};

    let memory = MemorySessionStore::new();
    let with_key = |byte| {
        let key = EncryptionKey::from_bytes([byte; 32]);
        StepStore::builder(memory.clone()).step(Encrypted::new(key)).build().unwrap()
    };
    let (before, after) = (Before::new(with_key(1)), Before::new(with_key(2)));
    let (first, second) = (store(&before, None), store(&before, None));
    assert_eq!(after.open([&*cookies(&[first])]).unwrap_err().kind(), ErrorKind::Payload);
    assert_eq!(after.discard_unreadable([&*cookies(&[first])]).unwrap().outcome(), Outcome::Destroyed);
    let mut session = after.open_for_sign_in([&*cookies(&[second])]).unwrap();
    *session = "ada".to_owned();
    let committed = after.commit(session).unwrap();
    assert_eq!(*after.open_id(committed.id().unwrap()).unwrap().unwrap(), "ada");
    assert!(!lives(&before, &first) && !lives(&before, &second));
}

/// The server takes no writes, so the session whose lifetime is over cannot be deleted.
#[test]
fn failed_cleanup_does_not_fail_the_read() {
    let server = RedisServer::start();
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(server.url()).prefix(unique("over")).deadline(PATIENCE);
        let store = if expiring { builder.expiring().build() } else { builder.build() }.unwrap();
        let mut session = After::new(store.clone()).fresh();
        *session = 1;
        let id = *After::new(store.clone()).commit(session).unwrap().id().unwrap();
        let settings = After::builder(store.clone()).touch_on_read(false).lifetime(Duration::from_millis(1));
        let sessions = settings.build().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        assert!(store.delete(&id).is_err(), "it takes no writes");
        assert!(sessions.open([&*cookies(&[id])]).unwrap().is_new());
        assert!(sessions.open_id(&id).unwrap().is_none());
        server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        assert!(sessions.open_id(&id).unwrap().is_none());
        assert!(!store.delete(&id).unwrap(), "a later request deleted it");
    }
}

/// The cookie of a remembered session is past half its life, and Redis is full.
#[test]
fn failed_cookie_refresh_does_not_fail_request() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).build().unwrap();
    let clock = threaded_sessions::Clock::manual();
    let builder = After::builder(store).clock(clock.clone()).idle_timeout(HOUR).remember_for(24 * HOUR);
    let sessions = builder.on_conflict(OnConflict::Fail).build().unwrap();
    let mut session = sessions.fresh();
    *session = 1;
    session.remember(true);
    let id = *sessions.commit(session).unwrap().id().unwrap();
    clock.advance(13 * HOUR);
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let session = sessions.open_id(&id).unwrap().unwrap();
    let committed = sessions.commit(session).unwrap();
    assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
    assert_eq!(committed.headers().count(), 2, "no cookie that the session does not know of");
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    *session = 2;
    assert_eq!(sessions.commit(session).unwrap_err().kind(), ErrorKind::OutOfMemory, "a change is still refused");
    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    let committed = sessions.commit(sessions.open_id(&id).unwrap().unwrap()).unwrap();
    assert!(committed.headers().any(|(name, _)| name == "Set-Cookie"), "the next request sends it");
}

#[derive(Default)]
struct Unread(AtomicUsize);

impl Observer for Unread {
    fn on_unreadable(&self, _: &ObservedSession<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_unreadable_session_counts_but_few_warn() {
    keep_logs();
    let (memory, unread) = (MemorySessionStore::new(), Arc::new(Unread::default()));
    let before = Before::new(memory.clone());
    let after = SessionManager::<u32>::builder(memory).unreadable(Unreadable::StartFresh).observer(unread.clone());
    let after = after.build().unwrap();
    for _ in 0..20 {
        assert!(after.open([&*cookies(&[store(&before, None)])]).unwrap().is_new());
    }
    assert_eq!(unread.0.load(Ordering::Relaxed), 20);
    let logged = logged_by(thread::current().id());
    let count = |level| logged.iter().filter(|(found, text)| *found == level && text.contains("expire")).count();
    assert_eq!(count(Level::Debug), 20);
    assert!(count(Level::Warn) <= 1, "{logged:?}");
}
