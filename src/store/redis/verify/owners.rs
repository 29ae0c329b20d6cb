//! The owners of sessions: the set of each owner, and the hash of owners. An entry of one needs its counterpart in the other.
//!
//! `verify` collects the entries of the sets as *claims* while it walks over all keys. The walk over the hash of owners then
//! confirms claims without a further command, and those that are left are read again at the end. The invariant: a claim that the
//! hash has confirmed was right, and everything else is decided by a script.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::mem;
use std::ops::ControlFlow;

use super::look::{self, Groups, Set};
use super::pages::{Reporter, Tick};
use super::{Hashed, STEP, Structure, VERIFY_STEP, Verification};
use crate::store::redis::net::error::Effect;
use crate::store::redis::net::pool::To;
use crate::store::redis::reply::{decode, keys_of_pairs};
use crate::{Result, operation};

/// The sessions that the sets of owners have.
#[derive(Default)]
pub(super) struct Claims {
    /// The owners, with their partitions.
    owners: Vec<(u32, String)>,
    /// The positions of the owners, by the hashes of the claims: of a session's key and the owner.
    unconfirmed: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

/// The key of a session, with the owner whose set has it.
type Owned<'o> = (&'o str, Vec<u8>);

impl Verification<'_> {
    /// Collects the claims of the sets of these owners.
    pub(super) fn claim(&self, owners: &Groups<String>, tick: Tick<'_>) -> Result<ControlFlow<()>> {
        self.read_sets(owners, tick, &|partition, owned| self.claim_some(partition, owned))
    }

    fn claim_some(&self, partition: u32, owned: &[Owned<'_>]) -> Result<()> {
        let (here, elsewhere): (Vec<_>, Vec<_>) = owned
            .iter()
            .map(|(owner, key)| (*owner, &**key))
            .partition(|(_, key)| self.store.keys.is_in(partition, key));
        for (owner, keys) in by_owner(elsewhere) {
            self.drop_entries(partition, Structure::Owned(owner), &keys)?;
        }
        let hashes: Vec<u64> = here.iter().map(|(owner, key)| self.hash_of_claim(key, owner.as_bytes())).collect();
        let claims = &mut self.state().claims;
        for ((owner, _), hash) in here.into_iter().zip(hashes) {
            if claims.owners.last().is_none_or(|last| last.0 != partition || last.1 != owner) {
                claims.owners.push((partition, owner.to_owned()));
            }
            claims.unconfirmed.insert(hash, claims.owners.len() as u32 - 1);
        }
        Ok(())
    }

    /// Verifies entries of the hash of owners: each session, and whether the set of its owner has it.
    pub(super) fn verify_pairs(&self, partition: u32, entries: &[Vec<u8>]) -> Result<()> {
        let pairs = entries.chunks_exact(2).map(|pair| (pair[0].as_slice(), pair[1].as_slice()));
        let (mut pairs, elsewhere): (Vec<_>, Vec<_>) =
            pairs.partition(|(key, _)| self.store.keys.is_in(partition, key));
        let elsewhere: Vec<&[u8]> = elsewhere.into_iter().map(|(key, _)| key).collect();
        self.drop_entries(partition, Structure::Owners, &elsewhere)?;
        self.verify_sessions([(partition, pairs.iter().map(|(key, _)| *key).collect())].into())?;
        self.keep_unclaimed(&mut pairs);
        let are_right = look::pairs(self.store, partition, &pairs)?;
        let wrong = pairs.iter().zip(are_right).filter(|(_, is_right)| !is_right);
        self.correct_sessions(partition, wrong.map(|((key, _), _)| *key).collect())
    }

    /// Confirms the claims that agree with these pairs of a session's key and its owner, and keeps the other pairs.
    fn keep_unclaimed(&self, pairs: &mut Vec<(&[u8], &[u8])>) {
        let hashes: Vec<u64> = pairs.iter().map(|(key, owner)| self.hash_of_claim(key, owner)).collect();
        let (claims, mut hashes) = (&mut self.state().claims, hashes.iter());
        pairs.retain(|_| hashes.next().is_none_or(|hash| claims.unconfirmed.remove(hash).is_none()));
    }

    /// Verifies the claims that the hash of owners has not confirmed.
    pub(super) fn verify_claims(&self, reporter: &Reporter<'_>) -> Result<ControlFlow<()>> {
        let Claims { owners, unconfirmed } = mem::take(&mut self.state().claims);
        let positions: BTreeSet<u32> = unconfirmed.values().copied().collect();
        for positions in Vec::from_iter(positions).chunks(STEP) {
            let mut groups = Groups::<String>::new();
            for position in positions {
                let (partition, owner) = &owners[*position as usize];
                groups.entry(*partition).or_default().push(owner.clone());
            }
            let flow = self.read_sets(&groups, &|| reporter.report(), &|partition, owned| {
                let is_left =
                    |(owner, key): &&Owned<'_>| unconfirmed.contains_key(&self.hash_of_claim(key, owner.as_bytes()));
                let left = owned.iter().filter(is_left).map(|(owner, key)| (*owner, &**key)).collect();
                self.verify_owned(partition, left)
            })?;
            if flow.is_break() || reporter.report().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Verifies entries in the sets of owners.
    fn verify_owned(&self, partition: u32, owned: Vec<(&str, &[u8])>) -> Result<()> {
        let keys: Vec<&[u8]> = owned.iter().map(|(_, key)| *key).collect();
        let found = look::owners(self.store, partition, &keys)?;
        let is_wrong = |(owner, _): (&str, &[u8]), found: &Option<Vec<u8>>| found.as_deref() != Some(owner.as_bytes());
        let wrong = owned.into_iter().zip(&found).filter(|(owned, found)| is_wrong(*owned, found));
        for (owner, keys) in by_owner(wrong.map(|(owned, _)| owned)) {
            self.verify_sessions([(partition, keys.clone())].into())?;
            self.correct_owned(partition, owner, &keys)?;
        }
        Ok(())
    }

    /// Reads the sets of these owners and passes on what they have, except those of another type.
    fn read_sets(
        &self,
        owners: &Groups<String>,
        tick: Tick<'_>,
        each: &dyn Fn(u32, &[Owned<'_>]) -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        let store = self.store;
        let name = |(partition, owners): (&u32, &Vec<String>)| {
            (*partition, owners.iter().map(|owner| store.keys.owned(*partition, owner)).collect())
        };
        let sets = look::sets(store, &owners.iter().map(name).collect())?;
        for ((&partition, owners), sets) in owners.iter().zip(sets) {
            let (short, long) = self.sort_sets(partition, owners, sets)?;
            each(partition, &short)?;
            for owner in long {
                let name = store.keys.owned(partition, owner);
                for page in store.scan_pages(operation::VERIFY, To::Key(&name), &["ZSCAN", &name], STEP) {
                    let keys = keys_of_pairs(page?.1).into_iter();
                    each(partition, &Vec::from_iter(keys.map(|key| (owner, key))))?;
                    if tick().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the entries of all short sets, and the owners of long ones, of which only the first entries are known. Corrects
    /// those of another type.
    fn sort_sets<'o>(
        &self,
        partition: u32,
        owners: &'o [String],
        sets: Vec<Set>,
    ) -> Result<(Vec<Owned<'o>>, Vec<&'o str>)> {
        let (mut short, mut long, mut of_another_type) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, keys) in owners.iter().map(String::as_str).zip(sets) {
            match keys {
                Some(keys) if keys.len() < STEP => short.extend(keys.into_iter().map(|key| (owner, key))),
                Some(_) => long.push(owner),
                None => of_another_type.push(owner),
            }
        }
        if !of_another_type.is_empty() {
            let names: Vec<String> =
                of_another_type.iter().map(|owner| self.store.keys.owned(partition, owner)).collect();
            let clobbered = self.store.clobbered_sets(partition, &self.aside, &names)?;
            self.state().found.displaced += clobbered.len() as u64;
            let healthy = of_another_type.into_iter().zip(&names).filter(|(_, name)| !clobbered.contains(name));
            long.extend(healthy.map(|(owner, _)| owner));
        }
        Ok((short, long))
    }

    /// Lets the script decide about entries in the set of an owner that looked wrong.
    fn correct_owned(&self, partition: u32, owner: &str, keys: &[&[u8]]) -> Result<()> {
        let dry_run = if self.dry_run { b"1" } else { b"0" };
        let mut state = self.state();
        for keys in keys.chunks(VERIFY_STEP) {
            let mut args: Vec<&[u8]> = vec![owner.as_bytes(), dry_run];
            for key in keys {
                let given = state.given.contains(&self.hasher.hash_one(key));
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
            state.found.owned_dropped += dropped;
            state.found.owners_restored += restored.len() as u64;
            state.given.extend(restored.iter().map(|key| self.hasher.hash_one(key.as_slice())));
        }
        Ok(())
    }

    fn hash_of_claim(&self, key: &[u8], owner: &[u8]) -> u64 {
        self.hasher.hash_one((key, owner))
    }
}

fn by_owner<'e>(owned: impl IntoIterator<Item = (&'e str, &'e [u8])>) -> BTreeMap<&'e str, Vec<&'e [u8]>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    owned.into_iter().for_each(|(owner, key)| groups.entry(owner).or_default().push(key));
    groups
}
