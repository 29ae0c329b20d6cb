//! The adapter for rouille, called with hand-made requests: cookies, status codes, and commits of handlers.
#![cfg(feature = "rouille")]

#[path = "rouille/bearer.rs"]
mod bearer;
#[path = "rouille/streams.rs"]
mod streams;
mod support;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rouille::{Request, Response};
use support::PATIENCE;
use threaded_sessions::rouille::{discard_unreadable, failure, peek, session, sign_in, try_session};
use threaded_sessions::store::{SessionStore, Write};
use threaded_sessions::{
    Clock, Error, ErrorKind, MemorySessionStore, OnConflict, OpenMode, Outcome, RedisSessionStore, Session, SessionId,
    SessionManager,
};

type Sessions = SessionManager<u32>;

fn sessions() -> Sessions {
    Sessions::new(MemorySessionStore::new())
}

/// A session with the value 1.
fn stored(sessions: &Sessions) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    *sessions.commit(session).unwrap().id().unwrap()
}

fn value(sessions: &Sessions, id: &SessionId) -> Option<u32> {
    sessions.open_id(id).unwrap().map(|session| *session)
}

fn cookie(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

fn request(headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Request::fake_http("GET", "/", headers.collect(), Vec::new())
}

fn request_of(id: &SessionId) -> Request {
    request(&[("Cookie", &cookie(id))])
}

fn count(session: &mut Session<u32>) -> Response {
    **session += 1;
    Response::text(session.to_string())
}

/// The values of the headers of this name, in whatever case.
fn header<'r>(response: &'r Response, name: &str) -> Vec<&'r str> {
    let named = response.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
    named.map(|(_, value)| &**value).collect()
}

fn body(response: Response) -> String {
    let mut body = String::new();
    response.data.into_reader_and_size().0.read_to_string(&mut body).unwrap();
    body
}

#[test]
fn handler_gets_session_and_response_gets_headers() {
    let sessions = sessions();
    let mut jar: Option<String> = None;
    for visit in 1..=3 {
        let headers: Vec<_> = jar.iter().map(|cookie| ("Cookie", &**cookie)).collect();
        let response = session(&sessions, &request(&headers), count);
        assert_eq!(response.status_code, 200);
        assert_eq!(header(&response, "Cache-Control"), ["no-store"]);
        assert_eq!(header(&response, "Vary"), ["Cookie"]);
        let given = header(&response, "Set-Cookie").first().map(|given| given.split(';').next().unwrap().to_owned());
        assert_eq!(given.is_some(), visit == 1, "only the first visit gives a cookie");
        jar = given.or(jar);
        assert_eq!(body(response), visit.to_string());
    }
    let destroyed = session(&sessions, &request(&[("cookie", &jar.unwrap())]), |session| {
        session.destroy();
        Response::empty_204()
    });
    assert!(header(&destroyed, "Set-Cookie")[0].contains("Max-Age=0"));
}

#[test]
fn peek_moves_no_deadline() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = Sessions::builder(store).clock(clock.clone()).idle_timeout(Duration::from_secs(100));
    let sessions = builder.build().unwrap();
    let id = stored(&sessions);
    clock.advance(Duration::from_secs(99));
    let left = |session: &mut Session<u32>| Response::text(format!("{} {:?}", **session, session.expires_in()));
    let response = peek(&sessions, &request_of(&id), left);
    assert_eq!(header(&response, "Set-Cookie"), [""; 0]);
    let seen = body(response);
    let (response, committed) = try_session(&sessions, OpenMode::Peek, &request_of(&id), left).unwrap();
    assert_eq!((body(response), committed.outcome()), (seen.clone(), Outcome::Unchanged));
    assert!(seen.ends_with(" Some(1s)"), "{seen}");
    clock.advance(Duration::from_secs(1));
    assert_eq!(value(&sessions, &id), None);
}

#[test]
fn handler_headers_are_kept() {
    let response = session(&sessions(), &request(&[]), |session| {
        let own = [("cache-control", "private, max-age=60"), ("VARY", "Accept, Cookie"), ("Set-Cookie", "lang=de")];
        own.into_iter().fold(count(session), |response, (name, value)| response.with_additional_header(name, value))
    });
    assert_eq!(header(&response, "Cache-Control"), ["private, max-age=60"]);
    assert_eq!(header(&response, "Vary"), ["Accept, Cookie"]);
    let cookies = header(&response, "Set-Cookie");
    assert_eq!((cookies.len(), cookies[0]), (2, "lang=de"));
    assert!(cookies[1].starts_with("__Host-session="));
}

#[test]
fn id_is_found_in_any_cookie_header() {
    let sessions = sessions();
    let id = stored(&sessions);
    for headers in [[("Cookie", "lang=de"), ("Cookie", &*cookie(&id))], [("COOKIE", &*cookie(&id)), ("cookie", "x")]] {
        let response = session(&sessions, &request(&headers), |session| Response::text(session.to_string()));
        assert_eq!(body(response), "1");
    }
}

#[test]
fn id_outside_the_cookie_is_ignored() {
    let sessions = sessions();
    let id = stored(&sessions);
    let (text, pair) = (id.expose(), cookie(&id));
    let elsewhere = ["Authorization", "X-Session", "Set-Cookie", "Cookie2", "__Host-session"];
    let headers = || elsewhere.iter().map(|name| (name.to_string(), pair.clone()));
    let target = format!("/{text};{pair}?__Host-session={text}&session={text}#{pair}");
    for method in ["GET", "POST"] {
        let form = [("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        let headers = headers().chain(form).collect();
        let request = Request::fake_http(method, &*target, headers, pair.clone().into_bytes());
        let response = session(&sessions, &request, |session| {
            assert!(session.is_new() && **session == 0);
            Response::empty_204()
        });
        assert_eq!(header(&response, "Set-Cookie"), [""; 0]);
    }
    assert_eq!(value(&sessions, &id), Some(1));
}

#[test]
fn response_status_does_not_affect_the_commit() {
    let sessions = sessions();
    let id = stored(&sessions);
    let response = session(&sessions, &request_of(&id), |session| count(session).with_status_code(500));
    assert_eq!((response.status_code, value(&sessions, &id)), (500, Some(2)));
    session(&sessions, &request_of(&id), |session| {
        session.discard();
        count(session)
    });
    assert_eq!(value(&sessions, &id), Some(2));
}

#[test]
fn panicking_handler_commits_nothing() {
    let sessions = sessions();
    let id = stored(&sessions);
    for renew in [false, true] {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            session(&sessions, &request_of(&id), |session| -> Response {
                if renew {
                    session.renew();
                }
                count(session);
                panic!("in the handler, as the test wants it");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(value(&sessions, &id), Some(1));
    }
}

#[test]
fn unreachable_redis_gets_503_with_retry_after() {
    // No server listens on this port.
    let store = RedisSessionStore::builder().url("redis://:secret@127.0.0.1:1").deadline(PATIENCE).build().unwrap();
    let sessions = Sessions::new(store);
    let id = SessionId::random();
    let never = |_: &mut Session<u32>| -> Response { panic!("there is no session to handle") };
    let answers = [
        // It cannot be read; it cannot be stored.
        (
            session(&sessions, &request_of(&id), never),
            try_session(&sessions, OpenMode::Use, &request_of(&id), never).err(),
        ),
        (session(&sessions, &request(&[]), count), try_session(&sessions, OpenMode::Use, &request(&[]), count).err()),
    ];
    for (response, error) in answers {
        assert_eq!(error.expect("the same as an error").kind(), Some(ErrorKind::Unavailable));
        assert_eq!((response.status_code, header(&response, "Retry-After")), (503, vec!["1"]));
        assert!(header(&response, "Set-Cookie").is_empty());
        let body = body(response);
        for cause in ["Redis", "redis", "127.0.0.1", "refused", "secret", "os error", &id.expose()] {
            assert!(!body.contains(cause), "{body}");
        }
    }
    // A visitor without a session, who needs none, notices nothing.
    let response = session(&sessions, &request(&[]), |session| Response::text(session.to_string()));
    assert_eq!((response.status_code, body(response)), (200, "0".to_owned()));
}

#[test]
fn unreadable_session_gets_500() {
    let store = Arc::new(MemorySessionStore::new());
    let id = SessionId::random();
    let _ = store.create(&id, Write::new(b"{\"v\":1,\"secret\":", None)).unwrap();
    let response =
        session(&Sessions::new(store), &request_of(&id), |_| -> Response { panic!("there is no session to handle") });
    assert_eq!((response.status_code, header(&response, "Retry-After")), (500, vec![]));
    assert!(header(&response, "Set-Cookie").is_empty());
    let body = body(response);
    assert!(!body.contains("secret") && !body.contains("JSON"), "{body}");
}

#[test]
fn conflict_gets_409() {
    let sessions = Sessions::builder(MemorySessionStore::new()).on_conflict(OnConflict::Fail).build().unwrap();
    let id = stored(&sessions);
    let race = |session: &mut Session<u32>| {
        sessions.update(&id, |value| *value += 10).unwrap().expect("it lives");
        count(session)
    };
    assert_eq!(session(&sessions, &request_of(&id), race).status_code, 409);
    assert_eq!(
        try_session(&sessions, OpenMode::Use, &request_of(&id), race).map(|_| ()).unwrap_err().kind(),
        Some(ErrorKind::Conflict)
    );
    assert_eq!(value(&sessions, &id), Some(21));
}

#[test]
fn lost_change_is_reported_in_the_outcome() {
    let sessions = sessions();
    let id = stored(&sessions);
    let (response, committed) = try_session(&sessions, OpenMode::Use, &request_of(&id), |session| {
        assert!(sessions.store().delete(&id).unwrap());
        count(session)
    })
    .unwrap();
    assert_eq!((response.status_code, committed.outcome()), (200, Outcome::Dropped));
    assert!(committed.outcome().is_lost() && header(&response, "Set-Cookie").is_empty());
    assert_eq!(value(&sessions, &id), None);
}

#[test]
fn every_kind_of_error_has_its_status() {
    let kinds = [
        (ErrorKind::Unavailable, 503),
        (ErrorKind::TimedOut, 503),
        (ErrorKind::MayHaveHappened, 503),
        (ErrorKind::ReadOnly, 503),
        (ErrorKind::OutOfMemory, 503),
        (ErrorKind::Conflict, 409),
        (ErrorKind::CrossOrigin, 403),
        (ErrorKind::Denied, 500),
        (ErrorKind::WrongType, 500),
        (ErrorKind::Misconfigured, 500),
        (ErrorKind::Payload, 500),
        (ErrorKind::Unsupported, 500),
        (ErrorKind::Other, 500),
    ];
    for (kind, status) in kinds {
        let response = failure(&Error::new(kind, "operation secret things").with_source("a secret cause"));
        assert_eq!(
            (response.status_code, header(&response, "Retry-After").len()),
            (status, usize::from(status == 503))
        );
        let body = body(response);
        assert!(!body.is_empty() && !body.contains("secret"), "{body}");
    }
}

#[test]
fn response_with_cookie_is_never_for_shared_caches() {
    let public = |session: &mut Session<u32>| {
        count(session)
            .with_public_cache(60)
            .with_additional_header("CDN-Cache-Control", "max-age=60")
            .with_additional_header("Expires", "Thu, 01 Jan 2099 00:00:00 GMT")
            .with_additional_header("Vary", "Accept-Language")
            .with_additional_header("vary", "Origin")
    };
    let sessions = sessions();
    let response = session(&sessions, &request(&[]), public);
    assert_eq!(header(&response, "Set-Cookie").len(), 1);
    assert_eq!(header(&response, "Cache-Control"), ["no-store"]);
    assert_eq!(header(&response, "Vary"), ["Accept-Language, Origin, Cookie"]);
    for name in ["CDN-Cache-Control", "Expires"] {
        assert!(header(&response, name).is_empty(), "{name}");
    }
    assert_eq!(header(&response, "Content-Type"), ["text/plain; charset=utf-8"]);

    // The end of a session clears the cookie, which is a cookie too.
    let id = stored(&sessions);
    let response = session(&sessions, &request_of(&id), |session| {
        session.destroy();
        Response::text("bye").with_public_cache(60)
    });
    assert_eq!(header(&response, "Cache-Control"), ["no-store"]);

    // Without a cookie the handler decides.
    let id = stored(&sessions);
    let response = session(&sessions, &request_of(&id), |_| Response::text("logo").with_public_cache(60));
    assert!(header(&response, "Cache-Control")[0].contains("public"));
    assert_eq!(header(&response, "Vary"), ["Cookie"]);
}

#[test]
fn second_opening_in_one_request_fails_loudly() {
    let sessions = sessions();
    let clone = sessions.clone();
    for id in [None, Some(stored(&sessions))] {
        let headers: Vec<_> = id.iter().map(|id| ("Cookie".to_owned(), cookie(id))).collect();
        let request = Request::fake_http("GET", "/app/page", headers, Vec::new());
        let without_prefix = request.remove_prefix("/app").unwrap();
        for inner in [&request, &without_prefix] {
            let (response, committed) = try_session(&sessions, OpenMode::Use, &request, |outer| {
                **outer += 1;
                let mut was_called = false;
                let error = try_session(&clone, OpenMode::Use, inner, |_| {
                    was_called = true;
                    Response::empty_204()
                });
                assert_eq!(error.expect_err("it is open already").kind(), Some(ErrorKind::Misconfigured));
                let error = try_session(&clone, OpenMode::SignIn, inner, |_| Response::empty_204());
                assert_eq!(error.expect_err("it is open already").kind(), Some(ErrorKind::Misconfigured));
                assert!(!was_called);
                session(&clone, inner, |_| Response::empty_204())
            })
            .unwrap();
            assert_eq!((response.status_code, committed.outcome()), (500, Outcome::Stored));
            assert!(header(&response, "Set-Cookie").len() <= 1);
        }
        // It may be opened again afterwards, also after a panic.
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            session(&sessions, &request, |_| -> Response { panic!("as the test wants it") })
        }));
        assert!(panicked.is_err());
        assert_eq!(session(&sessions, &request, count).status_code, 200);
    }
}

#[test]
fn other_requests_and_managers_may_nest() {
    let sessions = sessions();
    let names = SessionManager::<String>::builder(MemorySessionStore::new()).cookie_name("name").build().unwrap();
    let id = stored(&sessions);
    for headers in [vec![], vec![("Cookie".to_owned(), cookie(&id))]] {
        let new = || Request::fake_http("GET", "/", headers.clone(), Vec::new());
        let (outer, second) = (new(), new());
        let response = session(&sessions, &outer, |_| {
            let inner = session(&sessions, &second, count);
            assert_eq!(inner.status_code, 200, "a test serves a second request");
            let third = session(&sessions, &new(), count);
            assert_eq!(third.status_code, 200, "and another one");
            session(&names, &outer, |name| {
                name.push('x');
                Response::text("both")
            })
        });
        assert_eq!((response.status_code, header(&response, "Set-Cookie").len()), (200, 1));
    }
    assert_eq!(value(&sessions, &id), Some(3));
}

#[test]
fn unreadable_session_has_two_ways_out() {
    let store = MemorySessionStore::new();
    let before = SessionManager::<String>::new(store.clone());
    let sessions = Sessions::new(store);
    let unreadable = || {
        let mut session = before.fresh();
        *session = "a cart".to_owned();
        *before.commit(session).unwrap().id().unwrap()
    };
    let id = unreadable();
    assert_eq!(session(&sessions, &request_of(&id), count).status_code, 500);
    let response = discard_unreadable(&sessions, &request_of(&id), Response::redirect_303("/"));
    assert_eq!((response.status_code, header(&response, "Location")), (303, vec!["/"]));
    assert!(header(&response, "Set-Cookie")[0].contains("Max-Age=0"));
    assert!(before.open_id(&id).unwrap().is_none());

    let id = unreadable();
    let response = sign_in(&sessions, &request_of(&id), |session| {
        session.renew();
        count(session)
    });
    assert_eq!((response.status_code, header(&response, "Set-Cookie").len()), (200, 1));
    assert!(before.open_id(&id).unwrap().is_none());

    let away = Sessions::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap());
    assert_eq!(discard_unreadable(&away, &request_of(&id), Response::empty_204()).status_code, 503);
}
