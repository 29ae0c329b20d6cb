//! Requests that fail, on both adapters: the stored session, the response and the log.
#![cfg(all(feature = "rouille", feature = "tiny-http"))]

mod support;

use std::fmt;
use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};

use log::{Level, LevelFilter, Log, Metadata, Record};
use threaded_sessions::{
    BoxError, Error, ErrorKind, ErrorPage, HandlerResult, MemorySessionStore, OnConflict, OpenMode, Outcome,
    RedisSessionStore, Session, SessionId, SessionManager, SessionManagerBuilder,
};
use threaded_sessions::{rouille, tiny_http};

type Sessions = SessionManager<u32>;

/// The records of the adapters, by thread.
struct Recorder;

static RECORDS: Mutex<Vec<(ThreadId, Level, String)>> = Mutex::new(Vec::new());

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("threaded_sessions::http")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            RECORDS.lock().unwrap().push((thread::current().id(), record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn keep_records() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Debug);
    });
}

/// Removes the records of this thread, and returns them.
fn records() -> Vec<(Level, String)> {
    let own = thread::current().id();
    let mut records = RECORDS.lock().unwrap();
    let (taken, rest) = std::mem::take(&mut *records).into_iter().partition(|(thread, _, _)| *thread == own);
    *records = rest;
    taken.into_iter().map(|(_, level, text)| (level, text)).collect()
}

/// A manager with a hook that shows what it gets.
fn builder() -> SessionManagerBuilder<u32> {
    keep_records();
    Sessions::builder(MemorySessionStore::new()).error_page(|failure| {
        let lost = if failure.is_lost() { " lost" } else { "" };
        ErrorPage::html(format!("{} {} {}{lost}", failure.status(), failure.method(), failure.path()))
    })
}

/// A session with the value 1.
fn stored(sessions: &Sessions) -> SessionId {
    stored_as(sessions, false)
}

fn stored_as(sessions: &Sessions, is_remembered: bool) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    session.remember(is_remembered);
    *sessions.commit(session).unwrap().id().unwrap()
}

fn value(sessions: &Sessions, id: &SessionId) -> Option<u32> {
    sessions.open_id(id).unwrap().map(|session| *session)
}

fn cookie(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Adapter {
    Rouille,
    TinyHttp,
}

const ADAPTERS: [Adapter; 2] = [Adapter::Rouille, Adapter::TinyHttp];

/// A response of either adapter.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &**value).collect()
    }

    /// The id in the cookie of the response.
    fn id(&self) -> SessionId {
        let cookie = self.header("Set-Cookie").first().copied().expect("a cookie");
        cookie.split(['=', ';']).nth(1).unwrap().parse().unwrap()
    }
}

impl From<::rouille::Response> for Seen {
    fn from(response: ::rouille::Response) -> Self {
        let headers = response.headers.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        let mut body = String::new();
        std::io::Read::read_to_string(&mut response.data.into_reader_and_size().0, &mut body).unwrap();
        Self { status: response.status_code, headers: headers.collect(), body }
    }
}

impl From<::tiny_http::ResponseBox> for Seen {
    fn from(response: ::tiny_http::ResponseBox) -> Self {
        let headers = response.headers().iter().map(|header| (header.field.to_string(), header.value.to_string()));
        let (status, headers) = (response.status_code().0, headers.collect());
        let mut body = String::new();
        std::io::Read::read_to_string(&mut response.into_reader(), &mut body).unwrap();
        Self { status, headers, body }
    }
}

fn rouille_request(path: &str, cookies: &str) -> ::rouille::Request {
    ::rouille::Request::fake_http("POST", path, vec![("Cookie".to_owned(), cookies.to_owned())], Vec::new())
}

fn tiny_http_request(path: &str, cookies: &str) -> ::tiny_http::Request {
    let cookies = ::tiny_http::Header::from_bytes("Cookie", cookies).unwrap();
    ::tiny_http::TestRequest::new().with_method(::tiny_http::Method::Post).with_path(path).with_header(cookies).into()
}

impl Adapter {
    /// Serves `POST path` with `session`. The response of the handler has the status that it returns.
    fn serve(
        self,
        sessions: &Sessions,
        path: &str,
        cookies: &str,
        handler: impl FnOnce(&mut Session<u32>) -> HandlerResult<u16>,
    ) -> Seen {
        match self {
            Self::Rouille => rouille::session(sessions, &rouille_request(path, cookies), |session| {
                Ok(::rouille::Response::text("done").with_status_code(handler(session)?))
            })
            .into(),
            Self::TinyHttp => tiny_http::session(sessions, &mut tiny_http_request(path, cookies), |session, _| {
                Ok(::tiny_http::Response::from_string("done").with_status_code(handler(session)?))
            })
            .into(),
        }
    }
}

#[test]
fn error_after_change_stores_nothing() {
    let sessions = builder().remember_for(std::time::Duration::from_secs(10_000_000)).build().unwrap();
    let changes: [fn(&mut Session<u32>); 5] = [
        |_| (),
        |session| session.renew(),
        |session| session.reset(),
        |session| session.destroy(),
        |session| session.discard(),
    ];
    for (adapter, change) in ADAPTERS.into_iter().flat_map(|adapter| changes.map(|change| (adapter, change))) {
        for (is_remembered, is_late) in [(false, false), (false, true), (true, false), (true, true)] {
            let handler = |session: &mut Session<u32>| {
                if !is_late {
                    change(session);
                }
                **session = 7;
                session.remember(!is_remembered);
                change(session);
                Err("the shelf is empty".into())
            };
            let id = stored_as(&sessions, is_remembered);
            let seen = adapter.serve(&sessions, "/cart?item=tea", &cookie(&id), handler);
            assert_eq!((seen.status, &*seen.body), (500, "500 POST /cart"), "{adapter:?}");
            assert_eq!(seen.header("Content-Type"), ["text/html; charset=utf-8"]);
            assert_eq!((seen.header("Cache-Control"), seen.header("Set-Cookie")), (vec!["no-store"], vec![]));
            let session = sessions.open_id(&id).unwrap().expect("it is live");
            assert_eq!((*session, session.is_remembered()), (1, is_remembered));
            assert_eq!(records(), [(Level::Error, "POST /cart failed: the shelf is empty".to_owned())]);
            // A visitor without a session gets none.
            let seen = adapter.serve(&sessions, "/", "", handler);
            assert_eq!((seen.status, seen.header("Set-Cookie"), records().len()), (500, vec![], 1));
        }
    }
}

#[test]
fn update_before_error_is_kept_with_cookie() {
    let sessions = builder().remember_for(std::time::Duration::from_secs(10_000_000)).build().unwrap();
    for adapter in ADAPTERS {
        for remembers in [false, true] {
            let (planted, rival) = (stored(&sessions), stored(&sessions));
            let cookies = format!("{}; {}", cookie(&planted), cookie(&rival));
            for (is_sign_in, cookies) in [(false, ""), (true, &*cookies)] {
                let seen = adapter.serve(&sessions, "/sign-in", cookies, |session| {
                    if is_sign_in {
                        session.renew();
                    }
                    session.remember(remembers);
                    sessions.update_in(session, |value| *value = 5)?;
                    // These are pending.
                    **session = 7;
                    session.remember(!remembers);
                    Err("no mail could be sent".into())
                });
                assert_eq!(seen.status, 500);
                let session = sessions.open_id(&seen.id()).unwrap().expect("it is stored");
                assert_eq!((*session, session.is_remembered()), (5, remembers));
                assert_eq!(seen.header("Set-Cookie")[0].contains("Max-Age"), remembers, "{adapter:?}");
            }
            for id in [planted, rival] {
                assert_eq!(value(&sessions, &id).unwrap_or_default(), 0, "the other sessions ended");
            }
        }
    }
}

#[test]
fn cookie_of_update_survives_failed_commit() {
    let sessions = builder().on_conflict(OnConflict::Fail).build().unwrap();
    for adapter in ADAPTERS {
        let seen = adapter.serve(&sessions, "/", "", |session| {
            sessions.update_in(session, |value| *value = 5)?;
            sessions.update(session.id().unwrap(), |value| *value = 6)?;
            **session = 7;
            Ok(200)
        });
        assert_eq!((seen.status, value(&sessions, &seen.id())), (409, Some(6)), "{adapter:?}");
        assert_eq!(records().len(), 1);
    }
}

#[test]
fn lost_change_gets_409() {
    let sessions = builder().build().unwrap();
    let dropped = |session: &mut Session<u32>| {
        sessions.store().delete(session.id().unwrap()).map(drop)?;
        **session += 1;
        Ok(200)
    };
    for adapter in ADAPTERS {
        let seen = adapter.serve(&sessions, "/cart?a=b", &cookie(&stored(&sessions)), dropped);
        assert_eq!((seen.status, &*seen.body), (409, "409 POST /cart lost"), "{adapter:?}");
        assert_eq!((seen.header("Vary"), seen.header("Set-Cookie")), (vec!["Cookie"], vec![]));
        let logged = records();
        let begins = logged[0].1.starts_with("POST /cart failed: saving a session: ");
        assert_eq!((logged.len(), logged[0].0, begins), (1, Level::Warn, true), "{logged:?}");

        // A response that reports no success stays.
        let seen = adapter.serve(&sessions, "/", &cookie(&stored(&sessions)), |session| {
            dropped(session)?;
            Ok(422)
        });
        assert_eq!((seen.status, &*seen.body), (422, "done"));

        // A session that another request renewed.
        let id = stored(&sessions);
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.renew();
        let _ = sessions.commit(session).unwrap();
        for (status, is_read_only) in [(200, true), (409, false)] {
            let seen = adapter.serve(&sessions, "/", &cookie(&id), |session| {
                assert!(session.is_detached());
                if !is_read_only {
                    **session += 1;
                }
                Ok(200)
            });
            assert_eq!(seen.status, status, "{adapter:?}");
        }
        records();
    }
}

#[test]
fn try_session_leaves_failures_to_the_caller() {
    let sessions = builder().build().unwrap();
    let id = stored(&sessions);
    let request = rouille_request("/reset/token", &cookie(&id));
    let result = rouille::try_session(&sessions, OpenMode::Use, &request, |session| {
        **session = 7;
        Err(Error::new(ErrorKind::Conflict, "testing").into())
    });
    let failure = result.map(drop).unwrap_err();
    assert_eq!((failure.kind(), failure.status()), (Some(ErrorKind::Conflict), 409));
    assert_eq!((failure.method(), failure.path(), failure.is_lost()), ("POST", "/reset/token", false));
    assert_eq!(failure.committed().unwrap().outcome(), Outcome::Unchanged);
    assert!(!format!("{failure:?}").contains("token"), "{failure:?}");
    assert!(records().is_empty(), "it is not logged yet");
    assert_eq!(Seen::from(rouille::error_response(&sessions, &failure)).body, "409 POST /reset/token");
    assert_eq!(records().len(), 1);

    let lose = |session: &mut Session<u32>| {
        sessions.store().delete(session.id().unwrap()).unwrap();
        **session += 1;
    };
    let (_, committed) = rouille::try_session(&sessions, OpenMode::SignIn, &request, |session| {
        lose(session);
        ::rouille::Response::text("done")
    })
    .unwrap();
    assert_eq!(committed.outcome(), Outcome::Dropped);
    let mut request = tiny_http_request("/", &cookie(&stored(&sessions)));
    let (_, committed) = tiny_http::try_session(&sessions, OpenMode::Use, &mut request, |session, _| {
        lose(session);
        ::tiny_http::Response::empty(204)
    })
    .unwrap();
    assert!(committed.outcome().is_lost());
    let failed = tiny_http::try_session(
        &sessions,
        OpenMode::SignIn,
        &mut request,
        |_, _| -> HandlerResult<::tiny_http::ResponseBox> { Err("it fails".into()) },
    );
    let failure = failed.map(drop).unwrap_err();
    assert_eq!((failure.kind(), failure.error().to_string()), (None, "it fails".to_owned()));
    assert_eq!(Seen::from(tiny_http::error_response(&sessions, &failure)).status, 500);
    records();
}

#[test]
fn route_name_replaces_path_in_log() {
    let name = |path: &str| match path.strip_prefix("/reset/") {
        Some("panic") => panic!("as the test wants it"),
        Some(_) => "/reset/{token}".to_owned(),
        None => path.to_owned(),
    };
    let sessions = builder().route_name(name).build().unwrap();
    for adapter in ADAPTERS {
        for (path, shown) in [("/reset/secret?secret", "/reset/{token}"), ("/reset/panic", "?"), ("/?secret", "/")] {
            let seen = adapter.serve(&sessions, path, "", |_| Err("it fails".into()));
            let (path, _) = path.split_once('?').unwrap_or((path, ""));
            assert_eq!(seen.body, format!("500 POST {path}"), "the hook gets the path");
            assert_eq!(records(), [(Level::Error, format!("POST {shown} failed: it fails"))]);
        }
    }
}

/// An error of the application with a cause.
#[derive(Debug)]
struct Ordering(BoxError);

impl fmt::Display for Ordering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ordering\nfailed")
    }
}

impl std::error::Error for Ordering {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn error_decides_status_and_log() {
    fn fail<E>(error: E) -> Result<u16, E> {
        Err(error)
    }
    let sessions = builder().build().unwrap();
    let conflict = || Error::new(ErrorKind::Conflict, "testing").with_source("a cause");
    let serve = |adapter: Adapter, case: &str| {
        adapter.serve(&sessions, "/", "", |_| {
            if case == "text" {
                return Err("early".into());
            }
            Ok(match case {
                "crate" => fail(conflict())?,
                "boxed crate" => fail::<BoxError>(conflict().into())?,
                "wrapped crate" => fail(Ordering(conflict().into()))?,
                "parsing" => "x".parse()?,
                _ => fail::<BoxError>(Box::new(Ordering("no stock".into())))?,
            })
        })
    };
    let conflict = format!("{:#}", conflict());
    for adapter in ADAPTERS {
        for (case, status, text) in [
            ("text", 500, "early"),
            ("crate", 409, &conflict),
            ("boxed crate", 409, &conflict),
            ("wrapped crate", 409, &format!("ordering failed: {conflict}")),
            ("parsing", 500, "invalid digit found in string"),
            ("boxed", 500, "ordering failed: no stock"),
        ] {
            assert_eq!(serve(adapter, case).status, status, "{case}");
            assert_eq!(records(), [(Level::Error, format!("POST / failed: {text}"))], "{case}");
        }
    }
}

#[test]
fn page_cannot_weaken_headers_and_may_panic() {
    keep_records();
    let page = |failure: &threaded_sessions::Failure| match failure.path() {
        "/panic" => panic!("as the test wants it"),
        "/json" => ErrorPage::json(format!("{}", failure.wants_json())).with_status(418),
        _ => ErrorPage::text("busy")
            .with_status(503)
            .with_header("cache-control", "public")
            .with_header("Retry-After", "0")
            .with_header("CDN-Cache-Control", "max-age=60")
            .with_header("Surrogate-Control", "max-age=60")
            .with_header("X-Split", "a\r\nb")
            .with_header("X-Own", "stays"),
    };
    let sessions = Sessions::builder(MemorySessionStore::new()).error_page(page).build().unwrap();
    for adapter in ADAPTERS {
        let serve = |path| adapter.serve(&sessions, path, "", |_| Err("a secret cause".into()));
        let seen = serve("/panic");
        assert_eq!((seen.status, &*seen.body), (500, "Something went wrong."), "{adapter:?}");
        assert_eq!((serve("/json").status, &*serve("/json").body), (418, "false"));
        let seen = serve("/");
        assert_eq!((seen.status, &*seen.body), (503, "busy"));
        assert_eq!((seen.header("Cache-Control"), seen.header("Retry-After")), (vec!["no-store"], vec!["1"]));
        assert_eq!((seen.header("X-Split"), seen.header("X-Own")), (vec![], vec!["stays"]));
        assert!(seen.header("CDN-Cache-Control").is_empty() && seen.header("Surrogate-Control").is_empty());
        // The adapter still serves, and the session is not taken for one that is open already.
        assert_eq!(adapter.serve(&sessions, "/", "", |_| Ok(200)).status, 200);
    }
    records();
}

#[test]
fn page_sees_the_wanted_format() {
    let sessions = Sessions::builder(MemorySessionStore::new());
    let sessions = sessions.error_page(|failure| ErrorPage::text(failure.wants_json().to_string())).build().unwrap();
    for (accept, wants_json) in [
        ("application/json", "true"),
        ("application/problem+JSON;q=0.9, */*", "true"),
        ("*/*, application/json, text/html", "true"),
        ("text/html,application/xhtml+xml,application/json", "false"),
        ("*/*", "false"),
        ("", "false"),
    ] {
        let request = ::rouille::Request::fake_http("GET", "/", vec![("accept".into(), accept.into())], Vec::new());
        let fail = |_: &mut Session<u32>| -> HandlerResult<::rouille::Response> { Err("it fails".into()) };
        assert_eq!(Seen::from(rouille::sign_in(&sessions, &request, fail)).body, wants_json, "{accept}");
        let accept = ::tiny_http::Header::from_bytes("Accept", accept).unwrap();
        let mut request = ::tiny_http::TestRequest::new().with_header(accept).into();
        let fail = |_: &mut Session<u32>, _: &mut _| -> HandlerResult<::tiny_http::ResponseBox> { Err("x".into()) };
        assert_eq!(Seen::from(tiny_http::sign_in(&sessions, &mut request, fail)).body, wants_json);
    }
}

#[test]
fn repeated_failures_log_one_line() {
    keep_records();
    let mut kept = Vec::new();
    let mut take = |level: Level| -> Vec<String> {
        kept.extend(records());
        kept.extract_if(.., |(found, _)| *found == level).map(|(_, text)| text).collect()
    };
    let away = SessionManager::<u32>::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap());
    let id = SessionId::random();
    let cookie = || vec![("Cookie".to_owned(), format!("__Host-session={}", id.expose()))];
    for _ in 0..20 {
        let request = ::rouille::Request::fake_http("GET", "/", cookie(), Vec::new());
        let response = rouille::session(&away, &request, |_| ::rouille::Response::empty_204());
        assert_eq!(response.status_code, 503);
        // Both adapters count together, and so do errors that a handler passes on.
        let error = away.open([&*cookie()[0].1]).unwrap_err();
        assert_eq!(tiny_http::failure(&error).status_code().0, 503);
        let seen = Adapter::TinyHttp.serve(&away, "/", "", |_| Err(Error::new(error.kind(), "testing").into()));
        assert_eq!((seen.status, seen.header("Retry-After")), (503, vec!["1"]));
    }
    let warnings = take(Level::Warn);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("1 request failed since the last warning; GET / failed: "), "{warnings:?}");
    let each = take(Level::Debug);
    let begins = |text: &String, index: usize| {
        text.starts_with(["GET / failed: ", "a request failed: ", "POST / failed: "][index % 3])
    };
    assert!(each.len() == 60 && each.iter().zip(0..).all(|(text, index)| begins(text, index)), "{each:?}");
    assert!(take(Level::Error).is_empty());

    // Requests that succeed count nothing, and log nothing within ten seconds.
    let healthy = SessionManager::<u32>::new(MemorySessionStore::new());
    let request = ::rouille::Request::fake_http("GET", "/", Vec::new(), Vec::new());
    assert_eq!(rouille::session(&healthy, &request, |_| ::rouille::Response::empty_204()).status_code, 204);
    for (kind, status) in [(ErrorKind::Misconfigured, 500), (ErrorKind::Conflict, 409), (ErrorKind::Denied, 500)] {
        assert_eq!(rouille::failure(&Error::new(kind, "testing")).status_code, status);
        assert_eq!(tiny_http::failure(&Error::new(kind, "testing")).status_code().0, status);
    }
    let errors = take(Level::Error);
    assert!(
        errors.len() == 6 && errors.iter().all(|text| text.starts_with("a request failed: testing: ")),
        "{errors:?}"
    );
    assert!(take(Level::Warn).is_empty() && take(Level::Debug).is_empty());

    // After a mistake in a deploy, many requests meet sessions that cannot be read.
    for _ in 0..20 {
        assert_eq!(rouille::failure(&Error::new(ErrorKind::Payload, "testing")).status_code, 500);
    }
    assert!(take(Level::Error).len() <= 1);
    assert_eq!(take(Level::Debug).len(), 20);
}
