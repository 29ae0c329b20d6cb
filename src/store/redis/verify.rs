//! `verify`: compares the sessions with everything in Redis that follows from them, and corrects it.
//!
//! Operators call it through [`SessionIndex`](crate::store::SessionIndex). It walks the index of each partition, then all keys
//! of the servers and each set of an owner, then the hash of owners of each partition. It reads with plain commands first. The
//! invariant: only a script changes anything, and it decides by what it finds itself, because requests change the keys between
//! two steps. A key that looks right was right when it was read, so no script looks at it. A key that looks wrong may have
//! changed between two reads, so it does not count before the script has found it wrong.

mod look;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use look::{Groups, Part, Set};

use super::RedisSessionStore;
use super::keys::KeyKind;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::{decode, keys_of_pairs};
use crate::store::{Progress, RENEWED_FOR, Verified, VerifyOptions};
use crate::{ErrorKind, Result, operation};

/// The number of keys that one script decides about. It blocks the server for well under 1 ms.
const VERIFY_STEP: usize = 50;

/// The number of keys that one command reads. It blocks the server for about 1 ms.
const STEP: usize = 500;

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
        right: HashSet::default(),
        counted: HashSet::new(),
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
    /// The hashes of all keys of sessions that were right, and of all pairs of such a key and its owner, when they were read.
    right: HashSet<u64, BuildHasherDefault<Hashed>>,
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
    fn run(&mut self) -> Result<ControlFlow<()>> {
        let (store, aside) = (self.store, (!self.options.dry_run).then(|| self.aside.clone()));
        let clobbered = store.clobbered(operation::VERIFY, aside.as_deref())?;
        self.found.displaced += clobbered.len() as u64;
        let (keys, entries) = (store.server_total(operation::VERIFY)?, self.count_entries(&clobbered)?);
        self.progress = Progress::new(0, keys.total + entries);
        // The index comes first, because a walk over it also reads what would be one more command for each key.
        if self.walk_all(Structure::Index, &clobbered)?.is_break() || self.verify_servers(keys, entries)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.walk_all(Structure::Owners, &clobbered)
    }

    /// Verifies a structure of all partitions.
    fn walk_all(&mut self, structure: Structure<'_>, clobbered: &[String]) -> Result<ControlFlow<()>> {
        for partition in 0..self.store.keys.partitions() {
            // A dry run has left it where it is.
            let is_clobbered = self.options.dry_run && clobbered.contains(&self.name_of(partition, structure));
            if !is_clobbered && self.walk(partition, structure)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies all keys of all servers. `keys` and `entries` are what the whole verification looks at.
    fn verify_servers(&mut self, keys: Progress, entries: u64) -> Result<ControlFlow<()>> {
        let (store, before) = (self.store, self.progress.done);
        let (servers, mut scanned) = (store.pool.servers(operation::VERIFY)?, keys);
        for (position, server) in servers.iter().enumerate() {
            let left = servers.len() - position - 1;
            let flow = store.scan_ahead(operation::VERIFY, To::Server(server), &["SCAN"], STEP, |keys, next| {
                if self.verify_keys(&keys)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                scanned = store.scanned(scanned, next, left);
                self.progress = Progress::new(before + scanned.done, scanned.total + entries);
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
                Some((_, KeyKind::Displaced)) => self.found.kept_aside += u64::from(!self.has_moved(key)),
            }
        }
        self.verify_sessions(sessions)?;
        self.verify_parts(&parts)?;
        self.verify_owners(&owners)
    }

    /// Verifies the sets of these owners.
    fn verify_owners(&mut self, owners: &Groups<String>) -> Result<ControlFlow<()>> {
        let store = self.store;
        let name = |(partition, owners): (&u32, &Vec<String>)| {
            (*partition, owners.iter().map(|owner| store.keys.owned(*partition, owner)).collect())
        };
        let sets = look::sets(store, &owners.iter().map(name).collect())?;
        for ((&partition, owners), sets) in owners.iter().zip(sets) {
            if self.verify_sets(partition, owners, sets)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies the sets of these owners, whose first keys are known, except those of another type.
    fn verify_sets(&mut self, partition: u32, owners: &[String], sets: Vec<Set>) -> Result<ControlFlow<()>> {
        let store = self.store;
        let (mut short, mut long, mut of_another_type) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, keys) in owners.iter().zip(sets) {
            match keys {
                Some(keys) if keys.len() < STEP => short.extend(keys.into_iter().map(|key| (owner.as_str(), key))),
                Some(_) => long.push(owner),
                None => of_another_type.push(owner),
            }
        }
        if !of_another_type.is_empty() {
            let sets: Vec<String> = of_another_type.iter().map(|owner| store.keys.owned(partition, owner)).collect();
            let clobbered = store.clobbered_sets(partition, &self.aside, &sets)?;
            self.found.displaced += clobbered.len() as u64;
            let healthy = of_another_type.into_iter().zip(&sets).filter(|(_, set)| !clobbered.contains(set));
            long.extend(healthy.map(|(owner, _)| owner));
        }
        self.verify_owned(partition, &short)?;
        if !short.is_empty() && self.report().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        for owner in long {
            if self.walk(partition, Structure::Owned(owner))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies all entries of a structure.
    fn walk(&mut self, partition: u32, structure: Structure<'_>) -> Result<ControlFlow<()>> {
        let name = self.name_of(partition, structure);
        let scan = if let Structure::Owners = structure { "HSCAN" } else { "ZSCAN" };
        self.store.scan_ahead(operation::VERIFY, To::Key(&name), &[scan, &name], STEP, |entries, _| {
            let count = entries.len() as u64 / 2;
            match structure {
                Structure::Index => self.verify_indexed(partition, &entries)?,
                Structure::Owners => self.verify_pairs(partition, &entries)?,
                Structure::Owned(owner) => {
                    let owned: Vec<_> = keys_of_pairs(entries).into_iter().map(|key| (owner, key)).collect();
                    self.verify_owned(partition, &owned)?;
                }
            }
            // The sets of owners are part of the walk over all keys.
            if !matches!(structure, Structure::Owned(_)) {
                self.progress = self.progress.after(count);
            }
            Ok(self.report())
        })
    }

    /// Verifies entries of the index.
    fn verify_indexed(&mut self, partition: u32, entries: &[Vec<u8>]) -> Result<()> {
        let (mut keys, mut scores, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries.chunks_exact(2) {
            if self.store.keys.is_in(partition, &entry[0]) {
                keys.push(entry[0].as_slice());
                scores.push(str::from_utf8(&entry[1]).ok().and_then(|score| score.parse().ok()));
            } else {
                elsewhere.push(entry[0].as_slice());
            }
        }
        self.drop_entries(partition, Structure::Index, &elsewhere)?;
        let group = [(partition, keys)].into();
        let are_right = look::sessions(self.store, &group, Some(&scores))?;
        self.sort_out(group, are_right)
    }

    /// Verifies entries of the hash of owners: each session, and whether the set of its owner has it.
    fn verify_pairs(&mut self, partition: u32, entries: &[Vec<u8>]) -> Result<()> {
        let pairs = entries.chunks_exact(2).map(|pair| (pair[0].as_slice(), pair[1].as_slice()));
        let (mut pairs, elsewhere): (Vec<_>, Vec<_>) =
            pairs.partition(|(key, _)| self.store.keys.is_in(partition, key));
        let elsewhere: Vec<&[u8]> = elsewhere.into_iter().map(|(key, _)| key).collect();
        self.drop_entries(partition, Structure::Owners, &elsewhere)?;
        self.verify_sessions([(partition, pairs.iter().map(|(key, _)| *key).collect())].into())?;
        pairs.retain(|(key, owner)| !self.right.contains(&self.hasher.hash_one((*key, *owner))));
        let are_right = look::pairs(self.store, partition, &pairs)?;
        let wrong = pairs.iter().zip(are_right).filter(|(_, is_right)| !is_right);
        self.correct_sessions(partition, wrong.map(|((key, _), _)| *key).collect())
    }

    /// Verifies entries in the sets of owners.
    fn verify_owned(&mut self, partition: u32, owned: &[(&str, Vec<u8>)]) -> Result<()> {
        let (mut wrong, mut elsewhere) = (BTreeMap::<&str, Vec<&[u8]>>::new(), BTreeMap::<&str, Vec<&[u8]>>::new());
        let (mut here, mut keys) = (Vec::new(), Vec::new());
        for (owner, key) in owned {
            if self.store.keys.is_in(partition, key) {
                here.push(*owner);
                keys.push(key.as_slice());
            } else {
                elsewhere.entry(owner).or_default().push(key);
            }
        }
        for (owner, keys) in elsewhere {
            self.drop_entries(partition, Structure::Owned(owner), &keys)?;
        }
        for ((owner, key), found) in here.into_iter().zip(&keys).zip(look::owners(self.store, partition, &keys)?) {
            if found.is_some_and(|found| found == owner.as_bytes()) {
                self.right.insert(self.hasher.hash_one((*key, owner.as_bytes())));
            } else {
                wrong.entry(owner).or_default().push(key);
            }
        }
        for (owner, keys) in wrong {
            self.verify_sessions([(partition, keys.clone())].into())?;
            self.correct_owned(partition, owner, &keys)?;
        }
        Ok(())
    }

    /// Drops entries that are no keys of the partition. A script could not look at them, because they may be on another node.
    fn drop_entries(&mut self, partition: u32, structure: Structure<'_>, keys: &[&[u8]]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
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
    fn verify_sessions(&mut self, mut groups: Groups<&[u8]>) -> Result<()> {
        for keys in groups.values_mut() {
            keys.retain(|key| !self.right.contains(&self.hasher.hash_one(*key)));
        }
        groups.retain(|_, keys| !keys.is_empty());
        let are_right = look::sessions(self.store, &groups, None)?;
        self.sort_out(groups, are_right)
    }

    /// Remembers the sessions that looked right, and lets the script decide about the others.
    fn sort_out(&mut self, groups: Groups<&[u8]>, are_right: Vec<Vec<bool>>) -> Result<()> {
        for ((partition, keys), are_right) in groups.into_iter().zip(are_right) {
            let (right, wrong): (Vec<_>, Vec<_>) = keys.into_iter().zip(are_right).partition(|(_, is_right)| *is_right);
            self.right.extend(right.into_iter().map(|(key, _)| self.hasher.hash_one(key)));
            self.correct_sessions(partition, wrong.into_iter().map(|(key, _)| key).collect())?;
        }
        Ok(())
    }

    /// Verifies companions and tombstones.
    fn verify_parts(&mut self, groups: &Groups<Part<'_>>) -> Result<()> {
        let are_right = look::parts(self.store, groups)?;
        for ((partition, parts), are_right) in groups.iter().zip(are_right) {
            let wrong = parts.iter().zip(are_right).filter(|(_, is_right)| !is_right);
            self.correct_sessions(*partition, wrong.map(|(part, _)| part.session).collect())?;
        }
        Ok(())
    }

    /// Lets the script decide about sessions that looked wrong.
    fn correct_sessions(&mut self, partition: u32, mut keys: Vec<&[u8]>) -> Result<()> {
        if self.options.dry_run {
            keys.retain(|key| self.counted.insert(self.hasher.hash_one(*key)));
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

    /// Lets the script decide about entries in the set of an owner that looked wrong.
    fn correct_owned(&mut self, partition: u32, owner: &str, keys: &[&[u8]]) -> Result<()> {
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
