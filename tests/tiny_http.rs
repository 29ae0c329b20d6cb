//! The adapter for tiny_http, over real connections.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use support::{Client, Monitor, PATIENCE, shared, unique};
use threaded_sessions::tiny_http::{answer, respond};
use threaded_sessions::{MemorySessionStore, OnConflict, RedisSessionStore, SessionManager, SessionManagerBuilder};
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
fn a_visitor_gets_a_cookie_with_the_first_change_and_no_other_after() {
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
fn the_session_is_found_in_any_of_several_cookie_headers() {
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
fn a_handler_that_panics_commits_nothing_and_its_thread_lives_on() {
    // There is only one to answer what comes after.
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
fn headers_that_the_handler_set_stand() {
    let site = Site::start(&sessions(|settings| settings), 1, route);
    let mut client = site.client();
    let response = client.get("/own");
    assert_eq!(response.header("Cache-Control"), Some("private"));
    assert_eq!(response.header("Vary"), Some("Accept"));
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
fn what_could_not_be_opened_or_committed_is_told_by_the_status() {
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
