//! The time from sending the end of a session to the callbacks in several processes, compared with a bare `PUBLISH`.
//!
//! ```text
//! cargo bench --all-features --bench ended [-- --processes COUNT]
//! ```
//!
//! The benchmark starts a Redis, and itself once more for each listening process, four by default. A sample is the time from just before
//! a command is sent to the moment at which a process has received the message. All processes receive a message before
//! the next one is sent. The benchmark also reports the time that `delete` takes with announcements and without.

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use redis::Commands;
use support::RedisServer;
use threaded_sessions::store::Write;
use threaded_sessions::{RedisSessionStore, SessionId, SessionManager, SessionStore};

const SAMPLES: usize = 10_000;

const ROUNDS: usize = 3;

const PATIENCE: Duration = Duration::from_secs(10);

const CHANNEL: &str = "bare";

/// The line that a listening process prints once it receives messages.
const READY: &str = "ready\n";

fn main() {
    let args: Vec<String> = env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|position| args.get(position + 1));
    match (value("--bare"), value("--ends")) {
        (Some(url), _) => return receive_bare(url),
        (_, Some(url)) => return receive_ends(url),
        _ => {}
    }
    let processes = value("--processes").map_or(4, |count| count.parse().expect("a number of processes"));
    let server = RedisServer::start();
    for round in 0..ROUNDS {
        println!("round {round}, {processes} listening processes");
        report("bare PUBLISH to its subscribers", bare_publish(&server.url(), processes));
        let (delays, announced) = ends(&server.url(), processes);
        report("end to the callbacks", delays);
        report("delete with announcements", announced);
        report("delete without", ends(&server.url(), 0).1);
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    println!("  {what}: {} received, p50 {:.1?}, p99 {:.1?}", times.len(), at(50), at(99));
}

/// A process that reports when it received each message.
struct Listening {
    process: Child,
    received: Receiver<SystemTime>,
}

impl Listening {
    fn start(kind: &str, url: &str) -> Self {
        let mut command = Command::new(env::current_exe().expect("the path of the benchmark"));
        let piped = command.args([kind, url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = piped.spawn().expect("a process");
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, READY);
        let (sender, received) = channel();
        thread::spawn(move || {
            let mut nanos = [0; 8];
            while output.read_exact(&mut nanos).is_ok() {
                let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::from_le_bytes(nanos));
                let _ = sender.send(at);
            }
        });
        Self { process, received }
    }

    /// Returns the time from `sent` to the next message.
    fn delay(&self, sent: SystemTime) -> Duration {
        let received = self.received.recv_timeout(PATIENCE).expect("each process receives each message");
        received.duration_since(sent).unwrap_or_default()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reports to the process that started this one that a message is here.
fn report_received() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut output = io::stdout().lock();
    output.write_all(&(now.as_nanos() as u64).to_le_bytes()).and_then(|()| output.flush()).expect("the pipe is open");
}

fn report_ready() {
    print!("{READY}");
    io::stdout().flush().expect("the pipe is open");
}

/// Receives by a bare connection.
fn receive_bare(url: &str) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut channel = connection.as_pubsub();
    channel.subscribe(CHANNEL).unwrap();
    report_ready();
    while channel.get_message().is_ok() {
        report_received();
    }
}

/// Receives by a listener, until the pipe closes.
fn receive_ends(url: &str) {
    let sessions = SessionManager::<u32>::new(store(url, true));
    let listener = sessions.listener().on_ended(|_| report_received()).start().unwrap();
    while !listener.is_listening() {
        thread::sleep(Duration::from_millis(1));
    }
    report_ready();
    let _ = io::stdin().read(&mut [0]);
}

fn store(url: &str, announce: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(url).prefix("bench-ended").expiring();
    if announce { builder.announce_ends() } else { builder }.build().unwrap()
}

/// Publishes messages one by one. Returns the times to their receipt in all processes.
fn bare_publish(url: &str, processes: usize) -> Vec<Duration> {
    let all: Vec<_> = (0..processes).map(|_| Listening::start("--bare", url)).collect();
    let mut publisher = redis::Client::open(url).unwrap().get_connection().unwrap();
    let message = format!("destroyed - bench:{}", SessionId::random().expose());
    let sample = |_| {
        let sent = SystemTime::now();
        let _: u32 = publisher.publish(CHANNEL, &message).unwrap();
        all.iter().map(|process| process.delay(sent)).collect::<Vec<_>>()
    };
    (0..SAMPLES).flat_map(sample).collect()
}

/// Ends sessions one by one, with announcements if a process listens. Returns the times to the callbacks in all processes, and those
/// that `delete` took.
fn ends(url: &str, processes: usize) -> (Vec<Duration>, Vec<Duration>) {
    let store = store(url, processes > 0);
    let all: Vec<_> = (0..processes).map(|_| Listening::start("--ends", url)).collect();
    let (mut delays, mut took) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let id = store.fresh_id(None);
        let _ = store.create(&id, Write::new(b"value", Duration::from_secs(60))).unwrap();
        let (sent, begin) = (SystemTime::now(), Instant::now());
        assert!(store.delete(&id).unwrap());
        took.push(begin.elapsed());
        delays.extend(all.iter().map(|process| process.delay(sent)));
    }
    (delays, took)
}
