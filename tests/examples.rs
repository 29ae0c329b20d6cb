//! The example programs, started as their comments say and driven over HTTP.
#![cfg(feature = "rouille")]

mod support;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::env;
use std::fs;
use std::hash::BuildHasher;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use support::{PATIENCE, RedisServer, eventually};

/// Runs a program until it ends by itself, or until end of file on stdin: the test is done with it, or gone.
const GUARD: &str = r#"
exec 3<&0
"$0" 3<&- &
program=$!
exec 2>/dev/null
{ read -r _; kill -KILL $program; } <&3 &
watcher=$!
wait $program
kill -KILL $watcher
"#;

/// A running example program; ends with this value, and with the test process at the latest.
struct Example {
    guard: Child,
    addr: SocketAddr,
}

impl Example {
    fn start(name: &str, redis: Option<&RedisServer>) -> Self {
        // One at a time, so that a port which is free stays free until the program has it, as far as these tests go.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let test = env::current_exe().unwrap();
        let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
        assert!(path.exists(), "no {}; run cargo build --examples --features rouille", path.display());
        for _ in 0..10 {
            let addr = free_address();
            let mut guard = Command::new("sh");
            guard.args(["-c", GUARD]).arg(&path).env("ADDR", addr.to_string()).env_remove("REDIS_URL");
            guard.envs(redis.map(|redis| ("REDIS_URL", redis.url())));
            let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut example = Self { guard, addr };
            let has_ended = |example: &mut Self| example.guard.try_wait().unwrap().is_some();
            let settled = eventually(PATIENCE, || has_ended(&mut example) || example.answers());
            assert!(settled, "{name} does not respond");
            // The program ends if another process took the port first.
            if !has_ended(&mut example) {
                return example;
            }
        }
        panic!("{name} ends at once")
    }

    fn answers(&self) -> bool {
        exchange(self.addr, "GET /no-such-page HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n")
            .is_ok_and(|response| response.starts_with("HTTP/1.1 404 "))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Returns an address with a port below those of outgoing connections, because such a connection could take the port first.
fn free_address() -> SocketAddr {
    let start = RandomState::new().hash_one(0) % 12_000;
    let ports = (0..12_000).map(|n| 20_000 + (start + n) % 12_000);
    let mut addresses = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("a port is free")
}

fn exchange(addr: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// A visitor with a cookie jar.
#[derive(Clone, Default)]
struct Visitor {
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    /// Status and body of the response; its cookies go into the jar, or out of it.
    #[track_caller]
    fn send(&mut self, example: &Example, method: &str, path: &str, form: &str) -> (u16, String) {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: example\r\nConnection: close\r\n");
        if !cookies.is_empty() {
            request += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        request += "Content-Type: application/x-www-form-urlencoded\r\n";
        request += &format!("Content-Length: {}\r\n\r\n{form}", form.len());
        let response = exchange(example.addr, &request).expect("the program responds");
        let (head, body) = response.split_once("\r\n\r\n").expect("a whole response");
        for line in head.lines() {
            if let Some(cookie) = line.strip_prefix("Set-Cookie: ") {
                self.take(cookie);
            }
        }
        let status = head.split(' ').nth(1).expect("a status line").parse().unwrap();
        (status, body.to_owned())
    }

    fn take(&mut self, cookie: &str) {
        let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
        let (name, value) = pair.split_once('=').expect("a cookie has a name");
        if attributes.contains("Max-Age=0") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    #[track_caller]
    fn get(&mut self, example: &Example, path: &str) -> (u16, String) {
        self.send(example, "GET", path, "")
    }

    /// The session id, if it has one.
    fn id(&self) -> Option<&str> {
        self.cookies.get("__Host-session").map(|id| &**id)
    }
}

#[track_caller]
fn assert_counts(visitor: &mut Visitor, counter: &Example, expected: std::ops::RangeInclusive<u32>) {
    for n in expected {
        assert_eq!(visitor.get(counter, "/"), (200, format!("page {n} of this visit\n")));
    }
}

#[test]
fn readme_shows_counter_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file| fs::read_to_string(root.join(file)).unwrap();
    let (readme, counter) = (read("README.md"), read("examples/counter.rs"));
    let program = |text: &str| {
        let (_, rest) = text.split_once("    let server = Server::new(").expect("it starts a server");
        let (_, rest) = rest.split_once('\n').unwrap();
        let (handler, _) = rest.split_once("\n    println!(").expect("it says where it listens");
        handler.to_owned()
    };
    assert_eq!(program(&readme), program(&counter));
}

#[test]
fn application_has_at_most_250_lines() {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/app");
    let lines = ["main.rs", "pages.rs"].map(|file| fs::read_to_string(app.join(file)).unwrap().lines().count());
    assert!(lines.iter().sum::<usize>() <= 250, "{lines:?}");
}

#[test]
fn the_counter_counts_each_visitor_in_memory() {
    let counter = Example::start("counter", None);
    let (mut ada, mut bob) = (Visitor::default(), Visitor::default());
    assert_counts(&mut ada, &counter, 1..=3);
    assert_counts(&mut bob, &counter, 1..=2);
    assert!(ada.cookies.contains_key("__Host-session"), "{:?}", ada.cookies.keys());
    assert_counts(&mut ada, &counter, 4..=4);
    drop(counter);
    assert_counts(&mut ada, &Example::start("counter", None), 1..=1);
}

#[test]
fn redis_sessions_survive_restart_and_are_shared() {
    let server = RedisServer::start();
    let mut visitor = Visitor::default();
    let counter = Example::start("counter", Some(&server));
    assert_counts(&mut visitor, &counter, 1..=3);
    drop(counter);

    let counter = Example::start("counter", Some(&server));
    assert_counts(&mut visitor, &counter, 4..=5);
    let other = Example::start("counter", Some(&server));
    for n in (6..12).step_by(2) {
        assert_counts(&mut visitor, &other, n..=n);
        assert_counts(&mut visitor, &counter, n + 1..=n + 1);
    }
}

#[test]
fn login_renews_id_and_logout_ends_session() {
    let server = RedisServer::start();
    for redis in [None, Some(&server)] {
        let login = Example::start("login", redis);
        let mut visitor = Visitor::default();
        let nobody = (401, "nobody\n".to_owned());
        assert_eq!(visitor.get(&login, "/whoami"), nobody);
        assert_eq!(visitor.id(), None);

        assert_eq!(visitor.send(&login, "POST", "/login", "user=ada"), (200, "signed in\n".to_owned()));
        assert_eq!(visitor.get(&login, "/whoami"), (200, "ada\n".to_owned()));
        let planted = visitor.clone();
        assert!(planted.id().is_some());

        assert_eq!(visitor.send(&login, "POST", "/login", "user=bob"), (200, "signed in\n".to_owned()));
        assert_eq!(visitor.get(&login, "/whoami"), (200, "bob\n".to_owned()));
        assert_ne!(visitor.id(), planted.id());
        // The earlier id is worth nothing to an attacker.
        assert_eq!(planted.clone().get(&login, "/whoami"), nobody);

        let mut signed_in = visitor.clone();
        assert_eq!(visitor.send(&login, "POST", "/logout", ""), (200, "signed out\n".to_owned()));
        assert_eq!(visitor.id(), None);
        for mut old in [visitor, signed_in.clone(), planted] {
            assert_eq!(old.get(&login, "/whoami"), nobody);
        }
        // Nor is the dead id taken up again.
        let dead = signed_in.id().map(str::to_owned);
        assert_eq!(signed_in.send(&login, "POST", "/login", "user=eve"), (200, "signed in\n".to_owned()));
        assert_ne!(signed_in.id().map(str::to_owned), dead);
    }
}
