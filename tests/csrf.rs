//! Tokens against forged requests: a token is valid for one session only, and a forged request stores nothing.

mod support;

use std::sync::{Arc, Barrier};
use std::thread;

use support::{Monitor, RedisServer, shared, unique};
use threaded_sessions::{
    ErrorKind, MemorySessionStore, Outcome, RedisSessionStore, Session, SessionId, SessionManager, SessionStore,
};

type Visits = SessionManager<u32>;

fn on_each_store(test: impl Fn(&Visits)) {
    let redis = |expiring: bool| {
        let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("csrf"));
        Arc::new(if expiring { builder.expiring().partitions(4) } else { builder }.build().unwrap())
            as Arc<dyn SessionStore>
    };
    for store in [Arc::new(MemorySessionStore::new()) as Arc<dyn SessionStore>, redis(false), redis(true)] {
        test(&SessionManager::new(store));
    }
}

fn stored(sessions: &Visits) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    *sessions.commit(session).unwrap().id().unwrap()
}

fn open(sessions: &Visits, id: &SessionId) -> Session<u32> {
    sessions.open_id(id).unwrap().expect("it lives")
}

/// The pattern that races with a token in the value: four pages of one visitor at once, right after each of 200 logins.
#[test]
fn parallel_pages_after_login_have_valid_forms() {
    const PAGES: usize = 4;
    on_each_store(|sessions| {
        for _ in 0..200 {
            let before = stored(sessions);
            let stale = open(sessions, &before).csrf_token().unwrap();
            let mut login = open(sessions, &before);
            login.renew();
            let after_login = login.csrf_token().unwrap();
            let id = *sessions.commit(login).unwrap().id().unwrap();

            let start = Barrier::new(PAGES);
            let page = || {
                start.wait();
                let session = open(sessions, &id);
                let token = session.csrf_token().unwrap();
                assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
                token
            };
            let mut tokens: Vec<String> = thread::scope(|scope| {
                let pages: Vec<_> = (0..PAGES).map(|_| scope.spawn(page)).collect();
                pages.into_iter().map(|page| page.join().unwrap()).collect()
            });
            tokens.push(after_login);
            for token in tokens {
                assert!(open(sessions, &id).verify_csrf(&token));
            }
            assert!(!open(sessions, &id).verify_csrf(&stale), "a token of the id before the login");
        }
    });
}

#[test]
fn tokens_of_other_sessions_are_refused() {
    on_each_store(|sessions| {
        let own = open(sessions, &stored(sessions));
        for _ in 0..200 {
            let other = open(sessions, &stored(sessions)).csrf_token().unwrap();
            assert!(!own.verify_csrf(&other));
            let mut changed = own.csrf_token().unwrap().into_bytes();
            assert!(own.verify_csrf(str::from_utf8(&changed).unwrap()));
            let at = SessionId::random().expose().bytes().map(usize::from).sum::<usize>() % changed.len();
            changed[at] ^= 1;
            assert!(!own.verify_csrf(str::from_utf8(&changed).unwrap()));
        }
    });
}

#[test]
fn token_of_new_session_stores_the_session() {
    on_each_store(|sessions| {
        let session = sessions.fresh();
        let tokens = [session.csrf_token().unwrap(), session.csrf_token().unwrap()];
        let committed = sessions.commit(session).unwrap();
        assert_eq!(committed.outcome(), Outcome::Stored);
        assert!(committed.headers().any(|(name, _)| name == "Set-Cookie"));
        let session = open(sessions, committed.id().unwrap());
        assert!(tokens.iter().all(|token| session.verify_csrf(token)));
    });
}

/// The id is chosen once, whatever else the request does.
#[test]
fn token_fits_the_id_after_the_commit() {
    type Act = fn(&Visits, &mut Session<u32>);
    let acts: [Act; 8] = [
        |_, session| **session += 1,
        |_, session| session.renew(),
        |sessions, session| assert!(sessions.update_in(session, |count| *count += 1).unwrap().is_some()),
        |sessions, session| {
            session.renew();
            sessions.update_in(session, |count| *count += 1).unwrap();
        },
        |sessions, session| {
            sessions.update_in(session, |count| *count += 1).unwrap();
            session.renew();
        },
        |_, session| session.reset(),
        |_, session| {
            session.reset();
            session.renew();
        },
        |sessions, session| {
            session.reset();
            assert!(sessions.update_in(session, |count| *count += 1).unwrap().is_some());
        },
    ];
    on_each_store(|sessions| {
        for act in acts {
            for mut session in [sessions.fresh(), open(sessions, &stored(sessions))] {
                act(sessions, &mut session);
                let token = session.csrf_token().unwrap();
                let id = *sessions.commit(session).unwrap().id().unwrap();
                assert!(open(sessions, &id).verify_csrf(&token));
            }
            // A token that was made before a new session is stored fits as well.
            let mut session = sessions.fresh();
            let token = session.csrf_token().unwrap();
            sessions.update_in(&mut session, |count| *count += 1).unwrap();
            let id = *sessions.commit(session).unwrap().id().unwrap();
            assert!(open(sessions, &id).verify_csrf(&token));
        }
    });
}

#[test]
fn token_before_reset_is_refused_after() {
    on_each_store(|sessions| {
        for mut session in [sessions.fresh(), open(sessions, &stored(sessions))] {
            session.renew();
            let before = session.csrf_token().unwrap();
            session.reset();
            let after = session.csrf_token().unwrap();
            let id = *sessions.commit(session).unwrap().id().unwrap();
            let session = open(sessions, &id);
            assert!(session.verify_csrf(&after) && !session.verify_csrf(&before));
        }
    });
}

#[test]
fn ended_and_detached_sessions_have_no_token() {
    let sessions = Visits::new(MemorySessionStore::new());
    let id = stored(&sessions);
    for end in [Session::discard, Session::destroy] {
        for mut session in [sessions.fresh(), open(&sessions, &id)] {
            end(&mut session);
            assert_eq!(session.csrf_token().unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
    let token = open(&sessions, &id).csrf_token().unwrap();
    let mut session = open(&sessions, &id);
    session.renew();
    let _ = sessions.commit(session).unwrap();
    let cookie = format!("__Host-session={}", id.expose());
    let mut detached = sessions.open([&*cookie]).unwrap();
    assert!(detached.is_detached());
    assert_eq!(detached.csrf_token().unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(!detached.verify_csrf(&token));
    detached.reset();
    assert_eq!(detached.csrf_token().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sessions.commit(detached).unwrap().outcome(), Outcome::Detached);
    // A repeated login starts a new session, so its page has forms.
    let mut detached = sessions.open([&*cookie]).unwrap();
    detached.renew();
    let token = detached.csrf_token().unwrap();
    let id = *sessions.commit(detached).unwrap().id().unwrap();
    assert!(open(&sessions, &id).verify_csrf(&token));
}

#[test]
fn forged_request_stores_nothing() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).prefix(unique("csrf")).build().unwrap();
    let sessions = Visits::new(store);
    let id = stored(&sessions);
    let token = open(&sessions, &id).csrf_token().unwrap();
    let monitor = Monitor::start(&server);
    let session = sessions.fresh();
    assert!(!session.verify_csrf(&token));
    let committed = sessions.commit(session).unwrap();
    assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, None));
    assert!(!committed.headers().any(|(name, _)| name == "Set-Cookie"));
    // A token of a stored session costs no command either.
    let session = open(&sessions, &id);
    assert!(session.verify_csrf(&session.csrf_token().unwrap()));
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
    let names: Vec<String> = monitor.commands().into_iter().map(|command| command[0].clone()).collect();
    assert_eq!(names, ["GETEX"]);
}

#[test]
fn token_shows_no_id() {
    let sessions = Visits::new(MemorySessionStore::new());
    let id = stored(&sessions);
    let token = open(&sessions, &id).csrf_token().unwrap();
    let digits = id.expose().replace('-', "");
    assert!(!token.contains(&digits[..8]) && !token.contains(&digits[24..]));
}
