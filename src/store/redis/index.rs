//! The index of the expiring store: reaping, counting, paging, and the sessions of a principal.
//!
//! The reaper and the manager use it through [`SessionIndex`]. The invariant: the TTL of a session's key decides whether the
//! session is live. The index and the lists of principals follow from it and may lag, so every script checks the TTL.

use std::ops::{ControlFlow, Range};

use redis::{FromRedisValue, Value};

use super::net::error::Effect;
use super::net::pool::To;
use super::reply::{decode, decode_count, decode_reaped, decode_ttl, keys_of_pairs};
use super::script::Script;
use super::walk::{SCAN_STEP, text};
use super::{RedisSessionStore, keys, owned, verify};
use crate::store::{
    Belonging, Bind, CAP_NOT_ENFORCED, EndedAll, Ending, Entry, OnProgress, OwnedPage, Reaped, SessionIndex, Verified,
    VerifyOptions,
};
use crate::{Handle, Result, fence, operation};

/// How often a login tries to enforce the cap while logins in other partitions do the same.
const CAP_ATTEMPTS: usize = 20;

/// The number of sessions of a principal that one script lists or ends.
const OWNED_PAGE: usize = 1000;

/// The number of entries that `end_all.lua` returns if it stopped before it looked at all of them.
const STOPPED: i64 = -1;

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
        Ok(self.count_by_partition()?.iter().sum())
    }

    fn count_by_partition(&self) -> Result<Vec<u64>> {
        let count = |partition| {
            let reply = self.index_script(operation::COUNT, Effect::Reads, &self.scripts.count, partition, &[])?;
            decode_count(&reply)
        };
        (0..self.keys.partitions()).map(count).collect()
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
                self.foreign_keys.look(&self.keys, partition, some.iter().map(|(key, ..)| &**key));
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

    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        owned::page(self, operation::UPDATE_ALL, principal, partition, after)
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        let _near = self.near.settles();
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
                let mut newest = self.belonging(principal)?.into_iter();
                let meant = match newest.find(|(_, belonging)| belonging.handle == handle) {
                    Some((place, _)) => Some(place),
                    None => self.place_of(principal, handle)?,
                };
                meant.map_or(Ok(0), |place| self.end_in(place.partition, principal, "only", &place.key))
            }
        }
    }

    fn end_everybody(&self) -> Result<u64> {
        Ok(self.end_everybody_with(&mut |_| ControlFlow::Continue(()))?.ended)
    }

    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        let _near = self.near.settles();
        let (mut all, mut progress) = (EndedAll::default(), self.index_total(operation::END_ALL_SESSIONS)?);
        for partition in 0..self.keys.partitions() {
            let mut looked_at = |entries| {
                progress = progress.after(entries);
                on_progress(progress)
            };
            let (ended, flow) = self.end_everybody_in(partition, &mut looked_at)?;
            all.ended += ended;
            if flow.is_break() {
                all.interrupted = true;
                break;
            }
        }
        Ok(all)
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        let _near = self.near.settles();
        verify::run(self, options)
    }
}

/// The key and the partition of a principal's session.
struct Place {
    key: String,
    partition: u32,
}

impl RedisSessionStore {
    /// Ends the oldest sessions of a principal beyond the cap, after the session under `key` was bound to the principal. With one
    /// partition the scripts do it. A failure does not undo the binding, so the write succeeds; the next binding enforces the cap.
    pub(super) fn enforce_cap_across_partitions(&self, key: &str, bind: Bind<'_>, is_new: bool) {
        let Bind::To { principal, cap: Some(cap) } = bind else { return };
        if self.keys.partitions() > 1
            && let Err(error) = self.end_beyond_cap(principal, cap as usize, key, is_new)
        {
            fence::log!(Warn, error = error.kind().name(); "{CAP_NOT_ENFORCED}: {error:#}");
        }
    }

    /// Returns `true` if a write must not bind the session under `key`, because the principal has as many others as the write
    /// allows. With one partition the scripts find out. With several, a login of the same moment is not counted if it is stored
    /// later.
    pub(super) fn is_over_cap_across_partitions(&self, key: &str, bind: Bind<'_>) -> Result<bool> {
        let Bind::WithinCap { principal, cap } = bind else { return Ok(false) };
        if !self.expiring || self.keys.partitions() == 1 {
            return Ok(false);
        }
        let theirs = self.belonging(principal)?;
        Ok(theirs.len() >= cap as usize && theirs.iter().all(|(place, _)| place.key != key))
    }

    /// Ends the oldest sessions of a principal beyond the cap, but not the one under `key`.
    ///
    /// The clocks of two nodes can differ, so the session that was just bound can seem older than another. It takes a later time
    /// than all others if it is new, and also if it is beyond the cap. A session ends only if its time is still the one in the
    /// list, so two logins that each take a later time never end each other: the one with the latest time stays. (Before
    /// a login has taken a later time, a login of the same moment in another partition may end it.)
    fn end_beyond_cap(&self, principal: &str, cap: usize, key: &str, is_new: bool) -> Result<()> {
        for _ in 0..CAP_ATTEMPTS {
            let mut all = self.belonging(principal)?;
            let at = all.iter().position(|(place, _)| place.key == key);
            if let Some(at) = at
                && at > 0
                && (is_new || at >= cap)
            {
                if !self.make_newest(&all[at].0, principal, all[0].1.since)? {
                    continue;
                }
                all[..=at].rotate_right(1);
            }
            let mut all_ended = true;
            for (place, belonging) in &all[cap.min(all.len())..] {
                all_ended &= self.end_unless_newer(place, principal, belonging.since)?;
            }
            if all_ended {
                break;
            }
        }
        Ok(())
    }

    /// Gives a session of a principal a later time than `newest`. Returns `false` if it is not theirs any more.
    fn make_newest(&self, place: &Place, principal: &str, newest: u64) -> Result<bool> {
        let set = self.keys.owned(place.partition, &keys::owner(principal));
        let mut zadd = redis::cmd("ZADD");
        zadd.arg(&set).arg("XX").arg("GT").arg("CH").arg(newest.saturating_add(1)).arg(&place.key);
        let answer = self.command(operation::ENFORCE_CAP, Effect::Writes, To::Key(&set), &zadd)?;
        // The second of two attempts finds the time of the first one.
        Ok(answer.repeated || answer.value == Value::Int(1))
    }

    /// Ends a session of a principal. Returns `false`, and ends nothing, if the principal got it after `since`.
    fn end_unless_newer(&self, place: &Place, principal: &str, since: u64) -> Result<bool> {
        let (owner, since) = (keys::owner(principal), since.to_string());
        let args: [&[u8]; 5] = [owner.as_bytes(), b"1", b"only", place.key.as_bytes(), since.as_bytes()];
        let (_, is_newer): (i64, bool) =
            self.index_script(operation::ENFORCE_CAP, Effect::Writes, &self.scripts.end, place.partition, &args)?;
        Ok(!is_newer)
    }

    /// Ends sessions of a principal in one partition: "all", all "but" the one under this key, or "only" that.
    fn end_in(&self, partition: u32, principal: &str, which: &str, key: &str) -> Result<u64> {
        let (owner, owned_page) = (keys::owner(principal), OWNED_PAGE.to_string());
        let args: [&[u8]; 5] = [owner.as_bytes(), owned_page.as_bytes(), which.as_bytes(), key.as_bytes(), b""];
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

    /// Ends all sessions of one partition that began before the call, and perhaps some that begin during it. `looked_at` gets the
    /// number of entries that a step looked at, and may stop it.
    fn end_everybody_in(
        &self,
        partition: u32,
        looked_at: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(u64, ControlFlow<()>)> {
        let index = self.keys.index(partition);
        let time = self.command(operation::END_ALL_SESSIONS, Effect::Reads, To::Key(index), &redis::cmd("TIME"))?.value;
        let (seconds, micros): (u64, u64) = decode(operation::END_ALL_SESSIONS, time)?;
        let since = (seconds * 1000 + micros / 1000).to_string();
        let mut ended = 0;
        // A walk finds every entry that is in the index from the beginning of the walk to its end. It can miss a session that
        // is rotated during the walk.
        let scan = ["ZSCAN", index];
        for page in self.scan_pages(operation::END_ALL_SESSIONS, To::Key(index), &scan, SCAN_STEP) {
            let (_, entries) = page?;
            for keys in keys_of_pairs(entries).chunks(SCAN_STEP) {
                let mut left = STOPPED;
                while left == STOPPED {
                    let some;
                    (some, left) = self.end_some(partition, &since, SCAN_STEP, keys)?;
                    ended += some;
                }
                if looked_at(keys.len() as u64).is_break() {
                    return Ok((ended, ControlFlow::Break(())));
                }
            }
        }
        Ok((ended + self.end_later_ones(partition, &since)?, ControlFlow::Continue(())))
    }

    /// Ends the sessions of one partition whose deadline is later than `since`, until none is left: a session written since the
    /// walk began has such a deadline.
    fn end_later_ones(&self, partition: u32, since: &str) -> Result<u64> {
        let (mut ended, mut limit, mut before) = (0, SCAN_STEP, i64::MAX);
        loop {
            let (some, left) = self.end_some(partition, since, limit, &[])?;
            ended += some;
            if left == 0 {
                return Ok(ended);
            }
            // New sessions arrive as fast as these end. Double the limit until one script takes all of them.
            if left >= before {
                limit *= 2;
            }
            if left != STOPPED {
                before = left;
            }
        }
    }

    /// Ends the sessions under these keys or, without keys, up to `limit` that are due later than `since`. Returns how many were
    /// live, and how many entries are still due later, or `STOPPED`.
    fn end_some(&self, partition: u32, since: &str, limit: usize, keys: &[Vec<u8>]) -> Result<(u64, i64)> {
        let limit = limit.to_string();
        let args = [since.as_bytes(), limit.as_bytes()].into_iter().chain(keys.iter().map(Vec::as_slice));
        let args: Vec<&[u8]> = args.collect();
        self.index_script(operation::END_ALL_SESSIONS, Effect::Writes, &self.scripts.end_all, partition, &args)
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
            self.foreign_keys.look(&self.keys, partition, some.iter().map(|(key, ..)| key.as_bytes()));
            all.extend(some.into_iter().map(|(key, payload, left, since)| {
                let left = decode_ttl(left);
                let handle = Handle::of_key(key.as_bytes());
                (Place { key, partition }, Belonging::new(handle, payload, left, since))
            }));
        }
        // Sessions with the same time have an order too, which all callers agree on.
        all.sort_by(|(one, of_one), (other, of_other)| (of_other.since, &other.key).cmp(&(of_one.since, &one.key)));
        Ok(all)
    }

    /// Looks for a session among all those of a principal, in pages. [`belonging`](Self::belonging) has only the newest ones.
    fn place_of(&self, principal: &str, handle: Handle) -> Result<Option<Place>> {
        for partition in 0..self.keys.partitions() {
            let mut after = None;
            loop {
                let page = owned::page(self, operation::END, principal, partition, after)?;
                if let Some(meant) = page.sessions.iter().find(|owned| owned.key.handle() == handle) {
                    return Ok(Some(Place { key: text(&meant.key)?.to_owned(), partition }));
                }
                let Some(next) = page.next else { break };
                after = Some(next);
            }
        }
        Ok(None)
    }

    /// Runs a script on the index of one partition and reads its reply. For Redis, each script may write.
    pub(super) fn index_script<A: FromRedisValue>(
        &self,
        operation: &'static str,
        effect: Effect,
        script: &Script,
        partition: u32,
        args: &[&[u8]],
    ) -> Result<A> {
        let (index, base) = (self.keys.index(partition), Some(self.keys.base(partition)));
        let effect = if effect == Effect::Reads { Effect::Touches } else { effect };
        let call = self
            .pool
            .call(operation, effect, To::Key(index), |connection| script.call(connection, &[index], args, base));
        decode(operation, call?.value)
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

    /// Returns the names of those sets of owners whose keys have another type. Like `clobbered`, with `aside`, renames each.
    pub(super) fn clobbered_sets(&self, partition: u32, aside: &str, sets: &[String]) -> Result<Vec<String>> {
        let args: Vec<&[u8]> = [aside].into_iter().chain(sets.iter().map(String::as_str)).map(str::as_bytes).collect();
        self.index_script(operation::VERIFY, Effect::Writes, &self.scripts.clobbered, partition, &args)
    }
}
