//! `verify`: compares the sessions with everything in Redis that follows from them, and corrects it.
//!
//! Operators call it through [`SessionIndex`](crate::store::SessionIndex). It walks all keys of the servers, then the index and the
//! hash of owners of each partition, and within the walk each set of an owner. The invariant: every step is one script, which
//! decides by what it finds itself, because requests change the keys between two steps.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use super::RedisSessionStore;
use super::index::keys_of_pairs;
use super::keys::KeyKind;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::decode;
use crate::store::{Progress, RENEWED_FOR, Verified, VerifyOptions};
use crate::{ErrorKind, Result, operation};

/// The number of keys that one script looks at. It blocks the server for well under 1 ms.
const VERIFY_STEP: usize = 50;

/// Runs a verification.
pub(super) fn run(store: &RedisSessionStore, options: VerifyOptions<'_>) -> Result<Verified> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let aside = if options.dry_run { String::new() } else { format!(":clobbered:{now}") };
    let mut verification = Verification {
        store,
        options,
        aside,
        found: Verified::default(),
        progress: Progress::default(),
        hasher: RandomState::new(),
        given: HashSet::new(),
        looked_at: HashSet::new(),
    };
    verification.found.interrupted = verification.run()?.is_break();
    Ok(verification.found)
}

/// A verification that runs.
struct Verification<'a> {
    store: &'a RedisSessionStore,
    options: VerifyOptions<'a>,
    /// The suffix for the names of keys that are moved aside, empty in a dry run.
    aside: String,
    found: Verified,
    progress: Progress,
    hasher: RandomState,
    /// The hashes of the keys of sessions that got an owner from a set. The hash of owners does not decide about them.
    given: HashSet<u64>,
    /// In a dry run, the hashes of all keys of sessions so far, because the same finding would count again.
    looked_at: HashSet<u64>,
}

/// A structure of a partition whose entries are keys of sessions.
#[derive(Clone, Copy)]
enum Structure<'a> {
    Index,
    Owners,
    Owned(&'a str),
}

impl Verification<'_> {
    fn run(&mut self) -> Result<ControlFlow<()>> {
        let (store, aside) = (self.store, (!self.options.dry_run).then(|| self.aside.clone()));
        let clobbered = store.clobbered(operation::VERIFY, aside.as_deref())?;
        self.found.displaced += clobbered.len() as u64;
        if self.verify_servers(&clobbered)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        for partition in 0..store.keys.partitions() {
            for structure in [Structure::Index, Structure::Owners] {
                // A dry run has left it where it is.
                let is_clobbered = self.options.dry_run && clobbered.contains(&self.name_of(partition, structure));
                if !is_clobbered && self.walk(partition, structure)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies all keys of all servers. Before, it counts what the verification will look at.
    fn verify_servers(&mut self, clobbered: &[String]) -> Result<ControlFlow<()>> {
        let store = self.store;
        let keys = store.server_total(operation::VERIFY)?;
        let entries = self.count_entries(clobbered)?;
        self.progress = Progress::new(0, keys.total + entries);
        let (servers, mut scanned) = (store.pool.servers(operation::VERIFY)?, keys);
        for (position, server) in servers.iter().enumerate() {
            let left = servers.len() - position - 1;
            let flow = store.scan_all(operation::VERIFY, To::Server(server), &["SCAN"], |keys, next| {
                if self.verify_keys(&keys)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                scanned = store.scanned(scanned, next, left);
                self.progress = Progress::new(scanned.done, scanned.total + entries);
                Ok(self.report())
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
    fn verify_keys(&mut self, keys: &[Vec<u8>]) -> Result<ControlFlow<()>> {
        let mut sessions = BTreeMap::<u32, Vec<&[u8]>>::new();
        let mut owners = BTreeMap::<u32, Vec<String>>::new();
        let kinds: Vec<_> =
            keys.iter().map(|key| (key, self.store.keys.kind_of(key, &self.store.companions))).collect();
        for (key, kind) in &kinds {
            match kind {
                None => {}
                Some((partition, KeyKind::Session)) => sessions.entry(*partition).or_default().push(key),
                Some((partition, KeyKind::PartOf(session))) => sessions.entry(*partition).or_default().push(session),
                Some((partition, KeyKind::Owned(owner))) => owners.entry(*partition).or_default().push(owner.clone()),
                // A scan can meet a key that this verification has moved aside.
                Some((_, KeyKind::Displaced)) => self.found.kept_aside += u64::from(!self.has_moved(key)),
            }
        }
        for (partition, keys) in sessions {
            self.verify_sessions(partition, &keys)?;
        }
        for (partition, owners) in owners {
            if self.verify_owners(partition, &owners)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies the sets of these owners.
    fn verify_owners(&mut self, partition: u32, owners: &[String]) -> Result<ControlFlow<()>> {
        let store = self.store;
        let sets: Vec<String> = owners.iter().map(|owner| store.keys.owned(partition, owner)).collect();
        let clobbered = store.clobbered_sets(partition, &self.aside, &sets)?;
        self.found.displaced += clobbered.len() as u64;
        for (owner, set) in owners.iter().zip(&sets) {
            if !clobbered.contains(set) && self.walk(partition, Structure::Owned(owner))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies all entries of a structure.
    fn walk(&mut self, partition: u32, structure: Structure<'_>) -> Result<ControlFlow<()>> {
        let name = self.name_of(partition, structure);
        let scan = if let Structure::Owners = structure { "HSCAN" } else { "ZSCAN" };
        self.store.scan_all(operation::VERIFY, To::Key(&name), &[scan, &name], |entries, _| {
            let keys = keys_of_pairs(entries);
            self.verify_entries(partition, structure, &keys)?;
            // The sets of owners are part of the walk over all keys.
            if !matches!(structure, Structure::Owned(_)) {
                self.progress = self.progress.after(keys.len() as u64);
            }
            Ok(self.report())
        })
    }

    /// Verifies entries of a structure.
    fn verify_entries(&mut self, partition: u32, structure: Structure<'_>, keys: &[Vec<u8>]) -> Result<()> {
        let keys = keys.iter().map(Vec::as_slice);
        let (keys, elsewhere): (Vec<&[u8]>, Vec<&[u8]>) = keys.partition(|key| self.store.keys.is_in(partition, key));
        if !elsewhere.is_empty() {
            self.drop_entries(partition, structure, &elsewhere)?;
        }
        self.verify_sessions(partition, &keys)?;
        match structure {
            Structure::Owned(owner) => self.verify_owned(partition, owner, &keys),
            Structure::Index | Structure::Owners => Ok(()),
        }
    }

    /// Drops entries that are no keys of the partition. A script could not look at them, because they may be on another node.
    fn drop_entries(&mut self, partition: u32, structure: Structure<'_>, keys: &[&[u8]]) -> Result<()> {
        let (command, count) = match structure {
            Structure::Index => ("ZREM", &mut self.found.dropped),
            Structure::Owners => ("HDEL", &mut self.found.owners_dropped),
            Structure::Owned(_) => ("ZREM", &mut self.found.owned_dropped),
        };
        *count += keys.len() as u64;
        if !self.options.dry_run {
            let name = self.name_of(partition, structure);
            let mut drop = redis::cmd(command);
            drop.arg(&name).arg(keys);
            self.store.command(operation::VERIFY, Effect::Writes, To::Key(&name), &drop)?;
        }
        Ok(())
    }

    /// Verifies what follows from the sessions under these keys, if there are sessions.
    fn verify_sessions(&mut self, partition: u32, keys: &[&[u8]]) -> Result<()> {
        let mut keys = keys.to_vec();
        if self.options.dry_run {
            keys.retain(|key| self.looked_at.insert(self.hasher.hash_one(key)));
        }
        let tombstone_ttl = RENEWED_FOR.as_millis().to_string();
        // Redis returns a small sorted set in one step, regardless of `COUNT`.
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
            let found = &mut self.found;
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

    /// Verifies entries in the set of an owner.
    fn verify_owned(&mut self, partition: u32, owner: &str, keys: &[&[u8]]) -> Result<()> {
        let dry_run = if self.options.dry_run { b"1" } else { b"0" };
        for keys in keys.chunks(VERIFY_STEP) {
            let mut args: Vec<&[u8]> = vec![owner.as_bytes(), dry_run];
            for key in keys {
                let given = self.given.contains(&self.hasher.hash_one(key));
                args.extend([if given { b"1" } else { b"0" }, *key]);
            }
            let reply = self.store.index_script(
                operation::VERIFY,
                Effect::Writes,
                &self.store.scripts.verify_owned,
                partition,
                &args,
            )?;
            let (dropped, restored): (u64, Vec<Vec<u8>>) = decode(operation::VERIFY, reply)?;
            self.found.owned_dropped += dropped;
            self.found.owners_restored += restored.len() as u64;
            self.given.extend(restored.iter().map(|key| self.hasher.hash_one(key.as_slice())));
        }
        Ok(())
    }

    fn has_moved(&self, key: &[u8]) -> bool {
        !self.options.dry_run && key.ends_with(self.aside.as_bytes())
    }

    fn name_of(&self, partition: u32, structure: Structure<'_>) -> String {
        match structure {
            Structure::Index => self.store.keys.index(partition).to_owned(),
            Structure::Owners => self.store.keys.owners(partition),
            Structure::Owned(owner) => self.store.keys.owned(partition, owner),
        }
    }

    fn report(&self) -> ControlFlow<()> {
        self.options.progress.map_or(ControlFlow::Continue(()), |report| report(&self.found, self.progress))
    }
}
