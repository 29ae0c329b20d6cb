//! A page with a counter in a session of 1 KiB, compared with the same page written by hand: it sends the same commands, decodes
//! and encodes without the crate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use threaded_sessions::{RedisSessionStore, SessionManager, rouille as on_rouille, tiny_http as on_tiny_http};

use super::by_hand::{ByHand, Operation};
use super::floor::Floor;
use super::measure::{Act, Load, Place, go};
use super::report::Report;
use super::support::RedisServer;
use super::visit::Visit;

/// The two headers that no personal page should be without; the crate sets them by itself.
const HEADERS: [(&str, &str); 2] = [("Cache-Control", "no-store"), ("Vary", "Cookie")];

/// The longest wait for any reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// How soon an idle server notices that it is to stop.
const IDLE: Duration = Duration::from_millis(200);

pub(crate) fn run(report: &mut Report, redis: &RedisServer) {
    for (place, clients) in [(Place::Together, 1), (Place::Apart, 16)] {
        go(place, redis);
        let connections = if clients == 1 { "connection" } else { "connections" };
        report.section(&format!("HTTP, plain, JSON, {clients} keep-alive {connections}"));
        let plan = report.plan(Load { each: Load::usual(clients).each / 2, threads: clients }, 1);
        let (by_hand, sessions) = (Arc::new(Counter::new(&redis.url(), clients)), manager(&redis.url(), clients));
        for (name, servers) in [
            ("tiny_http", [tiny_http(clients, by_hand.clone()), tiny_http_sessions(clients, sessions.clone())]),
            ("rouille", [rouille(clients, by_hand.clone()), rouille_sessions(clients, sessions.clone())]),
        ] {
            let cookies = [by_hand.cookies(clients), stored(&sessions, clients)];
            let [floor, crate_] = [0, 1].map(|side| Browsers::new(servers[side].address, &cookies[side]));
            report.compare(name, plan, redis, &|_| floor.acts(), &|_| crate_.acts());
        }
    }
}

/// The counter by hand.
struct Counter {
    floor: Floor,
    read: ByHand,
    save: ByHand,
}

impl Counter {
    fn new(url: &str, connections: usize) -> Self {
        let floor = Floor::new(url, connections);
        let [read, save] =
            [Operation::Touch, Operation::SaveIfUnchanged].map(|operation| ByHand::new(&floor, operation, None));
        Self { floor, read, save }
    }

    fn cookies(&self, count: usize) -> Vec<String> {
        let payload = serde_json::to_vec(&Visit::ordinary()).expect("it can be encoded");
        let store = |number: usize| {
            let id = format!("{number:08}-0000-4000-8000-000000000000");
            self.floor.query(&self.read.set(&format!("by-hand:{id}"), &payload));
            format!("__Host-session={id}")
        };
        (0..count).map(store).collect()
    }

    fn count(&self, cookie: &str) -> String {
        let id = cookie.split("; ").find_map(|cookie| cookie.strip_prefix("__Host-session="));
        let key = format!("by-hand:{}", id.expect("the browser sends it"));
        let before = self.read.read(&key);
        let mut visit: Visit = serde_json::from_slice(&before).expect("it was encoded");
        visit.count += 1;
        self.save.write(&key, &serde_json::to_vec(&visit).expect("it can be encoded"), &before);
        visit.count.to_string()
    }
}

fn manager(url: &str, connections: usize) -> SessionManager<Visit> {
    let store = RedisSessionStore::builder().url(url).pool_size(connections as u32).build();
    SessionManager::new(store.expect("the settings are valid"))
}

/// Cookies of sessions that are stored.
fn stored(sessions: &SessionManager<Visit>, count: usize) -> Vec<String> {
    let store = |_| {
        let mut session = sessions.fresh();
        *session = Visit::ordinary();
        let committed = sessions.commit(session).expect("Redis responds");
        format!("__Host-session={}", committed.id().expect("it is stored").expose())
    };
    (0..count).map(store).collect()
}

/// A server on a free port. Dropping it stops the server.
struct Host {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    /// Threads that serve for a moment again and again.
    fn start<S: Send + 'static>(
        address: SocketAddr,
        servers: Vec<S>,
        serve: impl Fn(&S) + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |server: S| {
            let (stop, serve) = (stop.clone(), serve.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    serve(&server);
                }
            })
        };
        let threads = servers.into_iter().map(thread).collect();
        Self { address, stop, threads }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn tiny_http_host(workers: usize, respond: impl Fn(::tiny_http::Request) + Clone + Send + 'static) -> Host {
    let server = Arc::new(::tiny_http::Server::http("127.0.0.1:0").expect("a port is free"));
    let address = server.server_addr().to_ip().expect("it listens on TCP");
    Host::start(address, vec![server; workers], move |server| {
        if let Ok(Some(request)) = server.recv_timeout(IDLE) {
            respond(request);
        }
    })
}

fn tiny_http(workers: usize, counter: Arc<Counter>) -> Host {
    use ::tiny_http::{Header, Request, Response};

    tiny_http_host(workers, move |request: Request| {
        let cookie = request.headers().iter().find(|header| header.field.equiv("Cookie"));
        let page = counter.count(cookie.expect("the browser sends it").value.as_str());
        let header = |(name, value)| Header::from_bytes(name, value).expect("ASCII");
        let response = Response::from_string(page);
        let _ = request.respond(HEADERS.into_iter().map(header).fold(response, Response::with_header));
    })
}

fn tiny_http_sessions(workers: usize, sessions: SessionManager<Visit>) -> Host {
    tiny_http_host(workers, move |request| {
        let _ = on_tiny_http::respond(&sessions, request, |visit, _| {
            visit.count += 1;
            ::tiny_http::Response::from_string(visit.count.to_string())
        });
    })
}

fn rouille_host(
    workers: usize,
    handler: impl Fn(&::rouille::Request) -> ::rouille::Response + Send + Sync + 'static,
) -> Host {
    let server = ::rouille::Server::new("127.0.0.1:0", handler).expect("a port is free").pool_size(workers);
    Host::start(server.server_addr(), vec![server], |server| server.poll_timeout(IDLE))
}

fn rouille(workers: usize, counter: Arc<Counter>) -> Host {
    rouille_host(workers, move |request| {
        let page = counter.count(request.header("Cookie").expect("the browser sends it"));
        let header = |response: ::rouille::Response, (name, value)| response.with_additional_header(name, value);
        HEADERS.into_iter().fold(::rouille::Response::text(page), header)
    })
}

fn rouille_sessions(workers: usize, sessions: SessionManager<Visit>) -> Host {
    rouille_host(workers, move |request| {
        on_rouille::session(&sessions, request, |visit| {
            visit.count += 1;
            ::rouille::Response::text(visit.count.to_string())
        })
    })
}

/// Visitors, each with a session and a connection of his own.
struct Browsers(Vec<Mutex<Browser>>);

struct Browser {
    connection: BufReader<TcpStream>,
    request: Vec<u8>,
    /// The count that the page must show next.
    count: u64,
    line: Vec<u8>,
}

impl Browsers {
    /// They come one after the other: of connections that come at once tiny_http leaves some without a thread, for as long
    /// as the others stay.
    fn new(address: SocketAddr, cookies: &[String]) -> Self {
        let browser = |cookie| {
            let connection = TcpStream::connect(address).expect("the server listens");
            connection.set_nodelay(true).expect("it is TCP");
            connection.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
            connection.set_write_timeout(Some(PATIENCE)).expect("it is not zero");
            let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n").into_bytes();
            let connection = BufReader::new(connection);
            let mut browser = Browser { connection, request, count: Visit::ordinary().count, line: Vec::new() };
            browser.visit();
            Mutex::new(browser)
        };
        Self(cookies.iter().map(browser).collect())
    }

    fn acts(&self) -> Vec<Act<'_>> {
        self.0
            .iter()
            .map(|browser| Box::new(|| browser.lock().expect("no client panicked").visit()) as Act<'_>)
            .collect()
    }
}

impl Browser {
    fn visit(&mut self) {
        self.connection.get_mut().write_all(&self.request).expect("the server listens");
        assert!(self.line().starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.line));
        let mut length = 0;
        while self.line() != b"\r\n" {
            if let Some(value) = self.line.strip_prefix(b"Content-Length: ") {
                length = String::from_utf8_lossy(value).trim().parse().expect("a length");
            }
        }
        self.line.resize(length, 0);
        self.connection.read_exact(&mut self.line).expect("the whole page");
        self.count += 1;
        assert_eq!(String::from_utf8_lossy(&self.line), self.count.to_string());
    }

    fn line(&mut self) -> &[u8] {
        self.line.clear();
        self.connection.read_until(b'\n', &mut self.line).expect("the server responds in time");
        &self.line
    }
}
