//! The adapter for the types of the crate `http`, over real connections to oxhttp and astra.
//!
//! The package in `package/` builds it. `tests/http.rs` has the cases that need no server.

#[allow(dead_code)]
mod app;
#[allow(dead_code)]
#[path = "../support/http.rs"]
mod client;

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use app::{Sessions, app};
use client::{Client, Response};
use threaded_sessions::{MemorySessionStore, RedisSessionStore, http::session};

/// How long a client waits before it nudges the server.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a client nudges the server before it gives up.
const NUDGES: usize = 60;

/// A server for an application. It serves until the test program ends.
type Serve = fn(App) -> SocketAddr;

type App = Arc<dyn Fn(&http::request::Parts, &[u8]) -> http::Response<Vec<u8>> + Send + Sync>;

fn oxhttp(app: App) -> SocketAddr {
    let handler = move |request: &mut http::Request<oxhttp::model::Body>| {
        let mut body = Vec::new();
        request.body_mut().read_to_end(&mut body).unwrap();
        let (parts, _) = std::mem::take(request).into_parts();
        app(&parts, &body).map(Into::into)
    };
    let handler = Arc::new(handler);
    loop {
        // It reports no address, so take one that was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let handler = handler.clone();
        if oxhttp::Server::new(move |request| handler(request)).bind(address).spawn().is_ok() {
            return address;
        }
    }
}

fn astra(app: App) -> SocketAddr {
    let server = astra::Server::bind((Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let handler = move |request: astra::Request, _| {
        let (parts, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        body.reader().read_to_end(&mut bytes).unwrap();
        app(&parts, &bytes).map(Into::into)
    };
    thread::spawn(move || server.serve(handler).unwrap());
    address
}

/// A client that nudges the server.
///
/// astra 0.4.0 can miss that a request arrived, at the start of a connection or while it reads the end of the last request. It
/// then looks only when more bytes arrive. Servers ignore an empty line in front of a request.
struct Visitor(Client);

impl Visitor {
    fn new(address: SocketAddr) -> Self {
        Self(Client::new(address))
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[])
    }

    #[track_caller]
    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_send(method, path, headers).expect("a whole response")
    }

    fn try_send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        self.0.write(method, path, headers)?;
        self.read(method)
    }

    fn read(&mut self, method: &str) -> io::Result<Response> {
        for _ in 0..NUDGES {
            match self.0.read(method) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.write_raw(b"\r\n")?,
                read => return read,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

const SERVERS: [(&str, Serve); 2] = [("oxhttp", oxhttp), ("astra", astra)];

/// Starts each server with these sessions, and calls the test with a client of the server.
#[track_caller]
fn on_each_server(sessions: impl Fn() -> Sessions, test: impl Fn(&mut Visitor)) {
    for (name, serve) in SERVERS {
        let sessions = sessions();
        let address = serve(Arc::new(move |request, body| app(&sessions, request, body)));
        let tested = catch_unwind(AssertUnwindSafe(|| test(&mut Visitor::new(address))));
        assert!(tested.is_ok(), "failed on {name}");
    }
}

fn in_memory() -> Sessions {
    Sessions::builder(MemorySessionStore::new()).exempt_path("/saml/acs").build().unwrap()
}

#[test]
fn only_the_first_change_sets_a_cookie() {
    on_each_server(in_memory, |client| {
        let read = client.get("/read");
        assert_eq!((&*read.body, read.header("Set-Cookie")), ("0", None));
        let first = client.get("/count");
        let cookie = first.header("Set-Cookie").expect("a cookie");
        assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"), "{cookie}");
        for (path, body) in [("/count", "2"), ("/read", "2"), ("/count", "3")] {
            let response = client.get(path);
            assert_eq!((&*response.body, response.header("Set-Cookie")), (body, None));
            assert_eq!((response.header("Cache-Control"), response.header("Vary")), (Some("no-store"), Some("Cookie")));
        }
        assert_eq!(client.get("/static").header("Vary"), None);
    });
}

#[test]
fn handler_gets_the_body() {
    on_each_server(in_memory, |client| {
        client.get("/count");
        let id = &client.0.cookies["__Host-session"];
        // In one piece, because astra 0.4.0 reads no more of a body once the handler runs.
        let request =
            format!("POST /add HTTP/1.1\r\nHost: a\r\nCookie: __Host-session={id}\r\nContent-Length: 2\r\n\r\n20");
        for expected in ["POST 21", "POST 41"] {
            client.0.write_raw(request.as_bytes()).unwrap();
            let response = client.read("POST").unwrap();
            assert_eq!((response.status, &*response.body), (201, expected));
        }
    });
}

#[test]
fn session_is_found_in_any_cookie_header() {
    on_each_server(in_memory, |client| {
        client.get("/count");
        let id = std::mem::take(&mut client.0.cookies).remove("__Host-session").unwrap();
        let own = format!("__Host-session={id}").into_bytes();
        let beside_bytes = [b"a=\xFF\xFE; ", &*own, b"; b=\x80"].concat();
        for headers in [&[b"a=1", &*own][..], &[&own, b"a=1; b"], &[b"\xFF", &own], &[&beside_bytes]] {
            let lines = headers.iter().flat_map(|value| [b"Cookie: ", *value, b"\r\n"]).flatten().copied();
            let head = b"GET /read HTTP/1.1\r\nHost: a\r\n".iter().copied();
            client.0.write_raw(&head.chain(lines).chain(*b"\r\n").collect::<Vec<_>>()).unwrap();
            let response = client.read("GET").unwrap();
            assert_eq!((response.status, &*response.body), (200, "1"), "{headers:?}");
        }
    });
}

#[test]
fn response_with_cookie_is_never_for_shared_caches() {
    on_each_server(in_memory, |client| {
        let own = client.get("/own");
        assert_eq!((own.header("Cache-Control"), own.header("Vary")), (Some("private"), Some("Accept, Cookie")));
        assert!(own.all("Set-Cookie").count() == 2 && client.0.cookies.contains_key("theme"), "{own:?}");
    });
}

#[test]
fn forged_requests_reach_no_handler() {
    on_each_server(in_memory, |client| {
        let other = ("Origin", "https://attacker.example");
        for (method, path, headers, status) in [
            ("POST", "/count", &[other, ("Content-Length", "0")][..], 403),
            ("POST", "/count", &[("Sec-Fetch-Site", "cross-site"), ("Content-Length", "0")], 403),
            ("POST", "/count", &[("Sec-Fetch-Site", "same-origin"), ("Content-Length", "0")], 200),
            ("POST", "/saml/acs?a=b", &[other, ("Content-Length", "0")], 200),
            ("GET", "/count", &[other], 200),
        ] {
            assert_eq!(client.send(method, path, headers).status, status, "{method} {path} {headers:?}");
        }
        assert_eq!(client.get("/read").body, "3");
    });
}

#[test]
fn status_reports_each_failure() {
    on_each_server(in_memory, |client| {
        client.get("/count");
        for (path, status) in [("/fail", 500), ("/nested", 500), ("/lost-404", 404), ("/sign-in", 200), ("/lost", 409)]
        {
            assert_eq!(client.get(path).status, status, "{path}");
        }
    });
    on_each_server(
        || Sessions::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap()),
        |client| {
            let response = client.get("/count");
            assert_eq!((response.status, response.header("Retry-After")), (503, Some("1")));
        },
    );
}

#[test]
fn panicking_handler_commits_nothing() {
    on_each_server(in_memory, |client| {
        client.get("/count");
        // The servers close the connection.
        assert!(client.try_send("GET", "/panic", &[]).is_err());
        client.0.reconnect();
        assert_eq!(client.get("/read").body, "1");
    });
}

#[test]
fn requests_are_served_at_the_same_time() {
    const CLIENTS: usize = 4;
    for (name, serve) in SERVERS {
        let (sessions, all) = (in_memory(), Arc::new(Barrier::new(CLIENTS)));
        let address = serve(Arc::new(move |request, _| {
            session(&sessions, request, |count| {
                **count += 1;
                all.wait();
                http::Response::new(b"met".to_vec())
            })
        }));
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| thread::spawn(move || Visitor::new(address).get("/").body)).collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == "met"), "{name}");
    }
}
