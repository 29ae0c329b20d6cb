//! Cluster nodes whose replies a real cluster gives for a moment only: redirections in a circle or to no
//! host, or no slot map. Functions make the replies.

mod support;

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use support::{PATIENCE, eventually, serve_replies};
use threaded_sessions::observer::ConnectionEvent;
use threaded_sessions::store::Touch;
use threaded_sessions::{ErrorKind, Observer, RedisSessionStore, SessionId, SessionStore};

const DEADLINE: Duration = Duration::from_secs(3);

/// A node that owns all slots by its own word, and redirects each command to another node.
fn node(listener: TcpListener, redirection: String) {
    let own = listener.local_addr().unwrap().port();
    serve_replies(listener, move |request| {
        let has = |word: &[u8]| request.windows(word.len()).any(|part| part == word);
        match () {
            () if has(b"PING") => "+PONG\r\n".to_owned(),
            () if has(b"SLOTS") => format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{own}\r\n"),
            () if has(b"ASKING") => format!("+OK\r\n-{redirection}\r\n"),
            () => format!("-{redirection}\r\n"),
        }
    });
}

#[test]
fn mutually_redirecting_nodes_fail_fast() {
    for (one, other) in [("MOVED", "MOVED"), ("ASK", "ASK"), ("MOVED", "ASK")] {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", ports[0], ports[1]);
        let [first, second] = listeners;
        node(first, format!("{one} 0 127.0.0.1:{}", ports[1]));
        node(second, format!("{other} 0 127.0.0.1:{}", ports[0]));
        let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
        let id = SessionId::random();
        // The first operation gives a slot that changes its owner a third of the deadline. Later ones do not.
        for limit in [DEADLINE * 2 / 3, DEADLINE / 4, DEADLINE / 4] {
            let begun = Instant::now();
            let error = store.read(&id, Touch::No).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{one}, {other}: {error:?}");
            assert!(format!("{error:?}").contains("redirect to each other"), "{one}, {other}: {error:?}");
            assert!(begun.elapsed() < limit, "{one}, {other}: {:?}", begun.elapsed());
        }
    }
}

/// Starts a node that replies to `CLUSTER SLOTS` by `map` and to all other commands by `reply`.
fn serve(listener: TcpListener, map: String, reply: String) {
    serve_replies(listener, move |request| {
        let has = |word: &[u8]| request.windows(word.len()).any(|part| part == word);
        match () {
            () if has(b"PING") => "+PONG\r\n".to_owned(),
            () if has(b"SLOTS") => map.clone(),
            () => reply.clone(),
        }
    });
}

/// A reply to `CLUSTER SLOTS` by which the node at this port owns these slots.
fn range(slots: Range<u16>, port: u16) -> String {
    format!("*3\r\n:{}\r\n:{}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n", slots.start, slots.end - 1)
}

fn listen() -> ([TcpListener; 2], [u16; 2]) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    (listeners, ports)
}

/// Asks for the health of a store at each event of a connection, as an exporter of metrics may do.
#[derive(Default)]
struct Inquirer {
    store: OnceLock<RedisSessionStore>,
    closed: AtomicBool,
}

impl Observer for Inquirer {
    fn on_connection(&self, event: &ConnectionEvent<'_>) {
        let _ = self.store.get().map(|store| store.health());
        self.closed.fetch_or(matches!(event, ConnectionEvent::Closed { .. }), Ordering::Relaxed);
    }
}

/// A node that sends no slot map leaves with the first map of another node.
#[test]
fn observer_reads_health_while_a_node_leaves() {
    let ([loading, owner], ports) = listen();
    let refusal = "-LOADING Redis is loading the dataset in memory\r\n".to_owned();
    serve(loading, refusal.clone(), refusal);
    serve(owner, format!("*1\r\n{}", range(0..16_384, ports[1])), ":0\r\n".to_owned());
    let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", ports[0], ports[1]);
    let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
    let inquirer = Arc::new(Inquirer::default());
    let observer: Arc<dyn Observer> = inquirer.clone();
    store.observe(&observer);
    inquirer.store.set(store.clone()).ok().unwrap();
    let (done, wait) = channel();
    thread::spawn(move || done.send(store.delete(&SessionId::random()).map_err(|error| error.kind())));
    let result = wait.recv_timeout(PATIENCE).expect("the observer meets no lock of the crate");
    assert!(result.is_ok(), "{result:?}");
    assert!(eventually(PATIENCE, || inquirer.closed.load(Ordering::Relaxed)));
}

#[test]
fn redirection_without_host_leads_to_source_host() {
    for host in ["", "?"] {
        let ([source, owner], ports) = listen();
        let map = |port| format!("*1\r\n{}", range(0..16_384, port));
        serve(source, map(ports[0]), format!("-MOVED 0 {host}:{}\r\n", ports[1]));
        serve(owner, map(ports[1]), ":0\r\n".to_owned());
        let url = format!("redis-cluster://127.0.0.1:{}", ports[0]);
        let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
        assert!(store.delete(&SessionId::random()).is_ok(), "{host:?}");
    }
}

/// `CLUSTER RESET` takes a node out of its cluster. It still answers, and knows no slots.
#[test]
fn reset_node_hides_no_cluster() {
    let ([reset, owner], ports) = listen();
    serve(reset, "*0\r\n".to_owned(), "-CLUSTERDOWN Hash slot not served\r\n".to_owned());
    serve(owner, format!("*1\r\n{}", range(0..16_384, ports[1])), ":0\r\n".to_owned());
    let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", ports[0], ports[1]);
    let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
    assert_eq!(store.delete(&SessionId::random()).map_err(|error| error.kind()), Ok(false));

    let url = format!("redis-cluster://127.0.0.1:{}", ports[0]);
    let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
    let error = store.delete(&SessionId::random()).unwrap_err();
    assert!(format!("{error:#}").contains("the node knows no slots of the cluster"), "{error:#}");
}

#[test]
fn unknown_error_of_a_node_is_no_redirection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis-cluster://127.0.0.1:{}", listener.local_addr().unwrap().port());
    node(listener, "ERR something new".to_owned());
    let store = RedisSessionStore::builder().url(url).deadline(DEADLINE).build().unwrap();
    assert_eq!(store.read(&SessionId::random(), Touch::No).unwrap_err().kind(), ErrorKind::Other);
}
