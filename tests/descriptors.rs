//! Programs that run out of file descriptors must accept connections again.
#![cfg(all(target_os = "linux", feature = "clap", feature = "rouille", feature = "tiny-http"))]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::process::Signal;
use support::program::{PROGRAMS, Program};
use support::{Client, PATIENCE, eventually};
use threaded_sessions::args::{Args, Host};
use threaded_sessions::tiny_http::serve;
use threaded_sessions::{ErrorKind, MemorySessionStore, SessionManager};
use tiny_http::Response;

/// How many descriptors a program may have. It has about ten itself, and a connection takes two, so each parity of what is left
/// comes up: the last descriptor is missing for a connection, or for its second half.
const LIMITS: [u64; 2] = [60, 61];

/// Returns `true` if a new connection is served soon.
fn is_served(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = format!("GET /api/session HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut response = [0; 12];
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut response).is_ok()
        && response == *b"HTTP/1.1 200"
}

#[test]
fn program_accepts_again_after_a_shortage_of_descriptors() {
    for program in PROGRAMS {
        for limit in LIMITS {
            let mut process = Program::start(program, &["--insecure-cookies", "--threads", "4"], &[]);
            let mut before: Client = process.client();
            before.post("/api/hit");
            process.limit_descriptors(limit);
            for shortage in 1..=2 {
                let idle: Vec<_> = (0..80).filter_map(|_| TcpStream::connect(process.address()).ok()).collect();
                assert!(idle.len() > 20, "{program}: {}", idle.len());
                assert!(eventually(PATIENCE, || !is_served(process.address())), "{program} runs out of them");
                // Connections that were accepted before are served all the time.
                assert_eq!(before.get("/api/session").status, 200, "{program}, {limit}, {shortage}");
                drop(idle);
                let served = eventually(PATIENCE, || is_served(process.address()));
                assert!(served, "{program}, {limit}, {shortage}: {}", process.stderr());
                assert_eq!(before.post("/api/hit").status, 200);
            }
            let said = process.stderr();
            assert!(said.contains("warn: accepting connections failed, will retry: "), "{program}: {said}");
            assert!(said.contains("info: connections are accepted again"), "{program}: {said}");
            assert!(said.matches("accepting connections failed").count() < 40, "it does not flood the log: {said}");
            process.signal(Signal::TERM);
            assert!(process.wait().success(), "it ends in order: {}", process.stderr());
        }
    }
}

#[test]
fn program_without_its_port_exits_with_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for program in PROGRAMS {
        let output = support::program::command(program).args(["--listen", &address]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("error: ") && said.contains(&address), "{program}: {said}");
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    sessions: Args,
}

fn host() -> Host {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    Cli::parse_from(["program"]).sessions.host(sessions.reaper()).unwrap()
}

#[test]
fn panicking_handler_ends_no_thread() {
    let (host, listener) = (host(), TcpListener::bind("127.0.0.1:0").unwrap());
    listener.set_nonblocking(true).unwrap();
    let (address, stopping) = (listener.local_addr().unwrap(), host.stopping());
    let site = thread::spawn(move || {
        serve(&host, listener, 1, |request| match request.url() {
            "/panic" => panic!("as the test wants it"),
            _ => request.respond(Response::from_string("served")),
        })
    });
    for _ in 0..3 {
        assert!(Client::new(address).try_send("GET", "/panic", &[]).is_ok(), "tiny_http responds for the handler");
        assert_eq!(Client::new(address).get("/").body, "served");
    }
    stopping.store(true, Ordering::Relaxed);
    site.join().unwrap().expect("it ends in order");
}

#[test]
fn server_unable_to_accept_returns_an_error() {
    let (host, listener) = (host(), TcpListener::bind("127.0.0.1:0").unwrap());
    let same = TcpStream::from(OwnedFd::from(listener.try_clone().unwrap()));
    same.shutdown(Shutdown::Both).unwrap();
    let stopping = host.stopping();
    let error = serve(&host, listener, 1, |request| request.respond(Response::empty(204))).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Other, "accepting connections: failed".to_owned()));
    assert!(stopping.load(Ordering::Relaxed), "the host stops too");
}

#[test]
fn server_of_zero_threads_is_misconfigured() {
    let (first, second) = (host(), host());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = serve(&first, listener, 0, |request| request.respond(Response::empty(204)));
    let respond = |_: &rouille::Request| rouille::Response::empty_204();
    let theirs = threaded_sessions::rouille::serve(&second, "127.0.0.1:0", 0, |_| {}, respond);
    for (host, served) in [(first, ours), (second, theirs)] {
        let error = served.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(format!("{error:#}").contains("`threads` must be at least 1"), "{error:#}");
        assert!(host.stopping().load(Ordering::Relaxed), "the host stops too");
    }
}

#[test]
fn bad_address_of_rouille_names_rule() {
    let respond = |_: &rouille::Request| rouille::Response::empty_204();
    let error = threaded_sessions::rouille::serve(&host(), "8000", 1, |_| {}, respond).unwrap_err();
    assert!(format!("{error:#}").contains("the address must be HOST:PORT"), "{error:#}");
}
