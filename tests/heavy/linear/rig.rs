//! A server behind a proxy, stores that use it, and the faults.
//!
//! `linear.rs` runs rounds on it. The invariant: when a round has ended, no fault is left and every store works again.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use threaded_sessions::store::Touch;
use threaded_sessions::{RedisSessionStore, SessionId, SessionStore};

use crate::client::{Client, Session};
use crate::controls::{Breaks, Control};
use crate::model::Operation;
use crate::random::Random;
use crate::support::{Fault, PATIENCE, Proxy, RedisServer, eventually};

/// The sessions of a round, which meet the same faults.
pub(crate) const SESSIONS: usize = 3;

/// The clients of each session.
const CLIENTS: usize = 8;

/// Each store stands for a process, with a pool and a circuit breaker.
const STORES: usize = 4;

/// The connections of each store, fewer than its clients, so that some clients wait for one.
const CONNECTIONS: u32 = 4;

/// The deadline of an operation. It is short, so that a pause exceeds it.
const DEADLINE: Duration = Duration::from_millis(80);

pub(crate) struct Rig {
    stores: Vec<Control>,
    /// Around the proxy, with a long deadline.
    direct: Control,
    proxy: Proxy,
    // Ends after the connections.
    server: RedisServer,
}

impl Rig {
    pub(crate) fn new(expiring: bool, breaks: Breaks) -> Self {
        let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let proxy = Proxy::start(&server);
        let open = |url: String, deadline: Duration, breaks: Breaks| {
            let builder = RedisSessionStore::builder().url(url).deadline(deadline).pool_size(CONNECTIONS);
            Control::new(if expiring { builder.expiring() } else { builder }.build().unwrap(), breaks)
        };
        let stores = (0..STORES).map(|_| open(proxy.url(), DEADLINE, breaks)).collect();
        Self { stores, direct: open(server.url(), PATIENCE, Breaks::Nothing), proxy, server }
    }

    /// Runs one round, and returns the history of each session.
    pub(crate) fn round(&self, seed: u64) -> Vec<Vec<Operation>> {
        let mut random = Random::new(seed);
        self.settle();
        let sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::create(&self.direct, &mut random)).collect();
        thread::scope(|scope| {
            let mut clients = Vec::new();
            for session in &sessions {
                for number in 0..CLIENTS {
                    let client = Client::new(number, session, &self.stores[number % STORES], random.next());
                    clients.push(scope.spawn(move || client.run()));
                }
            }
            for _ in 0..3 + random.below(3) {
                thread::sleep(millis(&mut random, 1..12));
                self.break_something(&mut random);
            }
            while !clients.iter().all(|client| client.is_finished()) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        self.settle();
        for session in &sessions {
            Client::new(CLIENTS, session, &self.direct, random.next()).read_all();
        }
        sessions.into_iter().map(Session::into_history).collect()
    }

    /// Waits until no fault is left, and all stores read and write.
    fn settle(&self) {
        self.proxy.set(Fault::None);
        for store in [&self.direct].into_iter().chain(&self.stores) {
            let works = |id: SessionId| store.store.read(&id, Touch::No).is_ok() && store.store.delete(&id).is_ok();
            assert!(eventually(PATIENCE, || works(store.fresh_id(None))), "{:?}", store.store.health());
        }
    }

    /// One fault, from its beginning to its end.
    fn break_something(&self, random: &mut Random) {
        let (server, proxy, times) = (&self.server, &self.proxy, 1 + random.below(4));
        match random.below(16) {
            0 => proxy.set_for(Fault::CutBeforeRequest, times),
            1 => proxy.set_for(Fault::CutReplyAt(random.below(30)), times),
            2..6 => proxy.set_for(Fault::CutAfterExecuted, times),
            6 => {
                server.cmd(&["SCRIPT", "FLUSH"]);
                server.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
            7 | 8 => self.during(Fault::Refuse, random, 1..30),
            9 => self.during(Fault::Stall, random, 30..150),
            10 => self.freeze(random, |_| ()),
            // The first attempts wait in the buffers of the server, and the second ones behind them.
            11 => self.freeze(random, |proxy| {
                proxy.set(Fault::Refuse);
                proxy.set(Fault::None);
            }),
            12 => self.pause("WRITE", random),
            13 => self.pause("ALL", random),
            14 => server.restart(),
            _ => {
                server.kill();
                thread::sleep(millis(random, 1..100));
                server.restart();
            }
        }
    }

    fn during(&self, fault: Fault, random: &mut Random, time: Range<usize>) {
        self.proxy.set(fault);
        thread::sleep(millis(random, time));
        self.proxy.set(Fault::None);
    }

    /// Stops the server for some time, and does something in the middle of it.
    fn freeze(&self, random: &mut Random, then: impl Fn(&Proxy)) {
        self.server.stop();
        thread::sleep(millis(random, 5..60));
        then(&self.proxy);
        thread::sleep(millis(random, 5..90));
        self.server.resume();
    }

    /// The server takes no commands for some time, and then carries out those that have arrived.
    fn pause(&self, commands: &str, random: &mut Random) {
        let time = millis(random, 30..150);
        self.server.cmd(&["CLIENT", "PAUSE", &time.as_millis().to_string(), commands]);
        thread::sleep(time);
    }
}

fn millis(random: &mut Random, range: Range<usize>) -> Duration {
    Duration::from_millis((range.start + random.below(range.len())) as u64)
}
