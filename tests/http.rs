//! The adapter for the types of the crate `http`, without a server. `tests/servers` has the tests with real servers.

#[path = "servers/app.rs"]
mod app;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use app::{Sessions, app};
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderValue, SET_COOKIE, VARY};
use http::{Method, Request, Response, Uri};
use threaded_sessions::http::{bearer, commit, error_response, open, peek, session, try_session};
use threaded_sessions::testing::{Browser, Page};
use threaded_sessions::{
    Clock, Error, ErrorKind, ErrorPage, MemorySessionStore, OnCap, OnConflict, OpenMode, Outcome, RedisSessionStore,
    SessionManager, SessionManagerBuilder,
};

type Builder = SessionManagerBuilder<u32>;

fn sessions(settings: impl FnOnce(Builder) -> Builder) -> Sessions {
    settings(Sessions::builder(MemorySessionStore::new())).build().unwrap()
}

fn browser(sessions: &Sessions) -> Browser<'_> {
    Browser::http(|request| app(sessions, &request, request.body()))
}

fn all<'p>(page: &'p Page, name: &str) -> Vec<&'p str> {
    page.headers().filter(|(set, _)| set.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// A request with these headers, and with a `Host` unless the URI has one.
fn request(method: &str, uri: &str, headers: &[(&str, &[u8])]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

/// Returns the status and the body of the response of the application.
fn exchange(sessions: &Sessions, request: &Request<()>) -> (u16, String) {
    let response: Response<Vec<u8>> = app(sessions, request, b"");
    (response.status().as_u16(), String::from_utf8(response.into_body()).unwrap())
}

/// The `NAME=ID` of a session with this value.
fn stored(sessions: &Sessions, value: u32) -> String {
    let mut session = sessions.fresh();
    *session = value;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    format!("__Host-session={}", id.expose())
}

#[test]
fn only_the_first_change_sets_a_cookie() {
    let sessions = sessions(|settings| settings);
    let mut ada = browser(&sessions);
    let read = ada.get("/read");
    assert_eq!((read.body(), read.header("Set-Cookie")), ("0", None));
    let first = ada.get("/count");
    let cookie = first.header("Set-Cookie").expect("a cookie");
    assert!(cookie.starts_with("__Host-session="), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"), "{cookie}");
    for (path, body) in [("/count", "2"), ("/read", "2"), ("/count", "3")] {
        let page = ada.get(path);
        assert_eq!((page.body(), page.header("Set-Cookie")), (body, None));
        assert_eq!((page.header("Cache-Control"), page.header("Vary")), (Some("no-store"), Some("Cookie")));
    }
    let added = ada.post("/add", "20");
    assert_eq!((added.status(), added.body()), (201, "POST 23"));
    assert_eq!(all(&ada.get("/static"), "Vary"), [""; 0]);
}

#[test]
fn session_is_found_in_any_cookie_header() {
    let sessions = sessions(|settings| settings);
    let cookie = stored(&sessions, 7);
    let own = cookie.as_bytes();
    let beside_bytes = [b"a=\xFF\xFE; ", own, b"; b=\x80"].concat();
    let joined_to_bytes = [own, b"\xFF"].concat();
    for (headers, body) in [
        (&[own][..], "7"),
        (&[b"a=1", own], "7"),
        (&[own, b"a=1; b"], "7"),
        (&[b"__Host-session=nonsense", own], "7"),
        (&[b"\xFF", own], "7"),
        (&[&beside_bytes], "7"),
        (&[b"__Host-session=\xFF", &beside_bytes], "7"),
        (&[&joined_to_bytes], "0"),
        (&[b"\xFF; ; =;"], "0"),
        (&[], "0"),
    ] {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|value| ("cookie", *value)).collect();
        assert_eq!(exchange(&sessions, &request("GET", "/read", &headers)), (200, body.to_owned()), "{headers:?}");
    }
}

#[test]
fn every_kind_of_head_opens_the_session() {
    let sessions = sessions(|settings| settings);
    let cookie = stored(&sessions, 7);
    let whole = request("GET", "/read", &[("cookie", cookie.as_bytes())]);
    let (parts, ()) = whole.clone().into_parts();
    let values = [
        app::<Vec<u8>>(&sessions, &whole, b""),
        app(&sessions, &parts, b""),
        app(&sessions, &(&parts.method, &parts.uri, &parts.headers), b""),
    ];
    assert_eq!(values.map(Response::into_body), [b"7"; 3]);
}

#[test]
fn panicking_or_failing_handler_commits_nothing() {
    let sessions = sessions(|settings| settings);
    let cookie = stored(&sessions, 7);
    let headers: &[(&str, &[u8])] = &[("cookie", cookie.as_bytes())];
    let get = |path| exchange(&sessions, &request("GET", path, headers));
    assert!(catch_unwind(AssertUnwindSafe(|| get("/panic"))).is_err());
    assert_eq!(get("/fail"), (500, "Something went wrong.".to_owned()));
    assert_eq!(get("/count").1, "8");
}

#[test]
fn handler_headers_are_kept() {
    let sessions = sessions(|settings| settings);
    let page = browser(&sessions).get("/own");
    assert_eq!((all(&page, "Cache-Control"), all(&page, "Vary")), (vec!["private"], vec!["Accept, Cookie"]));
    let cookies = all(&page, "Set-Cookie");
    assert_eq!((cookies.len(), cookies[0]), (2, "theme=dark; Path=/"));
}

#[test]
fn response_with_cookie_is_never_for_shared_caches() {
    let sessions = sessions(|settings| settings);
    let mut ada = browser(&sessions);
    let first = ada.get("/public");
    assert_eq!((all(&first, "Set-Cookie").len(), all(&first, "Cache-Control")), (1, vec!["no-store"]));
    assert_eq!(all(&first, "Vary"), ["Accept, Origin, Cookie"]);
    assert_eq!((first.header("Surrogate-Control"), first.header("CDN-Cache-Control")), (None, None));
    assert_eq!(first.header("X-Own"), Some("stays \u{FFFD}"));
    let second = ada.get("/public");
    assert_eq!((second.header("Set-Cookie"), second.header("Cache-Control")), (None, Some("public, max-age=60")));
}

#[test]
fn cache_headers_of_bytes_exclude_shared_caches() {
    let sessions = sessions(|settings| settings);
    for (set, control, vary) in [
        ((CACHE_CONTROL, &b"private, x=\xFF"[..]), &b"no-store"[..], &b"Cookie"[..]),
        ((VARY, b"Accept, \xFF"), b"no-store", b"*, Cookie"),
        ((VARY, "Größe".as_bytes()), b"no-store", "Größe, Cookie".as_bytes()),
    ] {
        let response = session(&sessions, &Request::new(()), |count| {
            **count += 1;
            let mut response = Response::new(Vec::new());
            response.headers_mut().insert(set.0.clone(), HeaderValue::from_bytes(set.1).unwrap());
            response
        });
        let values = |name| response.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!((values(CACHE_CONTROL), values(VARY), values(SET_COOKIE).len()), (vec![control], vec![vary], 1));
    }
}

#[test]
fn status_reports_each_failure() {
    let away = Sessions::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap());
    let refusing = sessions(|settings| settings.on_conflict(OnConflict::Fail));
    let small = sessions(|settings| settings.max_payload(1));
    for (sessions, path, status, retry_after) in [
        (&away, "/count", 503, Some("1")),
        (&away, "/read", 200, None),
        (&refusing, "/clash", 409, None),
        (&small, "/count", 500, None),
    ] {
        let mut ada = browser(sessions);
        if path == "/clash" {
            ada.get("/count");
        }
        let page = ada.get(path);
        assert_eq!((page.status(), page.header("Retry-After")), (status, retry_after), "{path}");
        assert_eq!((page.header("Set-Cookie"), page.header("Cache-Control")), (None, Some("no-store")), "{path}");
    }
}

#[test]
fn lost_change_is_no_success() {
    let sessions = sessions(|settings| settings);
    for (path, status, body) in
        [("/lost", 409, "Another request changed the session. Please try again."), ("/lost-404", 404, "stored")]
    {
        let mut ada = browser(&sessions);
        ada.get("/count");
        let page = ada.get(path);
        assert_eq!((page.status(), page.body()), (status, body));
    }
}

#[test]
fn login_over_the_cap_names_the_cap() {
    let log_in = |sessions: &Sessions| -> (u16, String) {
        let response: Response<Vec<u8>> = session(sessions, &Request::new(()), |count| {
            count.bind("ada", "");
            **count += 1;
            Response::new(Vec::new())
        });
        (response.status().as_u16(), String::from_utf8(response.into_body()).unwrap())
    };
    let capped = |settings: Builder| settings.max_per_principal(1).on_cap(OnCap::Refuse);
    let default = sessions(capped);
    assert_eq!(log_in(&default).0, 200);
    let page = "This account has too many sessions. Please sign out on another device.";
    assert_eq!(log_in(&default), (409, page.to_owned()));
    let cause =
        sessions(|settings| capped(settings).error_page(|failure| ErrorPage::text(format!("{:#}", failure.error()))));
    assert_eq!(log_in(&cause).0, 200);
    let text = log_in(&cause).1;
    let why = "the principal has as many sessions as `max_per_principal` allows, so the change was dropped";
    assert!(text.ends_with(why), "{text}");
}

#[test]
fn error_page_is_the_applications() {
    let sessions = sessions(|settings| {
        settings.error_page(|failure| {
            let page = ErrorPage::html(format!("{} {} {}", failure.status(), failure.method(), failure.path()));
            // HTTP allows neither the second name nor the status.
            page.with_header("X-Page", "own").with_header("X(Page)", "own").with_status(1000)
        })
    });
    let page = browser(&sessions).get("/fail?token=1");
    assert_eq!((page.status(), page.body()), (500, "500 GET /fail"));
    assert_eq!((page.header("X-Page"), page.headers().count()), (Some("own"), 4), "{page:?}");
    let failed = try_session(&sessions, OpenMode::Use, &Request::new(()), |_| Err::<Response<()>, _>("no".into()));
    let failure = failed.map(drop).unwrap_err();
    assert_eq!((failure.kind(), failure.error().to_string()), (None, "no".to_owned()));
    assert_eq!(error_response::<_, Vec<u8>>(&sessions, &failure).body(), b"500 GET /");
    let error = Error::new(ErrorKind::TimedOut, "reading a session");
    assert_eq!(threaded_sessions::http::failure::<Vec<u8>>(&error).status(), 503);
}

#[test]
fn second_opening_in_one_request_fails_loudly() {
    let sessions = sessions(|settings| settings);
    let mut ada = browser(&sessions);
    for _ in 0..2 {
        assert_eq!(ada.get("/nested").status(), 500);
    }
    assert_eq!(ada.get("/read").body(), "2", "the outer session is kept");
    let page = ada.get("/two-managers");
    assert_eq!((page.status(), all(&page, "Set-Cookie").len()), (200, 1));
}

#[test]
fn unreadable_session_has_two_ways_out() {
    let store = MemorySessionStore::new();
    let before = SessionManager::<String>::new(store.clone());
    let sessions = Sessions::new(store);
    for (path, body) in [("/sign-in", "0"), ("/start-over", "anew")] {
        let mut session = before.fresh();
        *session = "a cart".to_owned();
        let id = *before.commit(session).unwrap().id().unwrap();
        let mut ada = browser(&sessions);
        assert!(ada.set_cookie(&format!("__Host-session={}; Secure; Path=/", id.expose())));
        assert_eq!(ada.get("/read").status(), 500);
        let page = ada.get(path);
        assert_eq!((page.status(), page.body()), (200, body));
        assert_ne!(ada.cookie("__Host-session"), Some(&*id.expose()));
        assert_eq!(ada.get("/read").status(), 200);
        assert!(before.open_id(&id).unwrap().is_none());
    }
}

#[test]
fn forged_requests_reach_no_handler() {
    const HOST: (&str, &[u8]) = ("Host", b"shop.example");
    const OWN: (&str, &[u8]) = ("Origin", b"https://shop.example");
    const OTHER: (&str, &[u8]) = ("Origin", b"https://attacker.example");
    let sessions = sessions(|settings| settings.exempt_path("/saml/acs"));
    for (method, uri, headers, status) in [
        ("POST", "/count", &[HOST, OTHER][..], 403),
        ("POST", "/count", &[HOST, OWN], 200),
        ("POST", "/count", &[HOST, OWN, OTHER], 403),
        ("POST", "/count", &[HOST, ("Origin", b"https://shop.example\xFF")], 403),
        ("POST", "/count", &[OWN], 403),
        ("POST", "/count", &[("Sec-Fetch-Site", b"cross-site")], 403),
        ("GET", "/count", &[HOST, OTHER], 200),
        ("POST", "/start-over", &[HOST, OTHER], 403),
        // HTTP/2 and some servers have the host in the address.
        ("POST", "https://shop.example/count", &[OWN], 200),
        ("POST", "https://shop.example/count", &[HOST, OWN], 200),
        ("POST", "https://shop.example/count", &[OTHER], 403),
        ("POST", "https://user@shop.example/count", &[OWN], 403),
        ("POST", "https://shop.example/count", &[("Host", b"backend"), OWN], 403),
        ("POST", "/saml/acs?a=b", &[HOST, OTHER], 200),
        ("POST", "https://shop.example/saml/acs?a=b", &[OTHER], 200),
        ("POST", "/count?/saml/acs", &[HOST, OTHER], 403),
    ] {
        assert_eq!(exchange(&sessions, &request(method, uri, headers)).0, status, "{method} {uri} {headers:?}");
    }
    let forged = request("POST", "/count", &[HOST, OTHER]);
    assert_eq!(open(&sessions, &forged).unwrap_err().kind(), ErrorKind::CrossOrigin);
}

#[test]
fn session_opened_by_hand_is_committed() {
    let sessions = sessions(|settings| settings);
    let (method, uri, mut headers) = (Method::GET, Uri::from_static("/"), HeaderMap::new());
    for expected in [1, 2] {
        let mut count = open(&sessions, &(&method, &uri, &headers)).unwrap();
        *count += 1;
        assert_eq!(*count, expected);
        let mut response = HeaderMap::new();
        response.insert(SET_COOKIE, HeaderValue::from_static("theme=dark"));
        assert_eq!(commit(&sessions, count, &mut response).unwrap().outcome(), Outcome::Stored);
        let set: Vec<_> = response.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!((set[0], set.len()), ("theme=dark", if expected == 1 { 2 } else { 1 }));
        assert!(response[CACHE_CONTROL] == "no-store" && response[VARY] == "Cookie", "{response:?}");
        if let Some(cookie) = set.get(1) {
            headers.insert(COOKIE, cookie.split(';').next().unwrap().parse().unwrap());
        }
    }
}

#[test]
fn peek_sets_no_cookie_and_keeps_the_deadline() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = Sessions::builder(store).clock(clock.clone()).idle_timeout(Duration::from_secs(600));
    let sessions = builder.build().unwrap();
    let cookie = stored(&sessions, 7);
    for passed in [0, 400] {
        clock.advance(Duration::from_secs(passed));
        let request = request("GET", "/", &[("Cookie", cookie.as_bytes())]);
        let response: Response<Vec<u8>> = peek(&sessions, &request, |session| {
            assert_eq!(session.expires_in(), Some(Duration::from_secs(600 - passed)));
            Response::new(session.to_string().into_bytes())
        });
        assert_eq!((&**response.body(), response.headers().get(SET_COOKIE)), (&b"7"[..], None));
    }
}

#[test]
fn bearer_takes_the_token_and_no_cookie() {
    let sessions = sessions(|settings| settings);
    let cookie = stored(&sessions, 7);
    let token = cookie.trim_start_matches("__Host-session=");
    let authorization = format!("Bearer {token}");
    let value = |headers: &[(&str, &[u8])]| {
        let response: Response<Vec<u8>> = bearer(&sessions, &request("POST", "/", headers), |session| {
            Response::new(session.to_string().into_bytes())
        });
        assert_eq!(response.headers().get(SET_COOKIE), None);
        String::from_utf8(response.into_body()).unwrap()
    };
    // A request from another origin: a browser sends no token by itself.
    assert_eq!(value(&[("Authorization", authorization.as_bytes()), ("Sec-Fetch-Site", b"cross-site")]), "7");
    assert_eq!(value(&[("Cookie", cookie.as_bytes())]), "0");
    assert_eq!(value(&[("Authorization", b"Bearer \xff")]), "0");
    for second in [authorization.as_bytes(), b"\xff", b""] {
        for headers in [[authorization.as_bytes(), second], [second, authorization.as_bytes()]] {
            let headers = headers.map(|value| ("Authorization", value));
            assert_eq!(value(&headers), "0", "{}", second.len());
        }
    }
}
