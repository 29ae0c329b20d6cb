//! The cost of reading back: commits of sessions of several sizes, with and without it.
//!
//! `SessionManagerBuilder::read_back` states the results. The store is in memory, so that the codec is most of what is measured.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use threaded_sessions::{Codec, Json, MemorySessionStore, MessagePack, SessionManager};

const ROUNDS: usize = 60;
const COMMITS: u32 = 200;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Shop {
    visits: u64,
    theme: String,
    cart: Vec<Item>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Item {
    name: String,
    price: u32,
    count: u8,
}

/// A value whose payload has about this many bytes in JSON.
fn shop(bytes: usize) -> Shop {
    let item = |n: usize| Item { name: format!("tea no. {n:08}"), price: 1_000 + n as u32, count: 2 };
    Shop { visits: 0, theme: "dark".into(), cart: (0..(bytes - 100) / 54).map(item).collect() }
}

/// A manager with one session of about this size, and the time of one commit.
fn commit_time(sessions: &SessionManager<Shop>, value: &Shop) -> Duration {
    let mut session = sessions.fresh();
    *session = value.clone();
    let id = *sessions.commit(session).expect("it is stored").id().expect("it is stored");
    let mut spent = Duration::ZERO;
    for _ in 0..COMMITS {
        let mut session = sessions.open_id(&id).expect("it is read").expect("it lives");
        session.visits += 1;
        let start = Instant::now();
        let _ = sessions.commit(session).expect("it is stored");
        spent += start.elapsed();
    }
    spent / COMMITS
}

fn measure<C: Codec<Shop>>(name: &str, codec: impl Fn() -> C) {
    for bytes in [200, 4 << 10, 64 << 10] {
        let value = shop(bytes);
        let manager = |read_back| {
            let builder = SessionManager::builder_with_codec(MemorySessionStore::new(), codec());
            builder.read_back(read_back).build().expect("the settings are valid")
        };
        let (with, without) = (manager(true), manager(false));
        // The two take turns, and the fastest round of each was disturbed least.
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (best, sessions) in best.iter_mut().zip([&with, &without]) {
                *best = (*best).min(commit_time(sessions, &value));
            }
        }
        let [with, without] = best.map(|time| time.as_nanos() as f64 / 1000.0);
        println!(
            "{name:12} {bytes:6} B: a commit takes {without:7.2} µs, with reading back {with:7.2} µs (+{:.2})",
            with - without
        );
    }
}

fn main() {
    measure("JSON", Json::new);
    measure("MessagePack", MessagePack::new);
}
