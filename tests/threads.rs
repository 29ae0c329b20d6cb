//! Opening a store when the system starts no more threads: an error, and no panic, neither then nor in a request. And opening a
//! store in a child of `fork`, which works for certain only if the parent has no threads of a store.
//!
//! The test is a custom program, which runs itself with `RUST_MIN_STACK` so large that no thread can start. This limit holds for
//! any user; a limit of processes does not hold for root. A test harness would start threads itself.

mod support;

use std::env;
use std::panic;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{RedisServer, in_child};
use threaded_sessions::store::Touch;
use threaded_sessions::{ErrorKind, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionStore};

const CHILD: &str = "THREADS_TEST_CHILD";

fn main() -> ExitCode {
    if env::var_os(CHILD).is_some() {
        return without_threads();
    }
    // First, while this process has no other thread.
    store_opened_after_fork_serves();
    println!("test store_opened_after_fork_serves ... ok");
    store_without_threads_is_an_error();
    println!("test store_without_threads_is_an_error ... ok");
    nodes_of_cluster_share_threads();
    println!("test nodes_of_cluster_share_threads ... ok");
    ExitCode::SUCCESS
}

fn store_opened_after_fork_serves() {
    let server = RedisServer::start();
    let served = in_child(|| {
        let store = RedisSessionStore::open(&server.url()).unwrap();
        format!("{}", store.read(&SessionId::random(), Touch::No).is_ok())
    });
    assert_eq!(served.as_deref(), Some("true"));
}

fn store_without_threads_is_an_error() {
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.env(CHILD, "1").env("RUST_MIN_STACK", (usize::MAX / 4).to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs in the child, in which no thread can start.
fn without_threads() -> ExitCode {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        eprintln!("{info}");
    }));
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "the limit works");
    for url in [
        "redis://127.0.0.1:1",
        "redis-cluster://127.0.0.1:1",
        "redis-sentinel://127.0.0.1:1?sentinelServiceName=mymaster",
    ] {
        let error = RedisSessionStore::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{url}");
        assert_eq!(error.to_string(), "building a pool: failed", "{url}");
    }
    let manager = RedisConnectionManager::open("redis://127.0.0.1:1").unwrap();
    assert_eq!(RedisPool::with_size(manager, 1).unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "not even a panic that is caught");
    ExitCode::SUCCESS
}

fn nodes_of_cluster_share_threads() {
    let nodes: Vec<RedisServer> = (0..3).map(|_| RedisServer::start()).collect();
    let urls = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect::<Vec<_>>().join("&node=");
    let store = RedisSessionStore::open(&format!("redis-cluster://{}", urls.replacen('&', "?", 1))).unwrap();
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = threads();
    // None of them is a node of a cluster, but each is asked.
    assert!(store.read(&SessionId::random(), Touch::No).is_err());
    assert_eq!(threads(), before, "a request starts no thread");
}
