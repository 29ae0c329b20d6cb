//! A store in a private Redis, on which the operations of a history are carried out.
//!
//! `explore.rs` uses it. It translates between the numbers of the model and ids, payloads and versions, lets TTLs pass, and reads
//! and replaces all that the server has (`look.lua`). The invariant: a history starts with exactly the keys that it is given.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use threaded_sessions::redis::{Client, Connection, Script, cmd, pipe};
use threaded_sessions::store::{
    Bind, Companion, Created, Ending, Found, Saved, SessionIndex, Stored, Touch, VerifyOptions, Version, Write,
};
use threaded_sessions::{RedisSessionStore, Result, SessionId, SessionStore};

use crate::model::{AFTER, Answer, Cap, Kind, Model, Stage};
use crate::operations::{Act, Expect, Operation, PRINCIPALS, Principal, Target};
use crate::support::{PATIENCE, RedisServer};

pub(crate) const PREFIX: &str = "sessions:";
pub(crate) const COMPANION: &str = "note";

/// How long the data of an expired session stays.
pub(crate) const GRACE: u64 = 86_400_000;

pub(crate) struct Ground {
    store: RedisSessionStore,
    connection: Connection,
    kind: Kind,
    /// The ids of both slots, in the order in which they are used.
    ids: [Vec<SessionId>; 2],
    /// The versions of payloads, as the store last returned them.
    versions: HashMap<u32, Version>,
    look: Script,
    /// The hashes of the principals.
    pub(crate) owners: Vec<String>,
    // Ends after the connections.
    _server: RedisServer,
}

impl Ground {
    pub(crate) fn new(kind: Kind) -> Self {
        let server = RedisServer::start();
        let builder = RedisSessionStore::builder().url(server.unix_url()).deadline(PATIENCE);
        let mut store = if kind.expiring { builder.expiring() } else { builder }.build().unwrap();
        if kind.companions {
            store.keep_companions(&[COMPANION.to_owned()]).unwrap();
        }
        let connection = Client::open(server.unix_url()).unwrap().get_connection().unwrap();
        let look = Script::new(include_str!("look.lua"));
        let (ids, versions, owners) = (Default::default(), HashMap::new(), Vec::new());
        let mut ground = Self { store, connection, kind, ids, versions, look, owners, _server: server };
        if kind.expiring {
            ground.owners = PRINCIPALS.iter().map(|principal| ground.owner(principal)).collect();
        }
        ground.look(Some(EMPTY));
        ground
    }

    /// Finds out under which hash the store keeps a principal.
    fn owner(&mut self, principal: &str) -> String {
        let id = self.store.fresh_id(None);
        let bind = Bind::To { principal, cap: None };
        let _ = self.store.create(&id, Write::new(b"payload", None).with_bind(bind)).unwrap();
        let mut owner = cmd("HGET");
        owner.arg(format!("{PREFIX}principals")).arg(self.store.key(&id));
        let owner = owner.query(&mut self.connection).unwrap();
        self.store.delete(&id).unwrap();
        owner
    }

    /// Returns all that the server has. Replaces it, if it is to be replaced.
    pub(crate) fn look(&mut self, replacement: Option<&str>) -> String {
        let mut call = self.look.prepare_invoke();
        if let Some(replacement) = replacement {
            call.arg(replacement);
        }
        call.invoke(&mut self.connection).unwrap()
    }

    pub(crate) fn is_expiring(&self) -> bool {
        self.kind.expiring
    }

    /// Returns slot and position of the id with this key.
    pub(crate) fn id_of(&self, key: &str) -> Option<(usize, usize)> {
        let text = key.strip_prefix(PREFIX)?;
        let find = |slot: usize| Some((slot, self.ids[slot].iter().position(|id| *id.expose() == *text)?));
        find(0).or_else(|| find(1))
    }

    fn id(&mut self, slot: usize, position: usize) -> SessionId {
        while self.ids[slot].len() <= position {
            self.ids[slot].push(self.store.fresh_id(None));
        }
        self.ids[slot][position]
    }

    /// Carries out an operation. `model` is how the model is before.
    pub(crate) fn take(&mut self, operation: Operation, model: &Model) -> Answer {
        let answer = match operation {
            Operation::On(target, act) => self.act(target, act, model),
            Operation::EndAll(principal) => self.end(principal, Ending::All),
            Operation::EndEverybody => self.index().end_everybody().map(Answer::Ended),
            Operation::Reap => self.index().reap(0, 1000, true).map(|reaped| {
                let mut payloads: Vec<u32> = reaped.sessions.iter().map(|expired| number(&expired.payload)).collect();
                payloads.sort_unstable();
                assert_eq!((reaped.removed, reaped.backlog), (payloads.len() as u64, 0));
                Answer::Reaped(payloads)
            }),
            Operation::Verify => self.index().verify(VerifyOptions::new()).map(Answer::Verified),
        };
        answer.unwrap_or_else(|error| Answer::Failed(error.kind()))
    }

    fn index(&self) -> &dyn SessionIndex {
        self.store.index().expect("an expiring store has an index")
    }

    fn end(&self, principal: Principal, which: Ending<'_>) -> Result<Answer> {
        self.index().end(PRINCIPALS[principal], which).map(Answer::Ended)
    }

    fn act(&mut self, target: Target, act: Act, model: &Model) -> Result<Answer> {
        let id = self.id(target.slot, model.position(target));
        Ok(match act {
            Act::Create => self.create(&id, model.next_payload())?,
            Act::Read => self.found(self.store.read(&id, Touch::No)?),
            Act::Touch => self.found(self.store.read(&id, Touch::Set(hours(AFTER.touch.unwrap())))?),
            Act::Save(_) | Act::Bind(_) => self.write(target, act, model, None)?,
            Act::Rotate(_) | Act::Login(_) => {
                let new = self.id(target.slot, model.slot(target.slot).ids.len());
                self.write(target, act, model, Some(new))?
            }
            Act::Delete => Answer::Ended(self.store.delete(&id)?.into()),
            Act::End(principal) => self.end(principal, Ending::Only(self.store.handle(&id)))?,
            Act::Expire => {
                self.expire(&id, model.id(target).session.as_ref().map(|record| record.stage));
                Answer::Done
            }
        })
    }

    fn create(&mut self, id: &SessionId, payload: u32) -> Result<Answer> {
        let (bytes, companions) = (self.payload(payload), self.companion(payload));
        let write = Write::new(&bytes, AFTER.create.map(hours)).with_companions(&companions);
        Ok(match self.store.create(id, write)? {
            Created::Stored(version) => self.stored(payload, version),
            Created::Taken => Answer::Taken,
            Created::OverCap => Answer::OverCap,
        })
    }

    /// Saves or, with a new id, rotates.
    fn write(&mut self, target: Target, act: Act, model: &Model, new: Option<SessionId>) -> Result<Answer> {
        let (expect, after, bind) = match act {
            Act::Save(Expect::Any) => (Expect::Any, AFTER.blind_save, Bind::Keep),
            Act::Save(expect) => (expect, AFTER.save, Bind::Keep),
            Act::Bind(owner) => (Expect::Current, AFTER.bind, owner.map_or(Bind::Unbind, |owner| self.bind(owner))),
            Act::Rotate(expect) => (expect, AFTER.rotate, Bind::Keep),
            Act::Login(owner) => (Expect::Current, AFTER.rotate, self.bind(owner)),
            other => unreachable!("{other:?} is no write"),
        };
        let (id, payload) = (self.id(target.slot, model.position(target)), model.next_payload());
        let bytes = self.payload(payload);
        let has_companion = matches!(act, Act::Save(Expect::Current | Expect::Stale));
        let companions = if has_companion { self.companion(payload) } else { Vec::new() };
        let write = Write::new(&bytes, after.map(hours)).with_companions(&companions).with_bind(bind);
        let expected = model.expected(target, expect).map(|payload| &self.versions[&payload]);
        let saved = match &new {
            Some(new) => self.store.rotate(&id, new, write, expected)?,
            None => self.store.save(&id, write, expected)?,
        };
        Ok(match saved {
            Saved::Stored(version) => self.stored(payload, version),
            Saved::Missing => Answer::Missing,
            Saved::OverCap => Answer::OverCap,
            Saved::Conflict(stored) => {
                let (payload, hours) = self.seen(stored);
                Answer::Conflict { payload, hours }
            }
        })
    }

    fn bind(&self, principal: Principal) -> Bind<'static> {
        let principal = PRINCIPALS[principal];
        match self.kind.cap {
            Cap::None => Bind::To { principal, cap: None },
            Cap::EndsTheFirst => Bind::To { principal, cap: Some(1) },
            Cap::RefusesTheSecond => Bind::WithinCap { principal, cap: 1 },
        }
    }

    fn stored(&mut self, payload: u32, version: Version) -> Answer {
        self.versions.insert(payload, version);
        Answer::Stored
    }

    fn found(&mut self, found: Found) -> Answer {
        match found {
            Found::Live(stored) => {
                let (payload, hours) = self.seen(stored);
                Answer::Live { payload, hours }
            }
            Found::Renewed => Answer::Renewed,
            Found::Absent => Answer::Absent,
            Found::Ended(reason) => panic!("the store notes no ends: {reason:?}"),
        }
    }

    /// Returns payload and hours left.
    fn seen(&mut self, stored: Stored) -> (u32, Option<u64>) {
        let payload = number(&stored.payload);
        self.versions.insert(payload, stored.version);
        (payload, stored.expires_in.map(|left| whole_hours(left.as_millis() as u64)))
    }

    /// Stores without companions have payloads with a revision, those with companions have others.
    fn payload(&self, number: u32) -> Vec<u8> {
        if self.kind.companions {
            format!("payload {number}").into_bytes()
        } else {
            format!("{{\"v\":1,\"rev\":{number},\"data\":{number}}}").into_bytes()
        }
    }

    fn companion(&self, payload: u32) -> Vec<Companion> {
        let companion = || Companion::new(COMPANION, format!("note {payload}"));
        self.kind.companions.then(companion).into_iter().collect()
    }

    /// Lets the next TTL pass of what is stored under an id.
    fn expire(&mut self, id: &SessionId, stage: Option<Stage>) {
        let key = self.store.key(id);
        let companion = format!("{key}:{COMPANION}");
        let mut commands = pipe();
        match stage {
            Some(Stage::Live) if self.kind.expiring => {
                let past = now() - 1;
                for key in [&key, &companion] {
                    commands.cmd("PEXPIREAT").arg(key).arg(past + GRACE).ignore();
                }
                commands.cmd("ZADD").arg(format!("{PREFIX}index")).arg("XX").arg(past).arg(&key).ignore();
            }
            Some(Stage::Live | Stage::Expired) => {
                for key in [&key, &companion] {
                    commands.cmd("PEXPIREAT").arg(key).arg(now() - 1).ignore();
                }
            }
            _ => {
                commands.cmd("PEXPIREAT").arg(format!("{key}:renewed")).arg(now() - 1).ignore();
            }
        }
        commands.exec(&mut self.connection).unwrap();
    }
}

/// The result of `look.lua` for an empty server.
pub(crate) const EMPTY: &str = "[0]";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// The hours that began, because a part of the last one has passed: a minute at most.
pub(crate) fn whole_hours(millis: u64) -> u64 {
    const HOUR: u64 = 3_600_000;
    let hours = millis.div_ceil(HOUR);
    assert!(hours * HOUR - millis < 60_000, "{millis} ms are no hours");
    hours
}

/// The number of a payload: its last one.
pub(crate) fn number(payload: &[u8]) -> u32 {
    let text = str::from_utf8(payload).unwrap();
    let digits = text.trim_end_matches('}').rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("a payload without a number: {text}"))
}
