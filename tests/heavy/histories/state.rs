//! All that is stored: as the model expects it, and as it was found on the server.
//!
//! `explore.rs` compares both after each history. The invariant: every key of the server is in a state, and a key that no rule
//! expects is among the strays.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::ground::{COMPANION, GRACE, Ground, PREFIX, number, whole_hours};
use crate::model::{Model, Stage};
use crate::operations::{PRINCIPALS, Principal, SLOTS};

/// The TTL of a tombstone in ms.
const TOMBSTONE_TTL: i64 = 30_000;

/// Slot, and position among the ids of the slot.
type Id = (usize, usize);

#[derive(Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Payload and whole hours left: `Some(0)` if the session expired, `None` if it has no TTL.
    sessions: BTreeMap<Id, (u32, Option<u64>)>,
    /// The payloads with which companions were written. A companion has the deadline of its session.
    companions: BTreeMap<Id, u32>,
    /// The entries of the index that are no more than a 64th of the TTL away from the deadline of the session.
    index: BTreeSet<Id>,
    owners: BTreeMap<Id, Principal>,
    /// The sessions of each principal, by the time at which the principal got them.
    owned: [Vec<Id>; PRINCIPALS.len()],
    tombstones: BTreeSet<Id>,
    /// Keys and entries that should not be there.
    strays: Vec<String>,
}

impl State {
    pub(crate) fn expected(model: &Model) -> Self {
        let mut state = Self::default();
        let mut owned = <[Vec<(u32, Id)>; PRINCIPALS.len()]>::default();
        for (slot, position, record) in model.records() {
            let id = (slot, position);
            if record.stage != Stage::Dropped {
                state.sessions.insert(id, (record.payload, record.hours));
                state.companions.extend(record.companion.map(|companion| (id, companion)));
            }
            if model.kind.expiring {
                state.index.insert(id);
            }
            if let Some((owner, time)) = record.owner {
                state.owners.insert(id, owner);
                owned[owner].push((time, id));
            }
        }
        owned.iter_mut().for_each(|owned| owned.sort_unstable());
        state.owned = owned.map(|owned| owned.into_iter().map(|(_, id)| id).collect());
        for slot in 0..SLOTS {
            let ids = model.slot(slot).ids.iter().enumerate();
            state.tombstones.extend(ids.filter(|(_, id)| id.has_tombstone).map(|(position, _)| (slot, position)));
        }
        state
    }

    /// Reads what `look.lua` returned.
    pub(crate) fn found(ground: &Ground, look: &str) -> Self {
        let mut parts: Vec<Part> = serde_json::from_str(look).unwrap();
        let Part::Time(now) = parts.remove(0) else { panic!("no time in {look}") };
        let keys: Vec<Key> = parts.into_iter().filter_map(Part::key).collect();
        let deadlines = keys.iter().map(|key| (key.name.as_str(), key.deadline)).collect();
        let mut reader = Reader { ground, now, deadlines, state: Self::default() };
        keys.iter().for_each(|key| reader.read(key));
        reader.state
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Time(i64),
    /// Name, deadline and content.
    Key(String, i64, Content),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    List(Vec<String>),
}

struct Key {
    name: String,
    deadline: i64,
    content: Content,
}

impl Part {
    fn key(self) -> Option<Key> {
        match self {
            Self::Time(_) => None,
            Self::Key(name, deadline, content) => Some(Key { name, deadline, content }),
        }
    }
}

struct Reader<'a> {
    ground: &'a Ground,
    now: i64,
    deadlines: BTreeMap<&'a str, i64>,
    state: State,
}

impl Reader<'_> {
    fn read(&mut self, key: &Key) {
        if self.read_known(key).is_none() {
            self.state.strays.push(format!("{} with the deadline {}", key.name, key.deadline));
        }
    }

    /// Returns `None` if the key should not be there.
    fn read_known(&mut self, key: &Key) -> Option<()> {
        let name = key.name.strip_prefix(PREFIX)?;
        match &key.content {
            Content::Text(text) => match key.name.rsplit_once(':') {
                Some((session, "renewed")) if self.ground.id_of(session).is_some() => {
                    let left = key.deadline - self.now;
                    (text.is_empty() && (1..=TOMBSTONE_TTL).contains(&left)).then_some(())?;
                    self.state.tombstones.insert(self.ground.id_of(session)?);
                }
                Some((session, COMPANION)) => {
                    (self.deadlines.get(session) == Some(&key.deadline)).then_some(())?;
                    self.state.companions.insert(self.ground.id_of(session)?, number(text.as_bytes()));
                }
                _ => self.read_session(key, text)?,
            },
            // Index and owners have no TTL.
            Content::List(_) if key.deadline != -1 => return None,
            Content::List(list) => self.read_list(name, list)?,
        }
        Some(())
    }

    fn read_session(&mut self, key: &Key, text: &str) -> Option<()> {
        let grace = if self.ground.is_expiring() { GRACE as i64 } else { 0 };
        let left = key.deadline - self.now - grace;
        let hours = (key.deadline != -1).then(|| whole_hours(u64::try_from(left).unwrap_or(0)));
        self.state.sessions.insert(self.ground.id_of(&key.name)?, (number(text.as_bytes()), hours));
        Some(())
    }

    fn read_list(&mut self, name: &str, list: &[String]) -> Option<()> {
        let mut last = 0;
        for pair in list.chunks_exact(2) {
            let id = self.ground.id_of(&pair[0])?;
            if name == "index" {
                self.is_exact(&pair[0], &pair[1]).then_some(())?;
                self.state.index.insert(id);
            } else if name == "principals" {
                let owner = self.ground.owners.iter().position(|owner| *owner == pair[1])?;
                self.state.owners.insert(id, owner);
            } else {
                let hash = name.strip_prefix("principal:")?;
                let owner = self.ground.owners.iter().position(|owner| owner == hash)?;
                let since: i64 = pair[1].parse().ok()?;
                (since > last).then_some(())?;
                last = since;
                self.state.owned[owner].push(id);
            }
        }
        Some(())
    }

    /// Returns `true` if an entry of the index has the deadline of its session. Without a session, the deadline must have passed.
    fn is_exact(&self, key: &str, score: &str) -> bool {
        let score: f64 = score.parse().unwrap();
        match self.deadlines.get(key) {
            None => score <= self.now as f64,
            Some(-1) => score == f64::INFINITY,
            Some(deadline) => {
                let (due, now) = ((deadline - GRACE as i64) as f64, self.now as f64);
                (score - due).abs() <= f64::max(1000.0, (due - now).abs() / 64.0)
            }
        }
    }
}
