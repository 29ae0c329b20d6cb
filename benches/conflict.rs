//! What it costs to notice that somebody else changed a session: `save` with a version beside a bare `SET` of the same
//! bytes through the same pool, in paired rounds. The bare `SET` stands beside itself as well, so that the noise is seen.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use support::RedisServer;
use threaded_sessions::store::{Created, Saved, Write};
use threaded_sessions::{RedisSessionStore, SessionStore};

const WEEK: Duration = Duration::from_secs(604_800);

fn main() {
    let (rounds, saves) = if std::env::args().any(|arg| arg == "--short") { (3, 50) } else { (31, 2_000) };
    let server = RedisServer::start();
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(server.url());
        let store =
            if expiring { builder.prefix("expiring").expiring() } else { builder }.build().expect("it is valid");
        let payloads = [vec![b'a'; 1024], vec![b'b'; 1024]];
        let id = store.fresh_id(None);
        let Ok(Created::Stored(mut version)) = store.create(&id, Write::new(&payloads[0], WEEK)) else {
            panic!("a fresh id is free")
        };

        let mut turn = 0;
        let mut guarded = || {
            turn += 1;
            match store.save(&id, Write::new(&payloads[turn % 2], WEEK), Some(&version)).expect("Redis answers") {
                Saved::Stored(next) => version = next,
                other => panic!("nobody interferes: {other:?}"),
            }
        };
        let bare = || {
            let mut connection = store.pool().get().expect("Redis answers");
            let mut set = redis::cmd("SET");
            set.arg("bare").arg(&payloads[0]).arg("PX").arg(WEEK.as_millis() as u64);
            set.exec(&mut connection).expect("Redis answers");
        };

        let (mut ratios, mut noise) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let floor = time(saves, bare);
            ratios.push(time(saves, &mut guarded) / floor);
            noise.push(time(saves, bare) / floor);
        }
        let kind = if expiring { "expiring" } else { "plain" };
        println!("{kind:8}  save with a version: {} times as long as a bare SET", spread(&mut ratios));
        println!("{kind:8}  a bare SET beside itself: {}", spread(&mut noise));
    }
}

/// Seconds for this many.
fn time(count: usize, mut act: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| act());
    start.elapsed().as_secs_f64()
}

/// The median, and what lies between the first and the third quarter.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4]);
    format!("{median:.2} ({low:.2} to {high:.2})")
}
