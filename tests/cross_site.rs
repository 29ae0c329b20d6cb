//! Forged requests through the adapters: status, log, and the visitor's session.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle, ThreadId};

use log::Level;
use rouille::Request;
use support::{Client, keep_logs, logged_by};
use threaded_sessions::{
    ErrorKind, MemorySessionStore, OpenMode, SessionManager, SessionManagerBuilder, rouille as on_rouille,
    tiny_http as on_tiny_http,
};
use tiny_http::Server;

type Sessions = SessionManager<u32>;
type Header<'a> = (&'a str, &'a str);

const CROSS_SITE: Header<'_> = ("Sec-Fetch-Site", "cross-site");
const SAME_ORIGIN: Header<'_> = ("Sec-Fetch-Site", "same-origin");

fn builder() -> SessionManagerBuilder<u32> {
    Sessions::builder(Arc::new(MemorySessionStore::new()))
}

fn count(sessions: &Sessions) -> u64 {
    sessions.store().index().expect("the memory store has an index").count().unwrap()
}

/// A tiny_http server with one thread, whose handler counts in the session and overall.
struct Site {
    sessions: Sessions,
    server: Arc<Server>,
    handled: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    fn start(builder: SessionManagerBuilder<u32>) -> Self {
        keep_logs();
        let (sessions, handled) = (builder.build().unwrap(), Arc::new(AtomicU32::new(0)));
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let thread = thread::spawn({
            let (sessions, server, handled) = (sessions.clone(), server.clone(), handled.clone());
            move || {
                for request in server.incoming_requests() {
                    let sent = on_tiny_http::respond(&sessions, request, |session, _| {
                        handled.fetch_add(1, Ordering::Relaxed);
                        **session += 1;
                        tiny_http::Response::from_string(session.to_string())
                    });
                    sent.unwrap();
                }
            }
        });
        Self { sessions, server, handled, thread: Some(thread) }
    }

    fn address(&self) -> SocketAddr {
        self.server.server_addr().to_ip().unwrap()
    }

    fn handled(&self) -> u32 {
        self.handled.load(Ordering::Relaxed)
    }

    fn warnings(&self) -> Vec<String> {
        warnings(self.thread.as_ref().unwrap().thread().id())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.unblock();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the accepting thread died");
    }
}

/// The warnings of a thread. It may have logged nothing else but debug output.
fn warnings(thread: ThreadId) -> Vec<String> {
    let logged = logged_by(thread).into_iter().filter(|(level, _)| *level <= Level::Info);
    let warn = |(level, text)| {
        assert_eq!(level, Level::Warn, "{text}");
        text
    };
    logged.map(warn).collect()
}

/// A proxy that puts another name into `Host`, as nginx does by default. It ends with the test program.
fn proxy_with_host(host: &'static str, server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|client| forward(client.unwrap(), host, server)));
    address
}

/// Forwards one request, and the response until the server closes the connection.
fn forward(mut client: TcpStream, host: &str, server: SocketAddr) {
    let mut head = format!("Connection: close\r\nHost: {host}\r\n");
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map(Result::unwrap);
    let Some(request_line) = lines.next() else { return };
    for line in lines.take_while(|line| !line.is_empty()) {
        if !line.to_ascii_lowercase().starts_with("host:") {
            head += &format!("{line}\r\n");
        }
    }
    let mut upstream = TcpStream::connect(server).unwrap();
    upstream.write_all(format!("{request_line}\r\n{head}\r\n").as_bytes()).unwrap();
    let mut response = Vec::new();
    upstream.read_to_end(&mut response).unwrap();
    client.write_all(&response).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn forged_request_keeps_the_visitors_cookie() {
    let site = Site::start(builder());
    let mut client = Client::new(site.address());
    assert_eq!(client.send("POST", "/", &[SAME_ORIGIN]).body, "1");
    let jar = client.cookies.clone();
    assert_eq!((jar.len(), count(&site.sessions)), (1, 1));

    // A Lax cookie is absent from a cross-site POST, and a response could overwrite it.
    client.cookies.clear();
    let forged = client.send("POST", "/", &[CROSS_SITE, ("Origin", "https://attacker.example")]);
    assert_eq!((forged.status, forged.header("Set-Cookie")), (403, None));
    assert!(!forged.body.contains("attacker"), "{}", forged.body);
    assert_eq!((site.handled(), count(&site.sessions)), (1, 1));

    // With the cookie, as an older browser sends it, the session stays as it is.
    client.cookies = jar;
    assert_eq!(client.send("POST", "/", &[CROSS_SITE]).status, 403);
    assert_eq!(client.send("POST", "/", &[SAME_ORIGIN]).body, "2");
    assert_eq!((site.handled(), count(&site.sessions), site.warnings().len()), (2, 1, 2));
}

#[test]
fn requests_over_tiny_http_follow_the_table() {
    let settings = builder().trusted_origin("https://trusted.example").exempt_path("/saml/acs");
    let site = Site::start(settings);
    let own = format!("http://{}", site.address());
    let mut client = Client::new(site.address());
    let attacker = ("Origin", "https://attacker.example");
    for (method, path, headers, status) in [
        ("POST", "/", &[attacker, CROSS_SITE][..], 403),
        ("POST", "/", &[SAME_ORIGIN], 200),
        ("POST", "/", &[("Origin", &*own)], 200),
        ("POST", "/", &[("Origin", "https://trusted.example")], 200),
        ("POST", "/", &[("Origin", "https://trusted.example"), CROSS_SITE], 200),
        ("POST", "/", &[attacker], 403),
        ("POST", "/", &[("Origin", &*own), attacker], 403),
        ("POST", "/", &[("Origin", "null")], 403),
        ("POST", "/", &[], 200),
        ("POST", "/saml/acs?a=b", &[attacker, CROSS_SITE], 200),
        ("POST", "/saml%2Facs", &[attacker, CROSS_SITE], 403),
        ("POST", "/saml/acs/../../", &[attacker], 403),
        ("DELETE", "/", &[CROSS_SITE], 403),
        ("PURGE", "/", &[CROSS_SITE], 403),
        ("GET", "/", &[attacker, CROSS_SITE], 200),
        ("HEAD", "/", &[attacker, CROSS_SITE], 200),
    ] {
        assert_eq!(client.send(method, path, headers).status, status, "{method} {path} {headers:?}");
    }
}

#[test]
fn non_ascii_header_reaches_no_handler() {
    let site = Site::start(builder());
    let mut client = Client::new(site.address());
    client
        .write_raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nSec-Fetch-Site: cross-site\xFF\r\n\r\n")
        .unwrap();
    let status = client.read("POST").map(|response| response.status);
    assert!(!matches!(status, Ok(200)), "{status:?}");
    assert_eq!((site.handled(), count(&site.sessions)), (0, 0));
}

#[test]
fn host_changing_proxy_is_named_in_log() {
    const SEEN: Header<'_> = ("Origin", "https://shop.example");
    let site = Site::start(builder());
    let mut client = Client::new(proxy_with_host("backend:8000", site.address()));
    // Without Sec-Fetch-Site, as over plain HTTP, Origin and Host differ.
    assert_eq!(client.send("POST", "/", &[SEEN]).status, 403);
    let warnings = site.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for words in ["\"https://shop.example\"", "\"backend:8000\"", "let the proxy pass Host", "trusted_origin"] {
        assert!(warnings[0].contains(words), "{}", warnings[0]);
    }
    // A forwarded header does not count.
    client.reconnect();
    assert_eq!(client.send("POST", "/", &[SEEN, ("X-Forwarded-Host", "shop.example")]).status, 403);
    // With the header, the browser decides.
    client.reconnect();
    assert_eq!(client.send("POST", "/", &[SEEN, SAME_ORIGIN]).status, 200);
    client.reconnect();
    assert_eq!(client.send("POST", "/", &[SEEN, CROSS_SITE]).status, 403);
    assert_eq!(site.handled(), 1);

    // Either remedy helps.
    let mut client = Client::new(proxy_with_host("shop.example", site.address()));
    assert_eq!(client.send("POST", "/", &[SEEN]).status, 200);
    let trusting = Site::start(builder().trusted_origin("https://shop.example"));
    let mut client = Client::new(proxy_with_host("backend:8000", trusting.address()));
    assert_eq!(client.send("POST", "/", &[SEEN]).status, 200);
    assert_eq!(trusting.warnings(), [""; 0]);
}

#[test]
fn rouille_refuses_before_the_session_opens() {
    keep_logs();
    let sessions = builder().exempt_path("/saml/acs").build().unwrap();
    let request = |method: &str, url: &str, headers: &[Header<'_>]| {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Request::fake_http(method, url, headers, Vec::new())
    };
    let forged = request("POST", "/cart", &[CROSS_SITE]);
    let response = on_rouille::session(&sessions, &forged, |_| -> rouille::Response { panic!("no handler runs") });
    assert_eq!(response.status_code, 403);
    assert!(response.headers.iter().all(|(name, _)| name != "Set-Cookie"), "{:?}", response.headers);
    let error = on_rouille::try_session(&sessions, OpenMode::Use, &forged, |_| -> rouille::Response {
        panic!("no handler runs")
    })
    .map(drop)
    .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::CrossOrigin));
    assert_eq!(count(&sessions), 0);
    let logged = warnings(thread::current().id());
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("\"cross-site\""), "{logged:?}");

    let serve = |method, url, headers: &[Header<'_>]| {
        let count = |session: &mut threaded_sessions::Session<u32>| {
            **session += 1;
            rouille::Response::text(session.to_string())
        };
        on_rouille::session(&sessions, &request(method, url, headers), count).status_code
    };
    let attacker = ("Origin", "https://attacker.example");
    for (method, url, headers, status) in [
        ("POST", "/saml/acs?a=b", &[attacker, CROSS_SITE][..], 200),
        ("POST", "/saml%2Facs", &[attacker, CROSS_SITE], 403),
        ("POST", "/", &[("Host", "shop.example"), ("Origin", "https://shop.example")], 200),
        ("POST", "/", &[("Host", "shop.example:8000"), ("Origin", "https://shop.example")], 403),
        ("POST", "/", &[SAME_ORIGIN], 200),
        ("POST", "/", &[], 200),
        ("GET", "/", &[CROSS_SITE], 200),
    ] {
        assert_eq!(serve(method, url, headers), status, "{method} {url} {headers:?}");
    }
}

#[test]
fn adapters_serve_all_with_protection_off() {
    let site = Site::start(builder().cross_origin_protection(false));
    let mut client = Client::new(site.address());
    assert_eq!(client.send("POST", "/", &[CROSS_SITE]).status, 200);
    assert_eq!(site.handled(), 1);
}

/// Returns what the manager warns about if a page of this origin sends two forms.
fn cookie_warnings(builder: SessionManagerBuilder<u32>, origin: &str, more: &[Header<'_>]) -> Vec<String> {
    keep_logs();
    let before = logged_by(thread::current().id()).len();
    let sessions = builder.build().unwrap();
    let host = origin.split_once("://").unwrap().1;
    for _ in 0..2 {
        let headers = [("Host", host), ("Origin", origin)].into_iter().chain(more.iter().copied());
        sessions.check_cross_origin("POST", "/login", headers).unwrap();
    }
    logged_by(thread::current().id()).into_iter().skip(before).map(|(_, text)| text).collect()
}

#[test]
fn dropped_cookie_is_logged_once() {
    for origin in ["http://192.168.1.5:8000", "http://shop.example", "http://[2001:db8::1]"] {
        let warnings = cookie_warnings(builder(), origin, &[]);
        assert_eq!(warnings.len(), 1, "{origin}: {warnings:?}");
        assert!(warnings[0].starts_with("browsers drop the session cookie"), "{warnings:?}");
    }
}

#[test]
fn kept_cookie_is_not_logged() {
    for origin in
        ["https://shop.example", "http://localhost:8000", "http://shop.localhost", "http://127.0.0.1", "http://[::1]"]
    {
        assert_eq!(cookie_warnings(builder(), origin, &[]), [""; 0], "{origin}");
    }
    assert_eq!(cookie_warnings(builder(), "http://192.168.1.5", &[SAME_ORIGIN]), [""; 0]);
    assert_eq!(cookie_warnings(builder().secure(false), "http://192.168.1.5", &[]), [""; 0]);
}
