//! The store level: payloads are bytes, without a codec.

use redis::Value;
use threaded_sessions::codec::Envelope;
use threaded_sessions::store::{Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{Codec, Json, RedisSessionStore, SessionId, SessionStore};

use super::by_hand::{ByHand, Operation, WEEK, seed};
use super::floor::Floor;
use super::measure::{Act, Load, Place, Plan, go};
use super::report::Report;
use super::support::RedisServer;

/// Sessions that a thread works on in turn, where it can use one again.
const SESSIONS: usize = 64;

pub(crate) fn run(report: &mut Report, server: &RedisServer) {
    for (place, threads) in [(Place::Together, 1), (Place::Apart, 16)] {
        go(place, server);
        for (wire, url) in [("TCP", server.url()), ("Unix socket", server.unix_url())] {
            for expiring in [false, true] {
                let kind = if expiring { "expiring" } else { "plain" };
                report.section(&format!("store, {kind}, {wire}, {threads} {}", plural(threads)));
                let bench = Bench::new(&url, threads, expiring, 1024);
                let plan = report.plan(Load::usual(threads), 1);
                for operation in Operation::ALL {
                    bench.compare(report, operation.name(), plan, server, operation);
                }
                bench.against_leaner(report, plan, server);
            }
        }
    }
}

pub(crate) fn plural(threads: usize) -> &'static str {
    if threads == 1 { "thread" } else { "threads" }
}

/// A store and its floor on one Redis.
pub(crate) struct Bench {
    client: redis::Client,
    store: RedisSessionStore,
    floor: Floor,
    index: Option<&'static str>,
    payloads: [Vec<u8>; 2],
}

impl Bench {
    pub(crate) fn new(url: &str, threads: usize, expiring: bool, size: usize) -> Self {
        let builder = RedisSessionStore::builder().url(url).pool_size(threads as u32);
        let builder = if expiring { builder.expiring() } else { builder };
        Self {
            client: redis::Client::open(url).expect("the server's own URL"),
            store: builder.build().expect("the settings are valid"),
            floor: Floor::new(url, threads),
            index: expiring.then_some("sessions:index"),
            payloads: [u64::MAX, u64::MAX - 1].map(|revision| payload(revision, size)),
        }
    }

    pub(crate) fn compare(
        &self,
        report: &mut Report,
        name: &str,
        plan: Plan,
        server: &RedisServer,
        operation: Operation,
    ) {
        let by_hand = self.by_hand(operation);
        let floor = |load: Load| self.floor_acts(&by_hand, operation, load);
        let store = |load: Load| self.store_acts(operation, load);
        report.compare(name, plan, server, &floor, &store);
    }

    /// Compares the crate with commands that do less, which shows the cost of the difference.
    fn against_leaner(&self, report: &mut Report, plan: Plan, server: &RedisServer) {
        let bare = &ByHand::new(&self.floor, Operation::Touch, None);
        let set = |condition: &'static str| {
            move |load: Load| {
                let fresh = condition == "NX";
                self.for_each_thread(load, if fresh { load.each } else { SESSIONS }, !fresh, move |ids| {
                    let (keys, mut turn) = (self.keys(&ids), 0);
                    Box::new(move || {
                        let mut set = bare.set(&keys[turn % keys.len()], &self.payloads[turn % 2]);
                        assert_eq!(self.floor.query(set.arg(condition)), Value::Okay);
                        turn += 1;
                    })
                })
            }
        };
        let (set_nx, set_xx) = (set("NX"), set("XX"));
        let getex = |load: Load| self.floor_acts(bare, Operation::Touch, load);
        let not_due = Touch::SetIfDue { ttl: WEEK, enough: WEEK / 2 };
        let sparing = |load: Load| self.reads(not_due, load);
        report.compare("  read with touch_every against GETEX", plan, server, &getex, &sparing);
        if self.index.is_some() {
            let touch = |load: Load| self.store_acts(Operation::Touch, load);
            report.compare("  read with touch against GETEX", plan, server, &getex, &touch);
        } else {
            let get = &ByHand::new(&self.floor, Operation::Read, None);
            let bare = |load: Load| self.floor_acts(get, Operation::Read, load);
            report.compare("  GET with the guards of the pool", plan, server, &bare, &|load| self.guarded_gets(load));
            let create = |load: Load| self.store_acts(Operation::Create, load);
            report.compare("  create against SET NX", plan, server, &set_nx, &create);
            let save = |load: Load| self.store_acts(Operation::Save, load);
            report.compare("  last write wins against SET XX", plan, server, &set_xx, &save);
        }
        let guarded = |load: Load| self.store_acts(Operation::SaveIfUnchanged, load);
        report.compare("  save if unchanged against SET XX", plan, server, &set_xx, &guarded);
    }

    /// The bare command over the connections of the crate: what its time limits and its look-out for failures cost.
    fn guarded_gets(&self, load: Load) -> Vec<Act<'_>> {
        self.for_each_thread(load, SESSIONS, true, |ids| {
            let (keys, mut turn) = (self.keys(&ids), 0);
            Box::new(move || {
                let mut connection = self.store.pool().get().expect("Redis responds");
                let value = redis::cmd("GET").arg(&keys[turn % SESSIONS]).query(&mut *connection);
                assert!(matches!(value, Ok(Value::BulkString(_))));
                turn += 1;
            })
        })
    }

    pub(crate) fn by_hand(&self, operation: Operation) -> ByHand {
        ByHand::new(&self.floor, operation, self.index)
    }

    /// Stores as many sessions as the operation needs, if it needs any, and shares them out.
    fn for_each_thread<'b>(
        &'b self,
        load: Load,
        sessions: usize,
        stored: bool,
        act: impl Fn(Vec<SessionId>) -> Act<'b>,
    ) -> Vec<Act<'b>> {
        let ids: Vec<Vec<SessionId>> =
            (0..load.threads).map(|_| (0..sessions).map(|_| self.store.fresh_id(None)).collect()).collect();
        let keys = if stored { self.keys(&ids.concat()) } else { Vec::new() };
        let mut connection = self.client.get_connection().expect("Redis responds");
        seed(&mut connection, &keys, &self.payloads[1], self.index);
        ids.into_iter().map(act).collect()
    }

    fn keys(&self, ids: &[SessionId]) -> Vec<String> {
        ids.iter().map(|id| self.store.key(id)).collect()
    }

    pub(crate) fn floor_acts<'b>(&'b self, hand: &'b ByHand, operation: Operation, load: Load) -> Vec<Act<'b>> {
        let payloads = &self.payloads;
        match operation {
            Operation::Read | Operation::Touch => self.for_each_thread(load, SESSIONS, true, |ids| {
                let (keys, mut turn) = (self.keys(&ids), 0);
                Box::new(move || {
                    assert_eq!(hand.read(&keys[turn % SESSIONS]).len(), payloads[0].len());
                    turn += 1;
                })
            }),
            Operation::Save | Operation::SaveIfUnchanged => self.for_each_thread(load, SESSIONS, true, |ids| {
                let (keys, mut turn) = (self.keys(&ids), 0);
                Box::new(move || {
                    // The same payload for each of the sessions, then the other one.
                    let new = turn / SESSIONS % 2;
                    hand.write(&keys[turn % SESSIONS], &payloads[new], &payloads[1 - new]);
                    turn += 1;
                })
            }),
            Operation::Create => self.for_each_thread(load, load.each, false, |ids| {
                let mut keys = self.keys(&ids).into_iter();
                Box::new(move || hand.write(&keys.next().expect("one for each time"), &payloads[0], &[]))
            }),
            Operation::Renew => self.for_each_thread(load, 1, true, |ids| {
                let chain: Vec<SessionId> = (0..load.each).map(|_| self.store.fresh_id(Some(&ids[0]))).collect();
                let (mut old, mut keys, mut turn) = (self.keys(&ids).remove(0), self.keys(&chain).into_iter(), 0);
                Box::new(move || {
                    let new = keys.next().expect("one for each time");
                    hand.renew(&old, &new, &payloads[turn % 2], &payloads[1 - turn % 2]);
                    (old, turn) = (new, turn + 1);
                })
            }),
            Operation::Destroy => self.for_each_thread(load, load.each, true, |ids| {
                let mut keys = self.keys(&ids).into_iter();
                Box::new(move || hand.destroy(&keys.next().expect("one for each time")))
            }),
        }
    }

    fn reads(&self, touch: Touch, load: Load) -> Vec<Act<'_>> {
        self.for_each_thread(load, SESSIONS, true, |ids| {
            let mut turn = 0;
            Box::new(move || {
                let found = self.store.read(&ids[turn % SESSIONS], touch).expect("Redis responds");
                assert!(matches!(found, Found::Live(_)), "{found:?}");
                turn += 1;
            })
        })
    }

    pub(crate) fn store_acts(&self, operation: Operation, load: Load) -> Vec<Act<'_>> {
        let (store, payloads) = (&self.store as &dyn SessionStore, &self.payloads);
        let write = |turn: usize| Write::new(&payloads[turn % 2], WEEK);
        match operation {
            Operation::Read | Operation::Touch => {
                let touch = if operation == Operation::Read { Touch::No } else { Touch::Set(WEEK) };
                self.reads(touch, load)
            }
            Operation::Save | Operation::SaveIfUnchanged => self.for_each_thread(load, SESSIONS, true, |ids| {
                let guarded = operation == Operation::SaveIfUnchanged;
                let mut versions = vec![Version::new(&*payloads[1]); SESSIONS];
                let mut turn = 0;
                Box::new(move || {
                    let version = &mut versions[turn % SESSIONS];
                    let write = write(turn / SESSIONS);
                    *version = stored(store.save(&ids[turn % SESSIONS], write, guarded.then_some(version)));
                    turn += 1;
                })
            }),
            Operation::Create => self.for_each_thread(load, load.each, false, |ids| {
                let mut ids = ids.into_iter();
                Box::new(move || {
                    let id = ids.next().expect("one for each time");
                    let created = store.create(&id, write(0)).expect("Redis responds");
                    assert!(matches!(created, Created::Stored(_)), "{created:?}");
                })
            }),
            Operation::Renew => self.for_each_thread(load, 1, true, |ids| {
                let mut chain = (0..load.each).map(|_| store.fresh_id(Some(&ids[0]))).collect::<Vec<_>>().into_iter();
                let (mut old, mut version, mut turn) = (ids[0], Version::new(&*payloads[1]), 0);
                Box::new(move || {
                    let new = chain.next().expect("one for each time");
                    version = stored(store.rotate(&old, &new, write(turn), Some(&version)));
                    (old, turn) = (new, turn + 1);
                })
            }),
            Operation::Destroy => self.for_each_thread(load, load.each, true, |ids| {
                let mut ids = ids.into_iter();
                Box::new(move || {
                    let id = ids.next().expect("one for each time");
                    assert!(store.delete(&id).expect("Redis responds"));
                })
            }),
        }
    }
}

/// So many bytes as they are stored of a session, with this revision.
fn payload(revision: u64, size: usize) -> Vec<u8> {
    let encode = |data: &String| {
        let mut envelope = Envelope::new(data);
        envelope.revision = revision;
        Json::<String>::new().encode(&envelope).expect("it can be encoded")
    };
    let around = encode(&String::new()).len();
    encode(&"x".repeat(size.saturating_sub(around)))
}

fn stored(saved: threaded_sessions::Result<Saved>) -> Version {
    match saved.expect("Redis responds") {
        Saved::Stored(version) => version,
        other => panic!("no other client interferes: {other:?}"),
    }
}
