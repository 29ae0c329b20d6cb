//! The adapter for tiny_http, over real connections: cookies, status codes, and commits of handlers.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::{Client, Monitor, PATIENCE, shared, unique};
use threaded_sessions::tiny_http::{answer, bearer, discard_unreadable, peek, respond, session, sign_in};
use threaded_sessions::{
    Clock, MemorySessionStore, OnConflict, RedisSessionStore, SessionManager, SessionManagerBuilder, TOKEN_HEADER,
};
use tiny_http::{Header, Method, Request, Response, Server};

type Sessions = SessionManager<u32>;

fn sessions(settings: impl FnOnce(SessionManagerBuilder<u32>) -> SessionManagerBuilder<u32>) -> Sessions {
    settings(Sessions::builder(MemorySessionStore::new())).build().unwrap()
}

/// A server with accepting threads, which it waits for in the end.
struct Site {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
}

impl Site {
    fn start(sessions: &Sessions, threads: usize, route: impl Fn(&Sessions, Request) + Clone + Send + 'static) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let accept = |_| {
            let (server, sessions, route) = (server.clone(), sessions.clone(), route.clone());
            thread::spawn(move || server.incoming_requests().for_each(|request| route(&sessions, request)))
        };
        let threads = (0..threads).map(accept).collect();
        Self { server, threads }
    }

    fn address(&self) -> SocketAddr {
        self.server.server_addr().to_ip().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.address())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.threads.iter().for_each(|_| self.server.unblock());
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "an accepting thread died");
        }
    }
}

fn route(sessions: &Sessions, request: Request) {
    let text = Response::from_string::<String>;
    let header = |name, value| Header::from_bytes(name, value).unwrap();
    let sent = match request.url() {
        "/static" => request.respond(text("static".into())),
        "/read" => respond(sessions, request, |count, _| text(count.to_string())),
        "/left" => answer(request, |request| {
            peek(sessions, request, |count, _| text(format!("{} {:?}", **count, count.expires_in())))
        }),
        "/count" => respond(sessions, request, |count, _| {
            **count += 1;
            text(count.to_string())
        }),
        "/add" => respond(sessions, request, |count, request| {
            let mut body = String::new();
            request.as_reader().read_to_string(&mut body).unwrap();
            **count += body.parse::<u32>().unwrap();
            text(format!("{} {}", request.method(), **count)).with_status_code(201)
        }),
        "/own" => respond(sessions, request, |count, _| {
            **count += 1;
            let own = [("cache-control", "private"), ("VARY", "Accept"), ("Set-Cookie", "theme=dark; Path=/")];
            own.into_iter()
                .fold(text("own".into()), |response, (name, value)| response.with_header(header(name, value)))
        }),
        "/public" => respond(sessions, request, |count, _| {
            **count += 1;
            let own = [
                ("Cache-Control", "public, max-age=60"),
                ("Surrogate-Control", "max-age=60"),
                ("Vary", "Accept"),
                ("vary", "Origin"),
                ("X-Own", "stays"),
            ];
            let response = text("x".repeat(100)).with_chunked_threshold(10).with_status_code(201);
            own.into_iter().fold(response, |response, (name, value)| response.with_header(header(name, value)))
        }),
        "/nested" => respond(sessions, request, |count, request| {
            **count += 1;
            session(sessions, request, |_, _| -> Response<std::io::Empty> { panic!("it is open already") })
        }),
        "/two-managers" => respond(sessions, request, |count, request| {
            **count += 1;
            let other = Sessions::builder(MemorySessionStore::new()).cookie_name("other").build().unwrap();
            session(&other, request, |other, _| {
                **other += 1;
                text("both".into())
            })
        }),
        "/sign-in" => answer(request, |request| {
            sign_in(sessions, request, |count, _| {
                count.renew();
                text(count.to_string())
            })
        }),
        "/start-over" => answer(request, |request| discard_unreadable(sessions, request, text("anew".into()))),
        "/token" => answer(request, |request| {
            bearer(sessions, request, |count, _| {
                **count += 1;
                text(count.to_string())
            })
        }),
        "/new-token" => answer(request, |request| {
            bearer(sessions, request, |count, _| {
                count.renew();
                text(count.to_string())
            })
        }),
        "/panic" => respond(sessions, request, |count, _| -> Response<std::io::Empty> {
            **count += 1;
            panic!("as the test wants it")
        }),
        "/panic-without-session" => answer(request, |_| -> Response<std::io::Empty> { panic!("as the test wants it") }),
        // Another request changes the session while this one has it.
        "/clash" => respond(sessions, request, |count, _| {
            let mut other = sessions.open_id(count.id().unwrap()).unwrap().unwrap();
            *other += 1;
            let _ = sessions.commit(other).unwrap();
            **count += 10;
            text(count.to_string())
        }),
        url => panic!("{url}"),
    };
    sent.unwrap();
}

#[test]
fn visitor_gets_one_cookie_with_first_change() {
    let site = Site::start(&sessions(|settings| settings), 2, route);
    let mut client = site.client();

    let read = client.get("/read");
    assert_eq!((&*read.body, read.header("Set-Cookie")), ("0", None));
    let first = client.get("/count");
    let cookie = first.header("Set-Cookie").expect("a cookie");
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-session="), "{cookie}");
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Secure; Path=/");
    for (path, body) in [("/count", "2"), ("/read", "2"), ("/count", "3")] {
        let response = client.get(path);
        assert_eq!((&*response.body, response.header("Set-Cookie")), (body, None));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert_eq!(response.header("Vary"), Some("Cookie"));
    }
}

#[test]
fn peek_moves_no_deadline() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = Sessions::builder(store).clock(clock.clone()).idle_timeout(Duration::from_secs(100));
    let site = Site::start(&builder.build().unwrap(), 1, route);
    let mut client = site.client();
    client.get("/count");
    clock.advance(Duration::from_secs(99));
    for _ in 0..2 {
        let response = client.get("/left");
        assert_eq!((&*response.body, response.header("Set-Cookie")), ("1 Some(1s)", None));
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(client.get("/left").body, "0 None");
}

#[test]
fn the_handler_has_the_request_with_its_body() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    for expected in ["POST 20", "POST 40"] {
        client.write("POST", "/add", &[("Content-Length", "2")]).unwrap();
        client.write_raw(b"20").unwrap();
        let response = client.read(Method::Post.as_str()).unwrap();
        assert_eq!((response.status, &*response.body), (201, expected));
    }
}

#[test]
fn session_is_found_in_any_cookie_header() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    client.get("/count");
    let jar = std::mem::take(&mut client.cookies);
    let (name, value) = jar.first_key_value().unwrap();
    let cookie = format!("{name}={value}");
    for headers in [
        [("Cookie", "a=1"), ("cookie", &*cookie)],
        [("COOKIE", &*cookie), ("Cookie", "a=1; b")],
        [("Cookie", "__Host-session=nonsense"), ("Cookie", &*cookie)],
    ] {
        assert_eq!(client.send("GET", "/read", &headers).body, "1", "{headers:?}");
    }
}

#[test]
fn panicking_handler_commits_nothing_and_thread_survives() {
    // With only one thread, the next request shows that the thread survived.
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    for path in ["/panic", "/panic-without-session"] {
        let response = client.get(path);
        assert_eq!((response.status, response.header("Set-Cookie")), (500, None));
    }
    assert_eq!(client.get("/count").body, "1");
    assert_eq!(client.get("/panic").status, 500);
    assert_eq!(client.get("/count").body, "2");
}

#[test]
fn handler_headers_are_kept() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    let response = client.get("/own");
    assert_eq!(response.header("Cache-Control"), Some("private"));
    assert_eq!(response.header("Vary"), Some("Accept, Cookie"));
    assert_eq!(response.all("Set-Cookie").count(), 2);
    assert!(client.cookies.contains_key("theme") && client.cookies.contains_key("__Host-session"));
}

#[test]
fn every_accepting_thread_serves() {
    const THREADS: usize = 4;
    let all = Arc::new(Barrier::new(THREADS));
    let site = Site::start(&sessions(|settings| settings), THREADS, move |sessions, request| {
        let meet = |count: &mut threaded_sessions::Session<u32>, _: &mut Request| {
            **count += 1;
            all.wait();
            Response::from_string("met")
        };
        respond(sessions, request, meet).unwrap();
    });
    let client = |_| {
        thread::spawn({
            let address = site.address();
            move || Client::new(address).get("/").body
        })
    };
    let clients: Vec<_> = (0..THREADS).map(client).collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == "met"));
}

#[test]
fn failed_open_or_commit_sets_the_status() {
    let away = Sessions::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap());
    let refusing = sessions(|settings| settings.on_conflict(OnConflict::Fail));
    let small = sessions(|settings| settings.max_payload(1));
    for (sessions, path, status, retry_after) in [
        (&away, "/count", 503, Some("1")),
        (&away, "/read", 200, None),
        (&refusing, "/clash", 409, None),
        (&small, "/count", 500, None),
    ] {
        let site = Site::start(sessions, 1, route);
        let mut client = site.client();
        if path == "/clash" {
            client.get("/count");
        }
        let response = client.get(path);
        assert_eq!((response.status, response.header("Retry-After")), (status, retry_after), "{path}");
        assert_eq!(response.header("Set-Cookie"), None);
    }
}

#[test]
fn a_static_route_costs_no_command() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("static")).deadline(PATIENCE).build();
    let store = store.unwrap();
    let site = Site::start(&Sessions::new(store), 1, route);
    let mut client = site.client();
    client.get("/count");
    let id = client.cookies["__Host-session"].clone();
    let monitor = Monitor::start(shared());
    assert_eq!(client.get("/static").body, "static");
    client.get("/read");
    let commands = monitor.commands();
    let ours: Vec<_> = commands.iter().filter(|command| command.iter().any(|word| word.contains(&id))).collect();
    assert_eq!(ours.len(), 1, "reading costs one, the static route none: {commands:?}");
}

#[test]
fn response_with_cookie_is_never_for_shared_caches() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    let first = client.get("/public");
    assert_eq!((first.status, first.body.len(), first.all("Set-Cookie").count()), (201, 100, 1));
    assert_eq!(first.all("Cache-Control").collect::<Vec<_>>(), ["no-store"]);
    assert_eq!(first.all("Vary").collect::<Vec<_>>(), ["Accept, Origin, Cookie"]);
    assert_eq!(first.header("Surrogate-Control"), None);
    assert_eq!((first.header("X-Own"), first.header("Transfer-Encoding")), (Some("stays"), Some("chunked")));
    let second = client.get("/public");
    assert_eq!((second.header("Set-Cookie"), second.header("Cache-Control")), (None, Some("public, max-age=60")));
}

#[test]
fn second_opening_in_one_request_fails_loudly() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    for _ in 0..2 {
        let response = client.get("/nested");
        assert_eq!((response.status, response.all("Set-Cookie").count() <= 1), (500, true));
    }
    assert_eq!(client.get("/read").body, "2", "the outer session is kept");
    let response = client.get("/two-managers");
    assert_eq!((response.status, response.all("Set-Cookie").count()), (200, 1));
}

#[test]
fn unreadable_session_has_two_ways_out() {
    let store = MemorySessionStore::new();
    let before = SessionManager::<String>::new(store.clone());
    let site = Site::start(&Sessions::new(store), 1, route);
    for (path, body) in [("/sign-in", "0"), ("/start-over", "anew")] {
        let mut session = before.fresh();
        *session = "a cart".to_owned();
        let id = *before.commit(session).unwrap().id().unwrap();
        let mut client = site.client();
        client.cookies.insert("__Host-session".into(), id.expose());
        assert_eq!(client.get("/read").status, 500);
        let response = client.get(path);
        assert_eq!((response.status, &*response.body), (200, body));
        assert_ne!(client.cookies.get("__Host-session"), Some(&id.expose()));
        assert_eq!(client.get("/read").status, 200);
        assert!(before.open_id(&id).unwrap().is_none());
    }
}

#[test]
fn bearer_client_keeps_its_session_without_cookies() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    let first = client.send("POST", "/token", &[]);
    let token = |response: &support::Response| format!("Bearer {}", response.header(TOKEN_HEADER).unwrap());
    let old = token(&first);
    let new = client.send("POST", "/new-token", &[("Authorization", &old), ("Sec-Fetch-Site", "cross-site")]);
    assert_eq!((new.status, first.header("Set-Cookie"), new.header("Set-Cookie")), (200, None, None));
    let second = client.send("POST", "/token", &[("Authorization", &token(&new))]);
    assert_eq!((&*second.body, second.header("Vary"), second.header(TOKEN_HEADER)), ("2", Some("Authorization"), None));
    let late = client.send("GET", "/token", &[("Authorization", &old)]);
    assert_eq!((late.status, late.header(TOKEN_HEADER)), (409, None));
    let forged = client.send("POST", "/count", &[("Authorization", &token(&new)), ("Sec-Fetch-Site", "cross-site")]);
    assert_eq!(forged.status, 403);
}
