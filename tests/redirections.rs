//! Cluster nodes whose redirections never reach the owner of a slot: operations fail within the deadline.

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::serve_replies;
use threaded_sessions::store::Touch;
use threaded_sessions::{ErrorKind, RedisSessionStore, SessionId, SessionStore};

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
