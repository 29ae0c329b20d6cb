//! The index of the expiring store: reaping, counting, paging, verifying, and the sessions of a principal.
//!
//! The reaper and the manager use it through [`SessionIndex`]. The invariant: the TTL of a session's key decides whether the
//! session is live. The index and the lists of principals follow from it and may lag, so every script checks the TTL.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::FromRedisValue;

use super::net::error::Effect;
use super::net::pool::To;
use super::reply::{decode, decode_count, decode_reaped, decode_ttl};
use super::script::Script;
use super::{RedisSessionStore, keys};
use crate::store::{Belonging, Bind, Ending, Entry, Reaped, SessionIndex, Verified};
use crate::{Handle, Result, operation};

/// The number of keys that one step of a scan, a `verify` or a `page` looks at. A step blocks the server for well under 1 ms.
const SCAN_STEP: usize = 200;

/// The number of sessions of a principal that one script lists or ends.
const OWNED_PAGE: usize = 1000;

/// The TTL that `page.lua` returns for a session that is only in the index.
const TTL_IF_GONE: i64 = -2;

impl SessionIndex for RedisSessionStore {
    fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        // The script passes the keys to `unpack`, which fails for too many.
        let limit = limit.clamp(1, 1000).to_string();
        let args = [limit.as_bytes(), if payloads { b"1" } else { b"0" }];
        decode_reaped(self.index_script(operation::REAP, Effect::Writes, &self.scripts.reap, partition, &args)?)
    }

    fn count(&self) -> Result<u64> {
        let mut count = 0;
        for partition in 0..self.keys.partitions() {
            let reply = self.index_script(operation::COUNT, Effect::Reads, &self.scripts.count, partition, &[])?;
            count += decode_count(&reply)?;
        }
        Ok(count)
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        let partitions = self.keys.partitions();
        // No index has more entries, and Redis rejects a larger number.
        let offset = offset.min(i32::MAX as usize);
        let end = offset.saturating_add(limit);
        // Each of several partitions can hold all entries that come before the page.
        let first = if partitions == 1 { offset } else { 0 };
        let mut entries = Vec::new();
        for partition in 0..partitions {
            let mut at = first;
            while at < end {
                let (skip, take) = (at.to_string(), SCAN_STEP.min(end - at).to_string());
                let args = [skip.as_bytes(), take.as_bytes()];
                let some: Vec<(Vec<u8>, f64, i64)> =
                    self.index_script(operation::PAGE, Effect::Reads, &self.scripts.page, partition, &args)?;
                at = if some.len() < SCAN_STEP { end } else { at + SCAN_STEP };
                entries.extend(some);
            }
        }
        // Sort by the score in the index. Sorted by TTL, an entry that lags could be on two pages or on none.
        entries.sort_by(|(_, one, _), (_, other, _)| other.total_cmp(one));
        let page = entries.into_iter().skip(offset - first).take(limit);
        let live = page.filter(|(_, _, left)| *left != TTL_IF_GONE);
        let entry = |(key, _, left): (Vec<u8>, f64, i64)| Entry::new(Handle::of_key(&key), decode_ttl(left));
        Ok(live.map(entry).collect())
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        Ok(self.belonging(principal)?.into_iter().map(|(_, belonging)| belonging).collect())
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        let partitions = 0..self.keys.partitions();
        let in_each = |mut partitions: Range<u32>| {
            partitions.try_fold(0, |sum, partition| Ok(sum + self.end_in(partition, principal, "all", "")?))
        };
        match which {
            Ending::All => in_each(partitions),
            Ending::AllExcept(id) => {
                let own = id.partition(partitions.end);
                let beside = self.end_in(own, principal, "but", &self.keys.session(id))?;
                Ok(beside + in_each(0..own)? + in_each(own + 1..partitions.end)?)
            }
            Ending::Only(handle) => {
                let all = self.belonging(principal)?;
                let meant = all.into_iter().find(|(_, belonging)| belonging.handle == handle);
                meant.map_or(Ok(0), |(place, _)| self.end_in(place.partition, principal, "only", &place.key))
            }
        }
    }

    fn end_everybody(&self) -> Result<u64> {
        (0..self.keys.partitions()).try_fold(0, |sum, partition| Ok(sum + self.end_everybody_in(partition)?))
    }

    fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        verified.displaced = self.clobbered(operation::VERIFY, Some(&format!(":clobbered:{now}")))?.len() as u64;
        for server in &self.pool.servers(operation::VERIFY)? {
            self.walk(operation::VERIFY, To::Server(server), &["SCAN"], &["TYPE", "string"], |keys| {
                self.verify_sessions(keys, &mut verified)
            })?;
        }
        for partition in 0..self.keys.partitions() {
            for [scan, key] in [["ZSCAN", self.keys.index(partition)], ["HSCAN", &self.keys.owners(partition)]] {
                self.walk(operation::VERIFY, To::Key(key), &[scan, key], &[], |entries| {
                    self.verify_entries(partition, &keys_of_pairs(entries), &mut verified)
                })?;
            }
        }
        Ok(verified)
    }
}

/// The key and the partition of a principal's session.
struct Place {
    key: String,
    partition: u32,
}

impl RedisSessionStore {
    /// Ends the oldest sessions of a principal beyond the cap, after a session was bound to the principal. With one partition
    /// the scripts do it. A failure does not undo the binding, so the write succeeds; the next binding enforces the cap.
    pub(super) fn enforce_cap_across_partitions(&self, bind: Bind<'_>) {
        let Bind::To { principal, cap: Some(cap) } = bind else { return };
        if self.keys.partitions() > 1 {
            let settled = self.belonging(principal).and_then(|all| {
                let mut oldest = all.into_iter().skip(cap as usize);
                oldest.try_for_each(|(place, _)| self.end_in(place.partition, principal, "only", &place.key).map(drop))
            });
            if let Err(error) = settled {
                log::warn!("a principal may have more sessions than the cap until they get another: {error:#}");
            }
        }
    }

    /// Ends sessions of a principal in one partition: "all", all "but" the one under this key, or "only" that.
    fn end_in(&self, partition: u32, principal: &str, which: &str, key: &str) -> Result<u64> {
        let (owner, owned_page) = (keys::owner(principal), OWNED_PAGE.to_string());
        let args = [owner.as_bytes(), owned_page.as_bytes(), which.as_bytes(), key.as_bytes()];
        let mut ended = 0;
        loop {
            let (some, more): (i64, bool) =
                self.index_script(operation::END, Effect::Writes, &self.scripts.end, partition, &args)?;
            ended += u64::try_from(some).map_err(|_| Ending::not_theirs(operation::END))?;
            if !more {
                return Ok(ended);
            }
        }
    }

    /// Ends all sessions of one partition that began before the call, and perhaps some that begin during it.
    fn end_everybody_in(&self, partition: u32) -> Result<u64> {
        let index = self.keys.index(partition);
        let time = self.command(operation::END_ALL_SESSIONS, Effect::Reads, To::Key(index), &redis::cmd("TIME"))?.value;
        let (seconds, micros): (u64, u64) = decode(operation::END_ALL_SESSIONS, time)?;
        let since = (seconds * 1000 + micros / 1000).to_string();
        let end = |limit: usize, keys: &[Vec<u8>]| -> Result<(u64, u64)> {
            let limit = limit.to_string();
            let args = [since.as_bytes(), limit.as_bytes()].into_iter().chain(keys.iter().map(Vec::as_slice));
            let args: Vec<&[u8]> = args.collect();
            self.index_script(operation::END_ALL_SESSIONS, Effect::Writes, &self.scripts.end_all, partition, &args)
        };
        let mut ended = 0;
        // A walk finds every entry that is in the index from the beginning of the walk to its end. It can miss a session that
        // is rotated during the walk.
        self.walk(operation::END_ALL_SESSIONS, To::Key(index), &["ZSCAN", index], &[], |entries| {
            keys_of_pairs(entries).chunks(SCAN_STEP).try_for_each(|keys| {
                ended += end(SCAN_STEP, keys)?.0;
                Ok(())
            })
        })?;
        // A session written since the walk began has a later deadline than `since`. End those until none is left.
        let (mut limit, mut before) = (SCAN_STEP, u64::MAX);
        loop {
            let (some, left) = end(limit, &[])?;
            ended += some;
            if left == 0 {
                return Ok(ended);
            }
            // New sessions arrive as fast as these end. Double the limit until one script takes all of them.
            if left >= before {
                limit *= 2;
            }
            before = left;
        }
    }

    /// Returns the sessions of a principal in all partitions, the newest first.
    fn belonging(&self, principal: &str) -> Result<Vec<(Place, Belonging)>> {
        let (owner, owned_page) = (keys::owner(principal), OWNED_PAGE.to_string());
        let mut all = Vec::new();
        for partition in 0..self.keys.partitions() {
            let args = [owner.as_bytes(), owned_page.as_bytes()];
            let some: Vec<(String, Vec<u8>, i64, u64)> = self.index_script(
                operation::LIST_BY_PRINCIPAL,
                Effect::Reads,
                &self.scripts.list_owned,
                partition,
                &args,
            )?;
            all.extend(some.into_iter().map(|(key, payload, left, since)| {
                let left = decode_ttl(left);
                let handle = Handle::of_key(key.as_bytes());
                (Place { key, partition }, Belonging::new(handle, payload, left, since))
            }));
        }
        all.sort_by_key(|(_, belonging)| std::cmp::Reverse(belonging.since));
        Ok(all)
    }

    /// Runs a script on the index of one partition and reads its reply.
    fn index_script<A: FromRedisValue>(
        &self,
        operation: &'static str,
        effect: Effect,
        script: &Script,
        partition: u32,
        args: &[&[u8]],
    ) -> Result<A> {
        let (index, base) = (self.keys.index(partition), Some(self.keys.base(partition)));
        let call = self
            .pool
            .call(operation, effect, To::Key(index), |connection| script.call(connection, &[index], args, base));
        decode(operation, call?.value)
    }

    /// Runs a command such as `SCAN` to its end, with the cursor between `before` and `after`.
    fn walk(
        &self,
        operation: &'static str,
        to: To<'_>,
        before: &[&str],
        after: &[&str],
        mut step: impl FnMut(Vec<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = 0;
        loop {
            let mut scan = redis::Cmd::new();
            scan.arg(before).arg(cursor).arg("COUNT").arg(SCAN_STEP).arg(after);
            let page = self.command(operation, Effect::Reads, to, &scan)?.value;
            let (next, found): (u64, Vec<Vec<u8>>) = decode(operation, page)?;
            step(found)?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Verifies the entries of those keys that are keys of sessions.
    fn verify_sessions(&self, keys: Vec<Vec<u8>>, verified: &mut Verified) -> Result<()> {
        let mut sessions = BTreeMap::<u32, Vec<Vec<u8>>>::new();
        for key in keys {
            if let Some(partition) = self.keys.partition_of(&key) {
                sessions.entry(partition).or_default().push(key);
            }
        }
        sessions.into_iter().try_for_each(|(partition, keys)| self.verify_entries(partition, &keys, verified))
    }

    /// Corrects the index entries of these keys.
    fn verify_entries(&self, partition: u32, keys: &[Vec<u8>], verified: &mut Verified) -> Result<()> {
        // Redis returns a small sorted set in one step, regardless of `COUNT`.
        for keys in keys.chunks(SCAN_STEP) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let (added, corrected, dropped): (u64, u64, u64) =
                self.index_script(operation::VERIFY, Effect::Writes, &self.scripts.verify, partition, &keys)?;
            verified.added += added;
            verified.corrected += corrected;
            verified.dropped += dropped;
        }
        Ok(())
    }

    /// Returns the names of indexes and lists of owners whose keys have another type. With `aside`, renames each such key by
    /// this suffix, so that the store can use the name again.
    pub(super) fn clobbered(&self, operation: &'static str, aside: Option<&str>) -> Result<Vec<String>> {
        let args: Vec<&[u8]> = aside.iter().map(|aside| aside.as_bytes()).collect();
        let effect = if aside.is_some() { Effect::Writes } else { Effect::Reads };
        let mut clobbered = Vec::new();
        for partition in 0..self.keys.partitions() {
            let names: Vec<String> = self.index_script(operation, effect, &self.scripts.clobbered, partition, &args)?;
            clobbered.extend(names);
        }
        Ok(clobbered)
    }
}

/// Keeps the keys of the pairs that `ZSCAN` and `HSCAN` return: key and score, or key and owner.
fn keys_of_pairs(entries: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    entries.into_iter().step_by(2).collect()
}
