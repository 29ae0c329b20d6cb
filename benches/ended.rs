//! The time from sending the end of a session to the callback of a listener, compared with a bare `PUBLISH`.
//!
//! Run it with `cargo bench --bench ended`, and with `REDIS_URL` for a server other than that at 127.0.0.1:6379. Each sample is
//! the time from just before a command is sent to the moment at which a thread of the same process has received the message. It
//! also reports the time that `delete` takes with announcements and without.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use threaded_sessions::redis::{self, Commands};
use threaded_sessions::store::Write;
use threaded_sessions::{RedisSessionStore, SessionId, SessionManager, SessionStore};

const SAMPLES: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    for round in 0..3 {
        let bare = bare_publish(&url);
        let (delays, announced) = ends(&url, true);
        let (_, silent) = ends(&url, false);
        println!("round {round}");
        report("bare PUBLISH to its subscriber", bare);
        report("end to the callback", delays);
        report("delete with announcements", announced);
        report("delete without", silent);
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    println!("  {what}: {} of {SAMPLES}, p50 {:.1?}, p99 {:.1?}", times.len(), at(50), at(99));
}

/// Publishes on a channel, and receives in another thread by a bare connection.
fn bare_publish(url: &str) -> Vec<Duration> {
    let client = redis::Client::open(url).unwrap();
    let mut publisher = client.get_connection().unwrap();
    let mut subscriber = client.get_connection().unwrap();
    let (sender, received) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let receiver = std::thread::spawn(move || {
        let mut channel = subscriber.as_pubsub();
        channel.subscribe("bare").unwrap();
        ready.send(()).unwrap();
        for _ in 0..SAMPLES {
            channel.get_message().unwrap();
            sender.send(Instant::now()).unwrap();
        }
    });
    is_ready.recv().unwrap();
    let message = format!("destroyed - bench:{}", SessionId::random().expose());
    let sample = |_| {
        let begin = Instant::now();
        let _: u32 = publisher.publish("bare", &message).unwrap();
        received.recv_timeout(PATIENCE).unwrap() - begin
    };
    let times = (0..SAMPLES).map(sample).collect();
    receiver.join().unwrap();
    times
}

/// Ends sessions one by one. Returns the times to the callback, and those that `delete` took.
fn ends(url: &str, announce: bool) -> (Vec<Duration>, Vec<Duration>) {
    let builder = RedisSessionStore::builder().url(url).prefix("bench-ended").expiring();
    let store = if announce { builder.announce_ends() } else { builder }.build().unwrap();
    let (sender, received) = mpsc::channel();
    let listener = announce.then(|| {
        let sessions = SessionManager::<u32>::new(store.clone());
        sessions.listener().on_ended(move |_| sender.send(Instant::now()).unwrap_or_default()).start().unwrap()
    });
    while listener.as_ref().is_some_and(|listener| !listener.is_listening()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut delays, mut took) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let id = store.fresh_id(None);
        let _ = store.create(&id, Write::new(b"value", Duration::from_secs(60))).unwrap();
        let begin = Instant::now();
        assert!(store.delete(&id).unwrap());
        took.push(begin.elapsed());
        delays.extend(listener.is_some().then(|| received.recv_timeout(PATIENCE).unwrap() - begin));
    }
    (delays, took)
}
