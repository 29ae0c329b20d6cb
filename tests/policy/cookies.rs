//! The `Set-Cookie` header: its attributes, and which requests get one.

use std::collections::BTreeSet;
use std::time::Duration;

use threaded_sessions::{Outcome, SameSite, SessionManagerBuilder};

use super::{HOUR, cookie, header, set_cookie, world};

/// `Set-Cookie` without the value: the name and the attributes, in no order.
fn parts(set_cookie: &str) -> BTreeSet<String> {
    let (name, rest) = set_cookie.split_once('=').unwrap();
    let attributes = rest.split("; ").skip(1).map(str::to_owned);
    attributes.chain([name.to_owned()]).collect()
}

#[test]
fn cookie_defaults_are_the_safest() {
    type Settings = fn(SessionManagerBuilder<u32>) -> SessionManagerBuilder<u32>;
    let cases: &[(Settings, &[&str])] = &[
        (|b| b, &["__Host-session", "HttpOnly", "SameSite=Lax", "Secure", "Path=/"]),
        (|b| b.secure(false), &["session", "HttpOnly", "SameSite=Lax", "Path=/"]),
        (|b| b.secure(false).cookie_path("/app"), &["session", "HttpOnly", "SameSite=Lax", "Path=/app"]),
        (|b| b.cookie_path("/app"), &["__Secure-session", "HttpOnly", "SameSite=Lax", "Secure", "Path=/app"]),
        (
            |b| b.cookie_domain("example.com"),
            &["__Secure-session", "HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Domain=example.com"],
        ),
        (|b| b.cookie_name("ring-session"), &["ring-session", "HttpOnly", "SameSite=Lax", "Secure", "Path=/"]),
        (|b| b.cookie_name("__Host-id"), &["__Host-id", "HttpOnly", "SameSite=Lax", "Secure", "Path=/"]),
        (
            |b| b.cookie_name("__Secure-id").cookie_path("/x"),
            &["__Secure-id", "HttpOnly", "SameSite=Lax", "Secure", "Path=/x"],
        ),
        (|b| b.http_only(false), &["__Host-session", "SameSite=Lax", "Secure", "Path=/"]),
        (|b| b.same_site(SameSite::Strict), &["__Host-session", "HttpOnly", "SameSite=Strict", "Secure", "Path=/"]),
        (|b| b.same_site(SameSite::None), &["__Host-session", "HttpOnly", "SameSite=None", "Secure", "Path=/"]),
        (
            |b| b.same_site(SameSite::None).partitioned(true),
            &["__Host-session", "HttpOnly", "SameSite=None", "Partitioned", "Secure", "Path=/"],
        ),
    ];
    for (settings, expected) in cases {
        let expected: BTreeSet<String> = expected.iter().map(|&part| part.to_owned()).collect();
        let world = world(settings);
        let mut session = world.sessions.fresh();
        *session = 1;
        let committed = world.sessions.commit(session).unwrap();
        let given = set_cookie(&committed).unwrap();
        assert_eq!(parts(given), expected);
        assert_eq!(cookie(given).split_once('=').unwrap().1, committed.id().unwrap().expose());

        // The browser takes a cookie away only if name, path and domain are the same.
        let mut session = world.sessions.open([cookie(given)]).unwrap();
        assert_eq!(*session, 1, "its own cookie is recognised");
        session.destroy();
        let committed = world.sessions.commit(session).unwrap();
        let taken = set_cookie(&committed).unwrap();
        let (removal, rest): (BTreeSet<_>, BTreeSet<_>) =
            parts(taken).into_iter().partition(|part| part.starts_with("Max-Age") || part.starts_with("Expires"));
        assert_eq!(rest, expected);
        assert!(removal.contains("Max-Age=0"), "{taken}");
        assert_eq!(cookie(taken).split_once('=').unwrap().1, "");
    }
}

#[test]
fn cookie_is_set_only_when_changed() {
    let world = world(|builder| builder.idle_timeout(HOUR));
    let mut jar: Option<String> = None;
    // The action of a request, its outcome, and its effect on the cookie: set (1), cleared (0), or none.
    type Handler = fn(&mut threaded_sessions::Session<u32>);
    let requests: &[(Handler, Outcome, Option<u8>)] = &[
        (|_| (), Outcome::Unchanged, None),
        (|s| assert!(**s == 0), Outcome::Unchanged, None),
        (|s| **s = 0, Outcome::Unchanged, None),
        (|s| s.discard(), Outcome::Unchanged, None),
        (|s| s.destroy(), Outcome::Unchanged, None),
        (|s| **s = 1, Outcome::Stored, Some(1)),
        (|_| (), Outcome::Unchanged, None),
        (|s| **s = 2, Outcome::Stored, None),
        (|s| **s = 2, Outcome::Unchanged, None),
        (|s| s.renew(), Outcome::Stored, Some(1)),
        (|s| **s = 0, Outcome::Stored, None),
        (|s| s.remember(true), Outcome::Stored, Some(1)),
        (|s| s.remember(true), Outcome::Unchanged, None),
        (|s| s.remember(false), Outcome::Stored, Some(1)),
        (|s| s.destroy(), Outcome::Destroyed, Some(0)),
        (|_| (), Outcome::Unchanged, None),
        (|s| s.renew(), Outcome::Stored, Some(1)),
    ];
    for (at, (handler, outcome, expected)) in requests.iter().enumerate() {
        world.clock.advance(Duration::from_secs(1));
        let mut session = world.sessions.open(jar.as_deref()).unwrap();
        handler(&mut session);
        let committed = world.sessions.commit(session).unwrap();
        assert_eq!(committed.outcome(), *outcome, "request {at}");
        // A page that merely reads the session is personal, too.
        assert_eq!(header(&committed, "Cache-Control"), Some("no-store"));
        assert_eq!(header(&committed, "Vary"), Some("Cookie"));
        let given = set_cookie(&committed).map(|set| u8::from(!cookie(set).ends_with('=')));
        assert_eq!(given, *expected, "request {at}");
        match given {
            Some(1) => jar = set_cookie(&committed).map(|set| cookie(set).to_owned()),
            Some(_) => jar = None,
            None => (),
        }
        let stored = u64::from(jar.is_some());
        assert_eq!(world.count(), stored, "request {at}: nothing is stored without a cookie");
    }
}

#[test]
fn request_with_dead_id_keeps_the_cookie() {
    let world = world(|builder| builder.idle_timeout(HOUR));
    let (expired, destroyed, renewed) = (world.create(), world.create(), world.create());
    world.clock.advance(HOUR / 2);
    for id in [&destroyed, &renewed] {
        let mut session = world.open(id);
        if *id == destroyed {
            session.destroy()
        } else {
            session.renew()
        }
        let _ = world.sessions.commit(session).unwrap();
    }
    world.clock.advance(HOUR / 2);
    let unknown = threaded_sessions::SessionId::random();
    for id in [expired, destroyed, renewed, unknown] {
        let header = format!("__Host-session={}", id.expose());
        let session = world.sessions.open([&*header]).unwrap();
        assert_eq!(*session, 0);
        assert_eq!(set_cookie(&world.sessions.commit(session).unwrap()), None);
        // A change begins a new session.
        let mut session = world.sessions.open([&*header]).unwrap();
        *session = 7;
        let committed = world.sessions.commit(session).unwrap();
        assert_eq!(committed.outcome(), Outcome::Stored);
        assert!(set_cookie(&committed).is_some() && committed.id() != Some(&id));
        assert!(!world.lives(&id));
    }
}
