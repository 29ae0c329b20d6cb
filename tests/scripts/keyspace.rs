//! Random keyspaces: three sessions in any state, their companions and tombstones, an index, owners and their sets. `scripts.rs`
//! runs old and new scripts on them. All times are hours apart, so that no result depends on when a script runs.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Kind;
use super::calls::Call;

pub(crate) const HOUR: u64 = 3_600_000;

/// By how many ms the data of a session outlives it in an expiring store.
pub(crate) const GRACE: u64 = 24 * HOUR;

pub(crate) const TWO_OWNERS: [&str; 2] = ["ada", "bob"];

const SUFFIXES: [&str; 2] = ["device", "seen"];

/// A small generator (SplitMix64), so that a seed gives the same keyspaces everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns `true` once in `of` times.
    pub(crate) fn maybe(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for at in (1..values.len()).rev() {
            values.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// One of few payloads, so that two are often equal, or have a revision in common.
pub(crate) fn payload(random: &mut Random) -> String {
    format!("r{}|data{}", random.below(3), random.below(2))
}

/// The names in a partition.
pub(crate) struct Names {
    pub(crate) base: String,
}

impl Names {
    pub(crate) fn sessions(&self) -> Vec<String> {
        ["a", "b", "c"].iter().map(|id| format!("{}{id}", self.base)).collect()
    }

    pub(crate) fn tombstone(&self, session: &str) -> String {
        format!("{session}:renewed")
    }

    pub(crate) fn index(&self) -> String {
        format!("{}index", self.base)
    }

    fn owners(&self) -> String {
        format!("{}principals", self.base)
    }

    fn owned(&self, owner: &str) -> String {
        format!("{}principal:{owner}", self.base)
    }
}

/// A keyspace, and what is called on it.
#[derive(Debug)]
pub(crate) struct Keyspace {
    pub(crate) base: String,
    /// The commands that make it: for each the number of its words, and the words.
    pub(crate) commands: Vec<String>,
    pub(crate) calls: Vec<Call>,
}

impl Keyspace {
    pub(crate) fn random(kind: Kind, random: &mut Random) -> Self {
        let base = if random.maybe(2) { "sessions:" } else { "sessions:{7}:" }.to_owned();
        let names = Names { base: base.clone() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let mut maker = Maker { kind, names: &names, now, commands: Vec::new(), random };
        let sessions: Vec<(String, Option<u64>)> =
            names.sessions().into_iter().map(|key| (key.clone(), maker.session(&key))).collect();
        if kind.expiring {
            maker.index(&sessions);
            maker.principals(&sessions);
        }
        let commands = maker.commands;
        let calls = (0..1 + random.below(3)).map(|_| Call::random(kind, &names, now, random)).collect();
        Self { base, commands, calls }
    }
}

struct Maker<'a> {
    kind: Kind,
    names: &'a Names,
    now: u64,
    commands: Vec<String>,
    random: &'a mut Random,
}

impl Maker<'_> {
    fn command(&mut self, parts: &[&str]) {
        self.commands.push(parts.len().to_string());
        self.commands.extend(parts.iter().map(|&part| part.to_owned()));
    }

    /// Makes a session in some state, with companions and a tombstone. Returns the deadline of its data, if it has one.
    fn session(&mut self, key: &str) -> Option<u64> {
        let hours = HOUR * (1 + self.random.below(9));
        let live = self.now + hours + if self.kind.expiring { GRACE } else { 0 };
        let payload = payload(self.random);
        let deadline = match self.random.below(8) {
            0 => None,
            1 => {
                self.command(&["SET", key, &payload]);
                None
            }
            2 => {
                self.wrong_type(key);
                None
            }
            // Expired within the grace period; live in a plain store.
            3 | 4 => Some(self.now + 2 * hours),
            _ => Some(live),
        };
        if let Some(deadline) = deadline {
            self.command(&["SET", key, &payload, "PXAT", &deadline.to_string()]);
        }
        let suffixes = if self.kind.companions { &SUFFIXES[..] } else { &[] };
        for suffix in suffixes {
            self.companion(&format!("{key}:{suffix}"), deadline.unwrap_or(live));
        }
        if self.random.maybe(4) {
            let tombstone = self.names.tombstone(key);
            self.command(&["SET", &tombstone, "", "PX", "600000"]);
        }
        deadline
    }

    fn companion(&mut self, key: &str, deadline: u64) {
        match self.random.below(5) {
            0 => {}
            1 => self.command(&["SET", key, "kept"]),
            2 => self.command(&["SET", key, "kept", "PXAT", &(deadline + HOUR / 2).to_string()]),
            _ => self.command(&["SET", key, "kept", "PXAT", &deadline.to_string()]),
        }
    }

    fn wrong_type(&mut self, key: &str) {
        match self.random.below(4) {
            0 => self.command(&["RPUSH", key, "one", "two"]),
            1 => self.command(&["HSET", key, "field", "value"]),
            2 => self.command(&["ZADD", key, "1", "member"]),
            // One that expires within the grace period.
            _ => {
                self.command(&["RPUSH", key, "one"]);
                self.command(&["PEXPIREAT", key, &(self.now + HOUR).to_string()]);
            }
        }
    }

    /// Makes the index: intact, lagging, lost or of another type.
    fn index(&mut self, sessions: &[(String, Option<u64>)]) {
        let index = self.names.index();
        match self.random.below(8) {
            0 => return,
            1 => return self.command(&["SET", &index, "no index"]),
            _ => {}
        }
        for (key, deadline) in sessions {
            let exact = deadline.map_or("+inf".to_owned(), |deadline| (deadline - GRACE.min(deadline)).to_string());
            let score = match self.random.below(6) {
                0 => continue,
                1 => (self.now - HOUR * (1 + self.random.below(9))).to_string(),
                2 => (self.now + HOUR * (1 + self.random.below(9))).to_string(),
                _ => exact,
            };
            self.command(&["ZADD", &index, &score, key]);
        }
    }

    /// Makes the hash of owners and the set of each: intact, partly or wholly lost, or of another type.
    fn principals(&mut self, sessions: &[(String, Option<u64>)]) {
        let owners = self.names.owners();
        let sets = TWO_OWNERS.map(|owner| self.names.owned(owner));
        let hash_state = self.random.below(8);
        if hash_state == 1 {
            self.command(&["SET", &owners, "no owners"]);
        }
        let set_states = [self.random.below(8), self.random.below(8)];
        for (set, state) in sets.iter().zip(set_states) {
            if state == 1 {
                self.command(&["SET", set, "no set"]);
            }
        }
        for (position, (key, _)) in sessions.iter().enumerate() {
            let owner = self.random.below(3) as usize;
            if owner == 2 {
                continue;
            }
            if hash_state > 1 && !self.random.maybe(8) {
                self.command(&["HSET", &owners, key, TWO_OWNERS[owner]]);
            }
            if set_states[owner] > 1 && !self.random.maybe(8) {
                let since = self.now - HOUR * (1 + 3 * self.random.below(9) + position as u64);
                self.command(&["ZADD", &sets[owner], &since.to_string(), key]);
            }
        }
    }
}
