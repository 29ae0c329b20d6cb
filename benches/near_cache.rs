//! Measures the gain of a near cache for hot sessions, and its cost for sessions that are read once.
//!
//! ```text
//! cargo bench --all-features --bench near_cache
//! ```
//!
//! Each line compares a store with a cache and the same store without one, in one process and in alternating order. It has the
//! median of the ratios of throughput, and the interval that has the true median with 95 % probability. The last line is the time
//! from a `DEL` until no process serves the session. The first argument that is a number sets the number of pairs; `hits`, `cold`,
//! `pages` and `ends` choose what is measured.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::{RedisServer, heat, slow_pipe};
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{
    NearCache, RedisSessionStore, SessionId, SessionManager, SessionStore, tiny_http as on_tiny_http,
};

const THREADS: usize = 16;

const IDLE_TIMEOUT: Duration = Duration::from_secs(1800);

/// The time that a slow link to Redis adds to each reply.
const LINK_DELAY: Duration = Duration::from_micros(500);

/// How often a session is ended.
const ENDS: usize = 2000;

const PATIENCE: Duration = Duration::from_secs(10);

/// A session of about 1 KiB.
#[derive(Default, Serialize, Deserialize)]
struct Visit {
    count: u64,
    text: String,
}

/// Throughput of a side, in operations a second.
type Side<'a> = &'a mut dyn FnMut() -> f64;

fn main() {
    let pairs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(41);
    let redis = RedisServer::start();
    println!("{:<48} {:>12} {:>12} {:>7}   95 % interval", "median of operations a second", "without", "with", "ratio");
    let is_wanted = |what| std::env::args().any(|argument| argument == what) || !std::env::args().any(is_name);
    for threads in [1, THREADS] {
        if is_wanted("hits") {
            hits(&redis, pairs, threads);
        }
        if is_wanted("cold") {
            cold_reads(&redis, pairs, threads);
        }
    }
    if is_wanted("pages") {
        let (near, far) = (redis.url(), format!("redis://127.0.0.1:{}", slow_pipe(redis.port(), LINK_DELAY)));
        pages(&near, pairs, "page that only reads", |_| {});
        pages(&near, pairs, "page that writes at every request", |visit| visit.count += 1);
        pages(&far, pairs, "page that only reads, Redis 0.5 ms away", |_| {});
        page_without_sessions(&near, pairs);
    }
    if is_wanted("ends") {
        ends(&redis);
    }
}

fn is_name(argument: String) -> bool {
    ["hits", "cold", "pages", "ends"].contains(&&*argument)
}

fn stores(url: &str, prefix: &str) -> [RedisSessionStore; 2] {
    let builder =
        |side: &str| RedisSessionStore::builder().url(url).pool_size(THREADS as u32).prefix(format!("{prefix}-{side}"));
    [builder("off").build().unwrap(), builder("on").near_cache(NearCache::new()).build().unwrap()]
}

fn compare(what: &str, pairs: usize, sides: [Side<'_>; 2]) {
    let [off, on] = sides;
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms up.
    for pair in 0..=pairs {
        let (one, other);
        if pair % 2 == 0 {
            (one, other) = (off(), on());
        } else {
            let later = on();
            (one, other) = (off(), later);
        }
        if pair > 0 {
            without.push(one);
            with.push(other);
            ratios.push(other / one);
        }
    }
    for values in [&mut without, &mut with, &mut ratios] {
        values.sort_by(f64::total_cmp);
    }
    // The ranks of the interval of a median, by the normal approximation.
    let low = ((pairs as f64 - 1.96 * (pairs as f64).sqrt()) / 2.0).floor().max(0.0) as usize;
    let middle = pairs / 2;
    println!(
        "{what:<48} {:>12.0} {:>12.0} {:>7.3}   {:.3} to {:.3}",
        without[middle],
        with[middle],
        ratios[middle],
        ratios[low],
        ratios[pairs - 1 - low]
    );
}

/// Runs this so often in each of some threads, and returns the throughput.
fn run(threads: usize, each: usize, act: impl Fn(usize, usize) + Sync) -> f64 {
    let (ready, act) = (Barrier::new(threads + 1), &act);
    let took = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    (0..each).for_each(|at| act(thread, at));
                })
            })
            .collect();
        ready.wait();
        let began = Instant::now();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        began.elapsed()
    });
    (threads * each) as f64 / took.as_secs_f64()
}

fn payload(number: usize) -> Vec<u8> {
    format!("{{\"v\":1,\"rev\":{},\"rest\":\"{}\"}}", 1_000_000_000_000 + number, "x".repeat(1000)).into_bytes()
}

fn create(store: &RedisSessionStore, number: usize) -> SessionId {
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(&payload(number), IDLE_TIMEOUT)).unwrap();
    id
}

fn read(store: &RedisSessionStore, id: &SessionId) {
    assert!(matches!(black_box(store.read(id, Touch::Set(IDLE_TIMEOUT)).unwrap()), Found::Live(_)));
}

/// Reads of hot sessions, each by its own thread.
fn hits(redis: &RedisServer, pairs: usize, threads: usize) {
    let [off, on] = stores(&redis.url(), &format!("hits{threads}"));
    let ids = [&off, &on].map(|store| (0..threads).map(|number| create(store, number)).collect::<Vec<_>>());
    for id in &ids[1] {
        (0..3).for_each(|_| read(&on, id));
    }
    thread::sleep(Duration::from_millis(50));
    compare(
        &format!("reads of hot sessions, {threads} threads"),
        pairs,
        [&mut || run(threads, 4000 / threads, |thread, _| read(&off, &ids[0][thread])), &mut || {
            run(threads, 200_000 / threads, |thread, _| read(&on, &ids[1][thread]))
        }],
    );
}

/// Reads of sessions that are read once, so no cache can help.
fn cold_reads(redis: &RedisServer, pairs: usize, threads: usize) {
    let stores = stores(&redis.url(), &format!("cold{threads}"));
    let each = 3200 / threads;
    let side = |store: &RedisSessionStore| {
        let ids: Vec<_> = (0..threads * each).map(|number| create(store, number)).collect();
        run(threads, each, |thread, at| read(store, &ids[thread * each + at]))
    };
    compare(
        &format!("reads of cold sessions, {threads} threads"),
        pairs,
        [&mut || side(&stores[0]), &mut || side(&stores[1])],
    );
}

/// A page over HTTP with one session for each connection.
fn pages(url: &str, pairs: usize, what: &str, handle: fn(&mut Visit)) {
    let sites = stores(url, &what.replace(' ', "-")).map(|store| Site::with_sessions(store, handle));
    let [off, on] = &sites;
    compare(&format!("{what}, {THREADS} connections"), pairs, [&mut || off.visit(), &mut || on.visit()]);
}

/// The page that only reads, with a cache, and a page that opens no session.
fn page_without_sessions(url: &str, pairs: usize) {
    let [_, store] = stores(url, "no-session");
    let none = Site::start(&[(); THREADS].map(|()| String::new()), |request| {
        let _ = on_tiny_http::answer(request, |_| tiny_http::Response::from_string("1"));
    });
    let cached = Site::with_sessions(store, |_| {});
    compare("page without a session, then with one and a cache", pairs, [&mut || none.visit(), &mut || cached.visit()]);
}

/// Ends sessions that two caches serve, and prints how long after the reply to `DEL` a read could begin that still found the session.
fn ends(redis: &RedisServer) {
    let cached = || RedisSessionStore::builder().url(redis.url()).prefix("ends").near_cache(NearCache::new());
    let caches = [cached().build().unwrap(), cached().build().unwrap()];
    let mut connection = redis.connection();
    let mut delays: Vec<Duration> = (0..ENDS)
        .map(|number| {
            let id = create(&caches[0], number);
            caches.iter().for_each(|cache| heat(cache, &id));
            let _: u32 = redis::cmd("DEL").arg(caches[0].key(&id)).query(&mut connection).unwrap();
            let ended = Instant::now();
            let last_read = |cache: &RedisSessionStore| {
                let mut last = Duration::ZERO;
                loop {
                    let begun = ended.elapsed();
                    match cache.read(&id, Touch::No).unwrap() {
                        Found::Live(_) => last = begun,
                        _ => return last,
                    }
                }
            };
            caches.iter().map(last_read).max().unwrap_or_default()
        })
        .collect();
    delays.sort_unstable();
    let at = |percent: usize| delays[ENDS * percent / 100];
    println!("from DEL to the last read that found the session, {ENDS} times: p50 {:.1?}, p99 {:.1?}", at(50), at(99));
}

/// A server and browsers that are connected to it.
struct Site {
    browsers: Vec<Mutex<Browser>>,
    _host: Host,
}

impl Site {
    fn start(cookies: &[String], respond: impl Fn(tiny_http::Request) + Clone + Send + 'static) -> Self {
        let host = Host::start(respond);
        let browsers = cookies.iter().map(|cookie| Mutex::new(Browser::new(host.address, cookie))).collect();
        Self { browsers, _host: host }
    }

    fn with_sessions(store: RedisSessionStore, handle: fn(&mut Visit)) -> Self {
        let sessions = SessionManager::<Visit>::new(store);
        let cookies: Vec<String> = (0..THREADS).map(|_| cookie(&sessions)).collect();
        Self::start(&cookies, move |request| {
            let _ = on_tiny_http::respond(&sessions, request, |visit, _| {
                // A handler that only reads must not count as one that writes.
                let before = visit.count;
                let mut changed = Visit { count: before, text: String::new() };
                handle(&mut changed);
                if changed.count != before {
                    visit.count = changed.count;
                }
                tiny_http::Response::from_string(visit.count.to_string())
            });
        })
    }

    /// Loads the page in all browsers, and returns the throughput.
    fn visit(&self) -> f64 {
        run(THREADS, 100, |thread, _| self.browsers[thread].lock().unwrap().visit())
    }
}

fn cookie(sessions: &SessionManager<Visit>) -> String {
    let mut session = sessions.fresh();
    *session = Visit { count: 1, text: "x".repeat(1000) };
    let committed = sessions.commit(session).unwrap();
    format!("__Host-session={}", committed.id().unwrap().expose())
}

/// A server that stops when it is dropped.
struct Host {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    fn start(respond: impl Fn(tiny_http::Request) + Clone + Send + 'static) -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let (address, stop) = (server.server_addr().to_ip().unwrap(), Arc::new(AtomicBool::new(false)));
        let threads = (0..THREADS).map(|_| {
            let (server, stop, respond) = (server.clone(), stop.clone(), respond.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(Some(request)) = server.recv_timeout(Duration::from_millis(100)) {
                        respond(request);
                    }
                }
            })
        });
        Self { address, threads: threads.collect(), stop }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

struct Browser {
    connection: BufReader<TcpStream>,
    request: Vec<u8>,
    line: Vec<u8>,
}

impl Browser {
    /// Visits at once, because tiny_http leaves some of the connections that come together without a thread.
    fn new(address: SocketAddr, cookie: &str) -> Self {
        let connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n").into_bytes();
        let mut browser = Self { connection: BufReader::new(connection), request, line: Vec::new() };
        browser.visit();
        browser
    }

    fn visit(&mut self) {
        self.connection.get_mut().write_all(&self.request).unwrap();
        self.next_line();
        assert!(self.line.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.line));
        let mut length = 0;
        while self.line != b"\r\n" {
            if let Some(value) = self.line.strip_prefix(b"Content-Length: ") {
                length = String::from_utf8_lossy(value).trim().parse().unwrap();
            }
            self.next_line();
        }
        self.line.resize(length, 0);
        self.connection.read_exact(&mut self.line).unwrap();
    }

    fn next_line(&mut self) {
        self.line.clear();
        self.connection.read_until(b'\n', &mut self.line).unwrap();
    }
}
