//! Random faults against a model of the possible states of each session. An acknowledged change is stored, a rejected one is not,
//! and a doubtful one may or may not be.
//!
//! `SOAK_SECONDS` sets the duration. `SOAK_SEED` repeats the choices of a run, but not the timing of its threads.

mod support;

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Fault, PATIENCE, Proxy, RedisServer, eventually};
use threaded_sessions::store::{Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, Result, SessionId, SessionStore};

/// Longer than any run, so that only the brief sessions expire.
const DAY: Duration = Duration::from_secs(24 * 3600);
const BRIEF: Duration = Duration::from_millis(500);
const WORKERS: usize = 8;
const SESSIONS: usize = 5;

/// How many sessions a worker remembers for the end of the run. A long run forgets the others, so that its memory shows leaks.
const REMEMBERED: usize = 100;

/// A session and its payload, or none.
type World = Option<(SessionId, String)>;

#[derive(Clone, Debug)]
enum Change {
    Create(SessionId, String),
    /// With the payload that is expected there.
    Save(SessionId, Option<String>, String),
    Rotate(SessionId, SessionId, Option<String>, String),
    Delete(SessionId),
}

impl Change {
    fn applied_to(&self, world: &World) -> World {
        let meets = |id: &SessionId, expected: &Option<String>| match world {
            Some((there, payload)) => there == id && expected.as_ref().is_none_or(|expected| expected == payload),
            None => false,
        };
        match self {
            Self::Create(id, payload) if world.is_none() => Some((*id, payload.clone())),
            Self::Save(id, expected, payload) if meets(id, expected) => Some((*id, payload.clone())),
            Self::Rotate(old, new, expected, payload) if meets(old, expected) => Some((*new, payload.clone())),
            Self::Delete(id) if meets(id, &None) => None,
            _ => world.clone(),
        }
    }

    /// Returns `true` if the change has no effect after another change of the session. Such a change cannot arrive late.
    fn is_harmless_later(&self) -> bool {
        matches!(self, Self::Save(_, Some(_), _) | Self::Rotate(_, _, Some(_), _))
    }

    /// Makes the change, and returns the state of the session afterwards. A conflict does not reveal the state.
    fn run(&self, store: &RedisSessionStore) -> Result<Option<World>> {
        let version = |expected: &Option<String>| expected.as_ref().map(|payload| Version::new(payload.as_bytes()));
        let saved = match self {
            Self::Create(id, payload) => {
                let created = store.create(id, Write::new(payload.as_bytes(), DAY))?;
                assert!(matches!(created, Created::Stored(_)), "{self:?}: {created:?}");
                return Ok(Some(Some((*id, payload.clone()))));
            }
            Self::Delete(id) => return store.delete(id).map(|_| Some(None)),
            Self::Save(id, expected, payload) => {
                (id, payload, store.save(id, Write::new(payload.as_bytes(), DAY), version(expected).as_ref())?)
            }
            Self::Rotate(old, new, expected, payload) => {
                let write = Write::new(payload.as_bytes(), DAY);
                (new, payload, store.rotate(old, new, write, version(expected).as_ref())?)
            }
        };
        Ok(match saved {
            (id, payload, Saved::Stored(_)) => Some(Some((*id, payload.clone()))),
            (.., Saved::Missing | Saved::Conflict(_) | Saved::OverCap) => None,
        })
    }
}

/// One session through all its ids.
struct Slot {
    ids: Vec<SessionId>,
    /// The possible states.
    worlds: Vec<World>,
    /// The changes in doubt.
    pending: Vec<Change>,
}

impl Slot {
    fn new() -> Self {
        Self { ids: Vec::new(), worlds: vec![None], pending: Vec::new() }
    }

    /// Adds the states that doubtful changes can lead to if they arrive late.
    fn settle(&mut self) {
        let mut at = 0;
        while at < self.worlds.len() {
            for change in &self.pending {
                let world = change.applied_to(&self.worlds[at]);
                if !self.worlds.contains(&world) {
                    self.worlds.push(world);
                }
            }
            at += 1;
        }
    }

    /// Keeps the states that agree with a result.
    fn learn(&mut self, what: &str, agrees: impl Fn(&World) -> bool) {
        self.settle();
        let possible = std::mem::take(&mut self.worlds);
        self.worlds = possible.iter().filter(|world| agrees(world)).cloned().collect();
        assert!(!self.worlds.is_empty(), "{what}, but possible is only {possible:?}; in doubt: {:?}", self.pending);
    }

    fn change(&mut self, store: &RedisSessionStore, change: Change) -> Result<(), ErrorKind> {
        match change.run(store) {
            Ok(Some(now)) => {
                self.learn(&format!("{change:?} succeeded"), |world| {
                    change.applied_to(world) == now || matches!(change, Change::Delete(_))
                });
                self.worlds = self.worlds.iter().map(|world| change.applied_to(world)).collect();
                self.worlds.dedup();
                Ok(())
            }
            // It met with something that was in doubt.
            Ok(None) => {
                self.learn(&format!("{change:?} met another"), |world| change.applied_to(world) == *world);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::MayHaveHappened => {
                self.settle();
                self.pending.push(change);
                self.settle();
                Err(error.kind())
            }
            Err(error) => Err(error.kind()),
        }
    }

    fn read(&mut self, store: &RedisSessionStore, id: SessionId, touch: Touch) -> Result<(), ErrorKind> {
        let found = match store.read(&id, touch).map_err(|error| error.kind())? {
            Found::Live(stored) => Some((id, String::from_utf8(stored.payload.to_vec()).unwrap())),
            Found::Renewed | Found::Ended(_) | Found::Absent => None,
        };
        self.learn(&format!("read {found:?}"), |world| match &found {
            Some(_) => *world == found,
            None => world.as_ref().is_none_or(|(there, _)| *there != id),
        });
        Ok(())
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }
}

#[derive(Default)]
struct Work {
    slots: Vec<Slot>,
    /// Of sessions that lived briefly.
    expired: Vec<SessionId>,
    acknowledged: usize,
    in_doubt: usize,
    refused: usize,
}

fn remember<R>(records: &mut Vec<R>, record: R, random: &mut Random) {
    if records.len() == REMEMBERED {
        records.swap_remove(random.below(REMEMBERED as u64) as usize);
    }
    records.push(record);
}

fn work(store: &RedisSessionStore, mut random: Random, over: &AtomicBool) -> Work {
    let mut work = Work::default();
    let mut current: Vec<Slot> = (0..SESSIONS).map(|_| Slot::new()).collect();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        if random.below(16) == 0 {
            let id = store.fresh_id(None);
            let created = store.create(&id, Write::new(b"brief", BRIEF));
            if created.is_ok_and(|created| matches!(created, Created::Stored(_))) {
                remember(&mut work.expired, id, &mut random);
            }
        }
        let slot = &mut current[random.below(SESSIONS as u64) as usize];
        let session = slot.worlds[random.below(slot.worlds.len() as u64) as usize].clone();
        let perhaps = slot.worlds.iter().flatten().next().map(|(id, _)| *id);
        let result = match session {
            // A session that may live is looked for before there is another.
            None if let Some(id) = perhaps => slot.read(store, id, Touch::No),
            None => {
                let id = store.fresh_id(None);
                slot.ids.push(id);
                slot.change(store, Change::Create(id, format!("{number} of {}", id.expose())))
            }
            Some((id, payload)) => {
                let next = format!("{number} of {}", id.expose());
                let expected = (random.below(4) > 0).then_some(payload);
                match random.below(16) {
                    0..6 => slot.read(store, id, Touch::No),
                    6..9 => slot.read(store, id, Touch::Set(DAY)),
                    9..13 => slot.change(store, Change::Save(id, expected, next)),
                    13..15 => {
                        let new = store.fresh_id(Some(&id));
                        slot.ids.push(new);
                        slot.change(store, Change::Rotate(id, new, expected, next))
                    }
                    _ => slot.change(store, Change::Delete(id)),
                }
            }
        };
        match result {
            Ok(()) => work.acknowledged += 1,
            Err(ErrorKind::MayHaveHappened) => work.in_doubt += 1,
            Err(ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::ReadOnly | ErrorKind::OutOfMemory) => {
                work.refused += 1;
                // As a server would be asked again.
                thread::sleep(random.millis(3));
            }
            Err(other) => panic!("no fault explains {other:?}"),
        }
        // A doubtful change that may arrive at any later time makes the session useless for further checks.
        if slot.pending.iter().any(|change| !change.is_harmless_later()) {
            remember(&mut work.slots, std::mem::replace(slot, Slot::new()), &mut random);
        }
    }
    work.slots.extend(current);
    work
}

/// One fault, from its beginning to its end.
fn break_something(server: &RedisServer, proxy: &Proxy, random: &mut Random) {
    let times = 1 + random.below(4) as usize;
    match random.below(13) {
        0 => proxy.set_for(Fault::CutBeforeRequest, times),
        1 => proxy.set_for(Fault::CutReplyAt(random.below(30) as usize), times),
        2 | 3 => proxy.set_for(Fault::CutAfterExecuted, times),
        4 => proxy.set_for(Fault::Drip(Duration::from_millis(1)), times),
        5 => {
            proxy.set(Fault::Stall);
            thread::sleep(random.millis(1500));
            proxy.set(Fault::None);
        }
        6 => {
            proxy.set(Fault::Refuse);
            thread::sleep(random.millis(300));
            proxy.set(Fault::None);
        }
        7 => {
            server.kill();
            thread::sleep(random.millis(300));
            server.restart();
        }
        8 => server.restart(),
        9 => {
            server.stop();
            thread::sleep(random.millis(1500));
            server.resume();
        }
        10 => drop(server.cmd(&["CLIENT", "KILL", "TYPE", "normal"])),
        11 => {
            server.demote();
            thread::sleep(random.millis(200));
            server.promote();
        }
        _ => {
            server.cmd(&["SCRIPT", "FLUSH"]);
            server.fill();
            thread::sleep(random.millis(200));
            server.make_room();
        }
    }
}

/// Ends the workers when it is dropped, also by a panic, which would wait for them otherwise.
struct EndOfWork<'o>(&'o AtomicBool);

impl Drop for EndOfWork<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn acknowledged_writes_survive_random_faults() {
    let seconds = env::var("SOAK_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let seed = env::var("SOAK_SEED").map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    // Shown if the test fails.
    println!("SOAK_SEED={seed}");
    let mut random = Random(seed);
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let proxy = Proxy::start(&server);
    let plain = RedisSessionStore::builder().url(proxy.url()).prefix("plain").build().unwrap();
    let pool = plain.pool().clone();
    let expiring = RedisSessionStore::builder().pool(pool).prefix("expiring").expiring().build().unwrap();
    let stores = [&plain, &expiring];

    let over = &AtomicBool::new(false);
    let done: Vec<Work> = thread::scope(|scope| {
        let end_of_work = EndOfWork(over);
        let worker = |number: usize| {
            let random = Random(random.next());
            scope.spawn(move || work(stores[number % 2], random, over))
        };
        let workers: Vec<_> = (0..WORKERS).map(worker).collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        // A worker that failed ends it as well.
        while Instant::now() < end && !workers.iter().any(|worker| worker.is_finished()) {
            break_something(&server, &proxy, &mut random);
            thread::sleep(random.millis(200));
        }
        drop(end_of_work);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });

    proxy.set(Fault::None);
    for store in stores {
        assert!(eventually(PATIENCE, || store.read(&SessionId::random(), Touch::No).is_ok()));
    }
    let patient = |builder: threaded_sessions::RedisSessionStoreBuilder| {
        builder.url(server.url()).deadline(PATIENCE).build().unwrap()
    };
    let stores = [
        patient(RedisSessionStore::builder().prefix("plain")),
        patient(RedisSessionStore::builder().prefix("expiring").expiring()),
    ];
    thread::sleep(BRIEF);
    let (mut acknowledged, mut in_doubt, mut refused) = (0, 0, 0);
    for (number, work) in done.into_iter().enumerate() {
        let store = &stores[number % 2];
        for mut slot in work.slots {
            // Each result rules out states, so in the end all results agree with one state.
            slot.ids.clone().into_iter().for_each(|id| slot.read(store, id, Touch::No).unwrap());
        }
        for id in work.expired {
            assert!(matches!(store.read(&id, Touch::No), Ok(Found::Absent)), "it has expired");
        }
        acknowledged += work.acknowledged;
        in_doubt += work.in_doubt;
        refused += work.refused;
    }
    println!(
        "{acknowledged} acknowledged, {in_doubt} in doubt, {refused} refused, {} faults on the wire",
        proxy.fired()
    );
    assert!(acknowledged > 100 && in_doubt > 0 && refused > 0, "it was no soak");
}
