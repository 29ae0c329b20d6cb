//! The index of the expiring store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Value};

use super::command::unexpected;
use super::net::error::Effect;
use super::net::pool::To;
use super::script::Script;
use super::{RedisSessionStore, keys};
use crate::store::{Belonging, Bind, Ending, Entry, Expired, Reaped, SessionIndex, Verified};
use crate::{Handle, Result, operation};

/// How many keys one step of a `verify` or `page` looks at: well under a millisecond of the server's time.
const STEP: usize = 200;

/// How many sessions of a principal are listed, or ended by one script.
const AT_ONCE: usize = 1000;

/// The ms left that `page.lua` returns for a session that is in the index only.
const GONE: i64 = -2;

impl SessionIndex for RedisSessionStore {
    fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        // `unpack` in the script has its limits.
        let limit = limit.clamp(1, 1000).to_string();
        let args = [limit.as_bytes(), if payloads { b"1" } else { b"0" }];
        let answer: Value = self.index_script(operation::REAP, Effect::Writes, &self.scripts.reap, partition, &args)?;
        let Value::Array(parts) = answer else { return Err(unexpected(operation::REAP, &answer)) };
        let mut parts = parts.into_iter();
        let (Some(Value::Int(removed)), Some(Value::Int(backlog))) = (parts.next(), parts.next()) else {
            return Err(unexpected(operation::REAP, &Value::Array(Vec::new())));
        };
        let sessions = pairs(parts).filter_map(|pair| match pair {
            (Value::BulkString(key), Value::BulkString(payload)) => Some(Expired::new(Handle::of_key(&key), payload)),
            _ => None,
        });
        Ok(Reaped { removed: removed as u64, backlog: backlog as u64, sessions: sessions.collect() })
    }

    fn count(&self) -> Result<u64> {
        let mut count = 0;
        for partition in 0..self.keys.partitions() {
            match self.index_script(operation::COUNT, Effect::Reads, &self.scripts.count, partition, &[])? {
                Value::Int(live) => count += live as u64,
                other => return Err(unexpected(operation::COUNT, &other)),
            }
        }
        Ok(count)
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        let partitions = self.keys.partitions();
        // No index has more, and Redis takes no larger number.
        let offset = offset.min(i32::MAX as usize);
        let end = offset.saturating_add(limit);
        // Of several partitions each can hold all that comes before the page.
        let first = if partitions == 1 { offset } else { 0 };
        let mut entries = Vec::new();
        for partition in 0..partitions {
            let mut at = first;
            while at < end {
                let (skip, take) = (at.to_string(), STEP.min(end - at).to_string());
                let args = [skip.as_bytes(), take.as_bytes()];
                let some: Vec<(Vec<u8>, f64, i64)> =
                    self.index_script(operation::PAGE, Effect::Reads, &self.scripts.page, partition, &args)?;
                at = if some.len() < STEP { end } else { at + STEP };
                entries.extend(some);
            }
        }
        // By what the index says, or an entry that lags would be on two pages, or on none.
        entries.sort_by(|(_, one, _), (_, other, _)| other.total_cmp(one));
        let page = entries.into_iter().skip(offset - first).take(limit);
        let live = page.filter(|(_, _, left)| *left != GONE);
        let entry = |(key, _, left): (Vec<u8>, f64, i64)| {
            Entry::new(Handle::of_key(&key), u64::try_from(left).ok().map(Duration::from_millis))
        };
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
                let mut sessions = BTreeMap::<u32, Vec<Vec<u8>>>::new();
                for key in keys {
                    if let Some(partition) = self.keys.partition_of(&key) {
                        sessions.entry(partition).or_default().push(key);
                    }
                }
                sessions
                    .into_iter()
                    .try_for_each(|(partition, keys)| self.mend(operation::VERIFY, partition, &keys, &mut verified))
            })?;
        }
        for partition in 0..self.keys.partitions() {
            for [scan, key] in [["ZSCAN", self.keys.index(partition)], ["HSCAN", &self.keys.owners(partition)]] {
                self.walk(operation::VERIFY, To::Key(key), &[scan, key], &[], |entries| {
                    // Keys and scores, or owners, in turn.
                    let keys: Vec<Vec<u8>> = entries.into_iter().step_by(2).collect();
                    self.mend(operation::VERIFY, partition, &keys, &mut verified)
                })?;
            }
        }
        Ok(verified)
    }
}

/// Where a session of a principal lives.
struct Place {
    key: String,
    partition: u32,
}

impl RedisSessionStore {
    /// Ends the oldest sessions of a principal beyond the cap, after they got another. With one partition the
    /// scripts do it. That it fails does not undo the binding, so it is no failure of the write: the next binding tries again.
    pub(super) fn settle_cap(&self, bind: Bind<'_>) {
        let Bind::To { principal, cap: Some(cap) } = bind else { return };
        if self.keys.partitions() > 1 {
            let settled = self.belonging(principal).and_then(|all| {
                let mut oldest = all.into_iter().skip(cap as usize);
                oldest.try_for_each(|(place, _)| self.end_in(place.partition, principal, "only", &place.key).map(drop))
            });
            if let Err(error) = settled {
                log::warn!("a principal may have more sessions than the cap until they get another: {error}");
            }
        }
    }

    /// Ends sessions of a principal in one partition: "all", all "but" the one under this key, or "only" that.
    fn end_in(&self, partition: u32, principal: &str, which: &str, key: &str) -> Result<u64> {
        let (owner, at_once) = (keys::owner(principal), AT_ONCE.to_string());
        let args = [owner.as_bytes(), at_once.as_bytes(), which.as_bytes(), key.as_bytes()];
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

    /// Ends all sessions of one partition that began before now, and perhaps some that begin meanwhile.
    fn end_everybody_in(&self, partition: u32) -> Result<u64> {
        let index = self.keys.index(partition);
        let time = self.command(operation::END_ALL_SESSIONS, Effect::Reads, To::Key(index), &redis::cmd("TIME"))?.value;
        let (seconds, micros): (u64, u64) = answered(operation::END_ALL_SESSIONS, time)?;
        let since = (seconds * 1000 + micros / 1000).to_string();
        let end = |limit: usize, keys: &[Vec<u8>]| -> Result<(u64, u64)> {
            let limit = limit.to_string();
            let args = [since.as_bytes(), limit.as_bytes()].into_iter().chain(keys.iter().map(Vec::as_slice));
            let args: Vec<&[u8]> = args.collect();
            self.index_script(operation::END_ALL_SESSIONS, Effect::Writes, &self.scripts.end_all, partition, &args)
        };
        let mut ended = 0;
        // A walk finds every entry that is there from its beginning to its end, wherever the index has it. What it cannot
        // find are sessions that were renewed meanwhile.
        self.walk(operation::END_ALL_SESSIONS, To::Key(index), &["ZSCAN", index], &[], |entries| {
            let keys: Vec<Vec<u8>> = entries.into_iter().step_by(2).collect();
            keys.chunks(STEP).try_for_each(|keys| {
                ended += end(STEP, keys)?.0;
                Ok(())
            })
        })?;
        // They are due later than it began, as all is that was written since: until at one moment there is nothing of it.
        let (mut limit, mut before) = (STEP, u64::MAX);
        loop {
            let (some, left) = end(limit, &[])?;
            ended += some;
            if left == 0 {
                return Ok(ended);
            }
            // New ones come as fast as these end. A script that takes all of them is the last one.
            if left >= before {
                limit *= 2;
            }
            before = left;
        }
    }

    /// The sessions of a principal in all partitions, the newest first.
    fn belonging(&self, principal: &str) -> Result<Vec<(Place, Belonging)>> {
        let (owner, at_once) = (keys::owner(principal), AT_ONCE.to_string());
        let mut all = Vec::new();
        for partition in 0..self.keys.partitions() {
            let args = [owner.as_bytes(), at_once.as_bytes()];
            let some: Vec<(String, Vec<u8>, i64, u64)> = self.index_script(
                operation::LIST_BY_PRINCIPAL,
                Effect::Reads,
                &self.scripts.list_owned,
                partition,
                &args,
            )?;
            all.extend(some.into_iter().map(|(key, payload, left, since)| {
                let left = u64::try_from(left).ok().map(Duration::from_millis);
                let handle = Handle::of_key(key.as_bytes());
                (Place { key, partition }, Belonging::new(handle, payload, left, since))
            }));
        }
        all.sort_by_key(|(_, belonging)| std::cmp::Reverse(belonging.since));
        Ok(all)
    }

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
        answered(operation, call?.value)
    }

    /// Runs a kind of `SCAN` to its end, with the cursor between `before` and `after`.
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
            scan.arg(before).arg(cursor).arg("COUNT").arg(STEP).arg(after);
            let page = self.command(operation, Effect::Reads, to, &scan)?.value;
            let (next, found): (u64, Vec<Vec<u8>>) = answered(operation, page)?;
            step(found)?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Makes the entries of these keys what they should be.
    fn mend(&self, operation: &'static str, partition: u32, keys: &[Vec<u8>], verified: &mut Verified) -> Result<()> {
        // A small sorted set comes in one step, whatever its size.
        for keys in keys.chunks(STEP) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let (added, corrected, dropped): (u64, u64, u64) =
                self.index_script(operation, Effect::Writes, &self.scripts.verify, partition, &keys)?;
            verified.added += added;
            verified.corrected += corrected;
            verified.dropped += dropped;
        }
        Ok(())
    }

    /// The names under which there is something else than an index, or than the list of whom its sessions belong to. What is
    /// there is moved `aside` if that says what to put behind its name, so that there can be what belongs there.
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

/// An answer, if it is what was to be answered.
fn answered<A: FromRedisValue>(operation: &'static str, answer: Value) -> Result<A> {
    A::from_redis_value(answer).map_err(|_| unexpected(operation, &Value::Array(Vec::new())))
}

fn pairs(mut values: impl Iterator<Item = Value>) -> impl Iterator<Item = (Value, Value)> {
    std::iter::from_fn(move || values.next().zip(values.next()))
}
