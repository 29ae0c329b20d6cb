//! A session that is recorded, and the clients that use it at the same time.
//!
//! `rig.rs` runs the clients. The invariant: the history has every call that may have had an effect, with times that enclose it.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use threaded_sessions::store::{Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{ErrorKind, Result, SessionId, SessionStore};

use crate::controls::Control;
use crate::model::{Call, Operation, Outcome};
use crate::random::Random;

const HOUR: Duration = Duration::from_secs(3600);

/// How many operations a client records.
const OPERATIONS: usize = 5;

/// How often a client calls at most, because calls may fail without an effect.
const ATTEMPTS: usize = 14;

/// A session that several clients use.
pub(crate) struct Session {
    /// A number that all payloads of the session have.
    nonce: u64,
    /// Payloads begin with a revision, as those of a manager do.
    has_revisions: bool,
    /// Clients delete it.
    has_deletions: bool,
    clock: AtomicU64,
    /// How many payloads were taken.
    values: AtomicU8,
    /// All ids, by their numbers.
    ids: Mutex<Vec<SessionId>>,
    /// The numbers of ids that may be live. The last one was seen live last.
    known: Mutex<Vec<u8>>,
    history: Mutex<Vec<Operation>>,
}

impl Session {
    pub(crate) fn create(store: &dyn SessionStore, random: &mut Random) -> Self {
        let id = store.fresh_id(None);
        let session = Self {
            nonce: random.next() >> 16,
            has_revisions: random.below(2) == 0,
            has_deletions: random.below(2) == 0,
            clock: AtomicU64::new(0),
            values: AtomicU8::new(1),
            ids: Mutex::new(vec![id]),
            known: Mutex::new(vec![0]),
            history: Mutex::new(Vec::new()),
        };
        let created = store.create(&id, Write::new(&session.payload(0), HOUR)).unwrap();
        assert!(matches!(created, Created::Stored(_)), "{created:?}");
        session
    }

    /// Returns what was recorded.
    pub(crate) fn into_history(self) -> Vec<Operation> {
        self.history.into_inner().unwrap()
    }

    fn payload(&self, value: u8) -> Vec<u8> {
        let (revision, padding) = (self.nonce * 1000 + u64::from(value), "x".repeat(usize::from(value) * 7));
        let text = match self.has_revisions {
            true => format!("{{\"v\":1,\"rev\":{revision},\"data\":\"{padding}\"}}"),
            false => format!("{padding} {revision}"),
        };
        text.into_bytes()
    }

    /// Returns the number of a payload.
    fn value(&self, payload: &[u8]) -> u8 {
        let mut taken = 0..self.values.load(Ordering::SeqCst);
        taken.find(|&value| self.payload(value) == payload).expect("a client of this session wrote the payload")
    }

    fn id(&self, number: u8) -> SessionId {
        self.ids.lock().unwrap()[usize::from(number)]
    }

    fn known(&self) -> MutexGuard<'_, Vec<u8>> {
        self.known.lock().unwrap()
    }

    /// Takes a new id, which no client knows yet.
    fn take_id(&self, store: &dyn SessionStore) -> u8 {
        let mut ids = self.ids.lock().unwrap();
        let id = store.fresh_id(Some(&ids[0]));
        ids.push(id);
        (ids.len() - 1) as u8
    }

    fn saw_live(&self, id: u8) {
        let mut known = self.known();
        known.retain(|other| *other != id);
        known.push(id);
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A client with a store. It is one thread.
pub(crate) struct Client<'a> {
    number: usize,
    session: &'a Session,
    store: &'a Control,
    random: Random,
    /// The payload and the version that the client last saw under an id.
    seen: HashMap<u8, (u8, Version)>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(number: usize, session: &'a Session, store: &'a Control, seed: u64) -> Self {
        Self { number, session, store, random: Random::new(seed), seen: HashMap::new() }
    }

    /// Makes random calls, with pauses.
    pub(crate) fn run(mut self) {
        let mut recorded = 0;
        for _ in 0..ATTEMPTS {
            let call = self.choose();
            let is_recorded = self.record(call);
            recorded += usize::from(is_recorded);
            if recorded == OPERATIONS {
                break;
            }
            // After a failure, the server is unreachable for some time.
            let pause = self.random.below(if is_recorded { 12_000 } else { 40_000 });
            thread::sleep(Duration::from_micros(pause as u64));
        }
    }

    /// Reads every id that may be live.
    pub(crate) fn read_all(mut self) {
        let known = mem::take(&mut *self.session.known());
        for id in known {
            assert!(self.record(Call::Read { id }), "the server works again");
        }
    }

    fn choose(&mut self) -> Call {
        let session = self.session;
        let id = {
            let known = session.known();
            let last = known.len() - 1;
            known[if self.random.below(3) > 0 { last } else { self.random.below(known.len()) }]
        };
        // Without a version, a call replaces any.
        let expected = self.seen.get(&id).filter(|_| self.random.below(3) > 0).map(|(value, _)| *value);
        let value = || session.values.fetch_add(1, Ordering::SeqCst);
        match self.random.below(20) {
            0..7 => Call::Read { id },
            7..15 => Call::Save { id, value: value(), expected },
            15..19 => Call::Rotate { old: id, new: session.take_id(self.store), value: value(), expected },
            _ if session.has_deletions => Call::Delete { id },
            _ => Call::Read { id },
        }
    }

    /// Makes a call and records it. Returns `false` if it failed without an effect.
    fn record(&mut self, call: Call) -> bool {
        // Another client of the store may be the one whose call was sent twice.
        let repeated = |client: &Self| client.store.store.health().repeated;
        let (before, invoked) = (repeated(self), self.session.now());
        let result = self.call(call);
        let (returned, resent) = (self.session.now(), repeated(self) != before);
        let outcome = match result {
            Ok(outcome) => Some(outcome),
            Err(error) => match (error.kind(), call) {
                (ErrorKind::MayHaveHappened, Call::Read { .. }) => panic!("a read changes nothing: {error:?}"),
                (ErrorKind::MayHaveHappened, _) => None,
                (ErrorKind::Unavailable | ErrorKind::TimedOut, _) => return false,
                _ => panic!("no fault explains {error:?}"),
            },
        };
        match (call, outcome) {
            (Call::Rotate { new, .. }, Some(Outcome::Stored)) => self.session.saw_live(new),
            // In doubt, it is rather not live.
            (Call::Rotate { new, .. }, None) => self.session.known().insert(0, new),
            (Call::Read { id }, Some(Outcome::Live(_))) => self.session.saw_live(id),
            _ => (),
        }
        let operation = Operation { client: self.number, call, invoked, returned, outcome, resent };
        self.session.history.lock().unwrap().push(operation);
        true
    }

    fn call(&mut self, call: Call) -> Result<Outcome> {
        let (session, store) = (self.session, self.store);
        match call {
            Call::Read { id } => {
                let touch = if self.random.below(2) == 0 { Touch::No } else { Touch::Set(HOUR) };
                Ok(match store.read(&session.id(id), touch)? {
                    Found::Live(stored) => {
                        let value = session.value(&stored.payload);
                        self.seen.insert(id, (value, stored.version));
                        Outcome::Live(value)
                    }
                    Found::Renewed => Outcome::Renewed,
                    Found::Absent => Outcome::Absent,
                    Found::Ended(reason) => panic!("the store remembers no ends: {reason:?}"),
                })
            }
            Call::Save { id, value, expected } => {
                let payload = session.payload(value);
                let version = expected.map(|_| &self.seen[&id].1);
                let saved = store.save(&session.id(id), Write::new(&payload, HOUR), version)?;
                Ok(self.saved(id, id, value, saved))
            }
            Call::Rotate { old, new, value, expected } => {
                let payload = session.payload(value);
                let version = expected.map(|_| &self.seen[&old].1);
                let ids = [session.id(old), session.id(new)];
                let saved = store.rotate(&ids[0], &ids[1], Write::new(&payload, HOUR), version)?;
                Ok(self.saved(old, new, value, saved))
            }
            Call::Delete { id } => store.delete(&session.id(id)).map(Outcome::Deleted),
        }
    }

    fn saved(&mut self, old: u8, new: u8, value: u8, saved: Saved) -> Outcome {
        match saved {
            Saved::Stored(version) => {
                self.seen.insert(new, (value, version));
                Outcome::Stored
            }
            Saved::Missing => Outcome::Missing,
            Saved::Conflict(stored) => {
                let found = self.session.value(&stored.payload);
                self.seen.insert(old, (found, stored.version));
                Outcome::Conflict(found)
            }
            Saved::OverCap => panic!("the session has no principal"),
        }
    }
}
