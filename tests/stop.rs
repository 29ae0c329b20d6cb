//! Both programs end in order on a signal: under load, and while Redis does not respond. Every request that began completes.

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::program::{PROGRAMS, Program, stores};
use support::{Client, Fault, PATIENCE, Proxy, RedisServer, eventually, shared, unique};

/// Visitors who send hits as fast as they can until the program ends. Each returns its status codes and the number of hits that the
/// program acknowledged.
struct Crowd {
    visitors: Vec<thread::JoinHandle<(Client, u64, BTreeSet<u16>)>>,
    over: Arc<AtomicBool>,
}

impl Crowd {
    #[track_caller]
    fn gather(program: &Program, visitors: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let hits = Arc::new(AtomicUsize::new(0));
        let visitor = program.client();
        let visit = |_| {
            let (client, over, hits) = (visitor.beside(), over.clone(), hits.clone());
            thread::spawn(move || Self::visit(client, &over, &hits))
        };
        let crowd = Self { visitors: (0..visitors).map(visit).collect(), over };
        assert!(eventually(PATIENCE, || hits.load(Ordering::Relaxed) > 20 * visitors), "they get on");
        crowd
    }

    fn visit(mut client: Client, over: &AtomicBool, all: &AtomicUsize) -> (Client, u64, BTreeSet<u16>) {
        let (mut hits, mut statuses) = (0, BTreeSet::new());
        while !over.load(Ordering::Relaxed) {
            match client.try_send("POST", "/api/hit", &[]) {
                Ok(response) => {
                    statuses.insert(response.status);
                    if response.status == 200 {
                        hits += 1;
                        all.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "a response is cut off");
                    break;
                }
            }
        }
        (client, hits, statuses)
    }

    fn disperse(self) -> Vec<(Client, u64, BTreeSet<u16>)> {
        self.over.store(true, Ordering::Relaxed);
        self.visitors.into_iter().map(|visitor| visitor.join().expect("every response was complete")).collect()
    }
}

/// Everything that the program could wait for by mistake takes longer than `PATIENCE`: the reaper's next round, a deadline of a
/// minute, and an idle visitor.
#[test]
fn ctrl_c_under_load_completes_running_requests() {
    for program in PROGRAMS {
        for (store, signal) in stores(&shared().url()).iter().zip([Signal::INT, Signal::TERM, Signal::INT]) {
            let mut process = Program::with(program, store, &["--insecure-cookies"]);
            let crowd = Crowd::gather(&process, 24);
            process.signal(signal);
            let began = Instant::now();
            let status = process.wait();
            let took = began.elapsed();
            let visitors = crowd.disperse();
            assert!(status.success(), "{program} {store:?}: {status}: {}", process.stderr());
            assert!(took < PATIENCE / 2, "{program} {store:?} took {took:?}");
            eprintln!("{program} {store:?} ended in {took:?}");

            let again = Program::with(program, store, &["--insecure-cookies"]);
            for (client, hits, statuses) in visitors {
                assert!(statuses.is_subset(&BTreeSet::from([200, 503])), "{statuses:?}");
                if !store.is_empty() {
                    let mut later = again.client();
                    later.cookies = client.cookies;
                    assert_eq!(
                        later.get("/api/session").json()["hits"],
                        hits,
                        "exactly the acknowledged hits are kept"
                    );
                }
            }
        }
    }
}

#[test]
fn request_running_at_ctrl_c_completes() {
    let proxy = Proxy::start(shared());
    for program in PROGRAMS {
        let (mut process, mut client) = hanging(program, &proxy);
        process.signal(Signal::INT);
        // Time enough to end too early.
        let _ = eventually(Duration::from_millis(300), || process.try_wait().is_some());
        proxy.set(Fault::None);
        let response = client.read("POST").expect("a whole response");
        assert_eq!((response.status, &response.json()["hits"]), (200, &2.into()));
        assert!(process.wait().success());
    }
}

/// A program that has a request which waits for Redis.
fn hanging(program: &str, proxy: &Proxy) -> (Program, Client) {
    let store = ["--redis-url", &proxy.url(), "--prefix", &unique("hanging"), "--deadline", "1h"].map(str::to_owned);
    let process = Program::with(program, &store, &["--insecure-cookies"]);
    let mut client = process.client();
    client.post("/api/hit");
    let before = proxy.fired();
    proxy.set(Fault::Stall);
    client.write("POST", "/api/hit", &[]).unwrap();
    assert!(eventually(PATIENCE, || proxy.fired() > before));
    (process, client)
}

#[test]
fn ctrl_c_during_outage_ends_within_two_deadlines() {
    for program in PROGRAMS {
        let server = RedisServer::start();
        let [_, redis @ ..] = stores(&server.url());
        for store in redis {
            let mut process = Program::with(program, &store, &["--insecure-cookies", "--deadline", "3s"]);
            let crowd = Crowd::gather(&process, 24);
            server.stop();
            process.signal(Signal::INT);
            let began = Instant::now();
            let status = process.wait();
            let took = began.elapsed();
            server.resume();
            crowd.disperse();
            assert!(status.success(), "{status}");
            assert!(took < Duration::from_secs(6), "{program} {store:?} took {took:?}");
            eprintln!("{program} {store:?} ended in {took:?}");
        }
    }
}

#[test]
fn second_ctrl_c_ends_program_at_once() {
    let proxy = Proxy::start(shared());
    for program in PROGRAMS {
        let (mut process, _client) = hanging(program, &proxy);
        let mut status = None;
        assert!(eventually(PATIENCE, || {
            process.signal(Signal::INT);
            status = process.try_wait();
            status.is_some()
        }));
        assert_eq!(status.unwrap().code(), Some(130));
        proxy.set(Fault::None);
    }
}
