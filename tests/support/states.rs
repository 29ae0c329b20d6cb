//! States in which a Redis server responds but does not serve, such as loading or read-only.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{PATIENCE, RedisServer, eventually};

/// A port without a listener.
const NO_LISTENER: &str = "1";

/// States in which a server responds but does not serve. Each state has begun
/// when the call returns, and lasts until the next one.
impl RedisServer {
    /// Makes it the replica of a primary that is not there: no writes.
    pub fn demote(&self) {
        self.cmd(&["REPLICAOF", "127.0.0.1", NO_LISTENER]);
    }

    pub fn promote(&self) {
        self.cmd(&["REPLICAOF", "NO", "ONE"]);
    }

    /// At `maxmemory`.
    pub fn fill(&self) {
        self.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    pub fn make_room(&self) {
        self.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    /// Loading its data, as after a restart with a lot of it. Connections stay.
    pub fn load(&self) {
        self.cmd(&["DEBUG", "POPULATE", "100000"]);
        self.cmd(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024", "key-load-delay", "100"]);
        self.start_and_await("DEBUG RELOAD", "-LOADING");
    }

    pub fn finish_loading(&self) {
        self.cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
        assert!(eventually(PATIENCE, || !self.replies("-LOADING")));
    }

    /// Busy with a script that does not end.
    pub fn occupy(&self) {
        self.cmd(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
        self.start_and_await("EVAL 'while true do end' 0", "-BUSY");
    }

    pub fn interrupt(&self) {
        self.cmd(&["SCRIPT", "KILL"]);
        assert!(eventually(PATIENCE, || !self.replies("-BUSY")));
    }

    /// Unable to write a snapshot: there is a directory in its place.
    pub fn lose_disk(&self) {
        self.cmd(&["CONFIG", "SET", "save", "3600 1"]);
        let _ = fs::remove_file(self.dir().join("dump.rdb"));
        fs::create_dir(self.dir().join("dump.rdb")).unwrap();
        self.snapshot("err");
    }

    pub fn regain_disk(&self) {
        fs::remove_dir(self.dir().join("dump.rdb")).unwrap();
        self.snapshot("ok");
    }

    fn snapshot(&self, outcome: &str) {
        self.cmd(&["BGSAVE"]);
        let status = format!("rdb_last_bgsave_status:{outcome}");
        assert!(eventually(PATIENCE, || {
            let info: String = redis::from_redis_value(self.cmd(&["INFO", "persistence"])).unwrap();
            info.contains(&status) && info.contains("rdb_bgsave_in_progress:0")
        }));
    }

    fn start_and_await(&self, command: &str, state: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        assert!(eventually(PATIENCE, || self.replies(state)), "{command} does not lead to {state}");
    }

    /// Returns `true` if the reply to a `PING` begins like this.
    fn replies(&self, state: &str) -> bool {
        let ping = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port()))?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            stream.write_all(b"PING\r\n")?;
            let mut reply = vec![0; state.len()];
            stream.read_exact(&mut reply).map(|()| reply)
        };
        ping().is_ok_and(|reply| reply == state.as_bytes())
    }
}
