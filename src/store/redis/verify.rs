//! `verify`: compares the sessions with everything in Redis that follows from them, and corrects it.
//!
//! Operators call it through [`SessionIndex`](crate::store::SessionIndex). It walks the index of each partition, then all keys
//! of the servers and each set of an owner, then the hash of owners of each partition. At last it reads again those entries of the
//! sets that the hash has not confirmed. It reads with plain commands first. The invariant: only a script changes anything, and it
//! decides by what it finds itself, because requests change the keys between two steps. A key that looks right was right when it
//! was read, so no script looks at it. A key that looks wrong may have changed between two reads, so it does not count before the
//! script has found it wrong. Several threads read, but one at a time corrects, because a correction may depend on what an earlier
//! one has found.

mod look;
mod owners;
mod pages;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use look::{Groups, Part};
use owners::Claims;
use pages::{Reporter, Tick};

use super::RedisSessionStore;
use super::keys::KeyKind;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::decode;
use crate::store::{Progress, RENEWED_FOR, Verified, VerifyOptions};
use crate::sync::lock;
use crate::{ErrorKind, Result, operation};

/// The number of keys that one script decides about. It blocks the server for well under 1 ms.
const VERIFY_STEP: usize = 50;

/// The number of keys that one command reads. It blocks the server for about 0.5 ms.
const STEP: usize = 250;

/// Runs a verification.
pub(super) fn run(store: &RedisSessionStore, options: VerifyOptions<'_>) -> Result<Verified> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let aside = if options.dry_run { String::new() } else { format!(":clobbered:{now}") };
    let verification =
        Verification { store, dry_run: options.dry_run, aside, hasher: RandomState::new(), state: Mutex::default() };
    let flow = verification.run(&Reporter::new(&verification, options.progress))?;
    let found = verification.state().found;
    Ok(Verified { interrupted: flow.is_break(), ..found })
}

/// A verification that runs.
struct Verification<'a> {
    store: &'a RedisSessionStore,
    dry_run: bool,
    /// The suffix for the names of keys that are moved aside, empty in a dry run.
    aside: String,
    hasher: RandomState,
    state: Mutex<State>,
}

/// What a verification has found so far.
#[derive(Default)]
struct State {
    found: Verified,
    progress: Progress,
    /// The hashes of all keys of sessions that were right when they were read.
    right: HashSet<u64, BuildHasherDefault<Hashed>>,
    claims: Claims,
    /// The hashes of the keys of sessions that got an owner from a set. The hash of owners does not decide about them.
    given: HashSet<u64>,
    /// In a dry run, the hashes of all keys that the script has decided about, because the same finding would count again.
    counted: HashSet<u64>,
}

/// The hasher of a set of hashes.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A structure of a partition whose entries are keys of sessions.
#[derive(Clone, Copy)]
enum Structure<'a> {
    Index,
    Owners,
    Owned(&'a str),
}

impl Verification<'_> {
    fn run(&self, reporter: &Reporter<'_>) -> Result<ControlFlow<()>> {
        let (store, aside) = (self.store, (!self.dry_run).then(|| self.aside.clone()));
        let clobbered = store.clobbered(operation::VERIFY, aside.as_deref())?;
        self.state().found.displaced += clobbered.len() as u64;
        let (keys, entries) = (store.server_total(operation::VERIFY)?, self.count_entries(&clobbered)?);
        self.state().progress = Progress::new(0, keys.total + entries);
        // The index comes first, because a walk over it also reads what would be one more command for each key.
        if self.walk_all(reporter, Structure::Index, &clobbered)?.is_break()
            || self.verify_servers(reporter, keys, entries)?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        // The hash of owners comes after the sets, because most of its entries confirm those of the sets.
        if self.walk_all(reporter, Structure::Owners, &clobbered)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.verify_claims(reporter)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Verifies a structure of all partitions.
    fn walk_all(
        &self,
        reporter: &Reporter<'_>,
        structure: Structure<'_>,
        clobbered: &[String],
    ) -> Result<ControlFlow<()>> {
        for partition in 0..self.store.keys.partitions() {
            let name = self.name_of(partition, structure);
            // A dry run has left it where it is.
            if self.dry_run && clobbered.contains(&name) {
                continue;
            }
            let scan = if let Structure::Owners = structure { "HSCAN" } else { "ZSCAN" };
            let flow = reporter.scan(To::Key(&name), &[scan, &name], |entries, _, _| {
                match structure {
                    Structure::Owners => self.verify_pairs(partition, &entries)?,
                    _ => self.verify_indexed(partition, &entries)?,
                }
                let mut state = self.state();
                state.progress = state.progress.after(entries.len() as u64 / 2);
                Ok(ControlFlow::Continue(()))
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies all keys of all servers. `keys` and `entries` are what the whole verification looks at.
    fn verify_servers(&self, reporter: &Reporter<'_>, keys: Progress, entries: u64) -> Result<ControlFlow<()>> {
        let (store, before) = (self.store, self.state().progress.done);
        let (servers, scanned) = (store.pool.servers(operation::VERIFY)?, Mutex::new(keys));
        for (position, server) in servers.iter().enumerate() {
            let left = servers.len() - position - 1;
            let flow = reporter.scan(To::Server(server), &["SCAN"], |keys, next, tick| {
                let flow = self.verify_keys(&keys, tick)?;
                let mut scanned = lock(&scanned);
                *scanned = store.scanned(*scanned, next, left);
                self.state().progress = Progress::new(before + scanned.done, scanned.total + entries);
                Ok(flow)
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Counts the entries of all indexes and hashes of owners, except those of another type.
    fn count_entries(&self, clobbered: &[String]) -> Result<u64> {
        let mut entries = 0;
        for partition in 0..self.store.keys.partitions() {
            for structure in [Structure::Index, Structure::Owners] {
                let name = self.name_of(partition, structure);
                let mut count = redis::cmd(if let Structure::Owners = structure { "HLEN" } else { "ZCOUNT" });
                count.arg(&name).arg(if let Structure::Owners = structure { &[][..] } else { &["-inf", "+inf"] });
                if clobbered.contains(&name) {
                    continue;
                }
                match self.store.command(operation::VERIFY, Effect::Reads, To::Key(&name), &count) {
                    Ok(count) => entries += decode::<u64>(operation::VERIFY, count.value)?,
                    // The total only grows later than it could.
                    Err(error) if error.kind() == ErrorKind::Denied => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(entries)
    }

    /// Verifies those keys that are keys of the store.
    fn verify_keys(&self, keys: &[Vec<u8>], tick: Tick<'_>) -> Result<ControlFlow<()>> {
        let (store, mut owners) = (self.store, Groups::<String>::new());
        let (mut sessions, mut parts) = (Groups::<&[u8]>::new(), Groups::<Part<'_>>::new());
        let kinds: Vec<_> = keys.iter().map(|key| (key, store.keys.kind_of(key, &store.companions))).collect();
        for (key, kind) in &kinds {
            match kind {
                None => {}
                Some((partition, KeyKind::Session)) => sessions.entry(*partition).or_default().push(key),
                Some((partition, KeyKind::PartOf(session))) => {
                    parts.entry(*partition).or_default().push(Part { key, session });
                }
                Some((partition, KeyKind::Owned(owner))) => owners.entry(*partition).or_default().push(owner.clone()),
                // A scan can meet a key that this verification has moved aside.
                Some((_, KeyKind::Displaced)) => self.state().found.kept_aside += u64::from(!self.has_moved(key)),
            }
        }
        self.verify_sessions(sessions)?;
        self.verify_parts(&parts)?;
        self.claim(&owners, tick)
    }

    /// Verifies entries of the index.
    fn verify_indexed(&self, partition: u32, entries: &[Vec<u8>]) -> Result<()> {
        let score = |text: &[u8]| str::from_utf8(text).ok().and_then(|score| score.parse().ok());
        let entries = entries.chunks_exact(2).map(|entry| (entry[0].as_slice(), score(&entry[1])));
        let (here, elsewhere): (Vec<_>, Vec<_>) = entries.partition(|(key, _)| self.store.keys.is_in(partition, key));
        let keys = |entries: Vec<(_, _)>| entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        self.drop_entries(partition, Structure::Index, &keys(elsewhere))?;
        let are_right = look::indexed(self.store, partition, &here)?;
        self.sort_out([(partition, keys(here))].into(), vec![are_right])
    }

    /// Drops entries that are no keys of the partition. A script could not look at them, because they may be on another node.
    fn drop_entries(&self, partition: u32, structure: Structure<'_>, keys: &[&[u8]]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let (command, count) = match structure {
            Structure::Index => ("ZREM", &mut state.found.dropped),
            Structure::Owners => ("HDEL", &mut state.found.owners_dropped),
            Structure::Owned(_) => ("ZREM", &mut state.found.owned_dropped),
        };
        *count += keys.len() as u64;
        drop(state);
        if !self.dry_run {
            let name = self.name_of(partition, structure);
            let mut drop = redis::cmd(command);
            drop.arg(&name).arg(keys);
            self.store.command(operation::VERIFY, Effect::Writes, To::Key(&name), &drop)?;
        }
        Ok(())
    }

    /// Verifies what follows from the sessions under these keys, if there are sessions.
    fn verify_sessions(&self, mut groups: Groups<&[u8]>) -> Result<()> {
        for keys in groups.values_mut() {
            let hashes: Vec<u64> = keys.iter().map(|key| self.hasher.hash_one(key)).collect();
            let (state, mut hashes) = (self.state(), hashes.iter());
            keys.retain(|_| hashes.next().is_none_or(|hash| !state.right.contains(hash)));
        }
        groups.retain(|_, keys| !keys.is_empty());
        let are_right = look::sessions(self.store, &groups)?;
        self.sort_out(groups, are_right)
    }

    /// Remembers the sessions that looked right, and lets the script decide about the others.
    fn sort_out(&self, groups: Groups<&[u8]>, are_right: Vec<Vec<bool>>) -> Result<()> {
        for ((partition, keys), are_right) in groups.into_iter().zip(are_right) {
            let (right, wrong): (Vec<_>, Vec<_>) = keys.into_iter().zip(are_right).partition(|(_, is_right)| *is_right);
            let right: Vec<u64> = right.into_iter().map(|(key, _)| self.hasher.hash_one(key)).collect();
            self.state().right.extend(right);
            self.correct_sessions(partition, wrong.into_iter().map(|(key, _)| key).collect())?;
        }
        Ok(())
    }

    /// Verifies companions and tombstones.
    fn verify_parts(&self, groups: &Groups<Part<'_>>) -> Result<()> {
        let are_right = look::parts(self.store, groups)?;
        for ((partition, parts), are_right) in groups.iter().zip(are_right) {
            let wrong = parts.iter().zip(are_right).filter(|(_, is_right)| !is_right);
            self.correct_sessions(*partition, wrong.map(|(part, _)| part.session).collect())?;
        }
        Ok(())
    }

    /// Lets the script decide about sessions that looked wrong.
    fn correct_sessions(&self, partition: u32, mut keys: Vec<&[u8]>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        if self.dry_run {
            keys.retain(|key| state.counted.insert(self.hasher.hash_one(*key)));
        }
        let tombstone_ttl = RENEWED_FOR.as_millis().to_string();
        for keys in keys.chunks(VERIFY_STEP) {
            let args: Vec<&[u8]> =
                [self.aside.as_bytes(), tombstone_ttl.as_bytes()].into_iter().chain(keys.iter().copied()).collect();
            let counts: Vec<u64> = self.store.index_script(
                operation::VERIFY,
                Effect::Writes,
                &self.store.scripts.verify,
                partition,
                &args,
            )?;
            let found = &mut state.found;
            let sums = [
                &mut found.added,
                &mut found.corrected,
                &mut found.dropped,
                &mut found.owners_dropped,
                &mut found.owned_dropped,
                &mut found.owned_restored,
                &mut found.companions_dropped,
                &mut found.companions_corrected,
                &mut found.tombstones_corrected,
                &mut found.displaced,
            ];
            sums.into_iter().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(())
    }

    fn has_moved(&self, key: &[u8]) -> bool {
        !self.dry_run && key.ends_with(self.aside.as_bytes())
    }

    fn name_of(&self, partition: u32, structure: Structure<'_>) -> String {
        match structure {
            Structure::Index => self.store.keys.index(partition).to_owned(),
            Structure::Owners => self.store.keys.owners(partition),
            Structure::Owned(owner) => self.store.keys.owned(partition, owner),
        }
    }
}
