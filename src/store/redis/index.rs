//! The index of the expiring store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue, Value};

use super::failure::Effect;
use super::{RedisSessionStore, keys, script, unexpected};
use crate::store::{Belonging, Bind, Ending, Entry, Expired, Reaped, SessionIndex, Verified};
use crate::{Handle, Result};

/// How many keys one step of a `verify` looks at: well under a millisecond of the server's time.
const STEP: usize = 200;

/// How many sessions of a principal are listed, or ended by one script.
const AT_ONCE: usize = 1000;

impl SessionIndex for RedisSessionStore {
    fn partitions(&self) -> u32 {
        self.keys.partitions()
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        const DOING: &str = "reaping sessions";
        // `unpack` in the script has its limits.
        let limit = limit.clamp(1, 1000).to_string();
        let args = [limit.as_bytes(), if payloads { b"1" } else { b"0" }];
        let answer = self.index_script(DOING, Effect::Writes, &script::REAP, partition, &args)?;
        let Value::Array(parts) = answer else { return Err(unexpected(DOING, &answer)) };
        let mut parts = parts.into_iter();
        let (Some(Value::Int(removed)), Some(Value::Int(backlog))) = (parts.next(), parts.next()) else {
            return Err(unexpected(DOING, &Value::Array(Vec::new())));
        };
        let sessions = pairs(parts).filter_map(|pair| match pair {
            (Value::BulkString(key), Value::BulkString(payload)) => Some(Expired::new(Handle::of_key(&key), payload)),
            _ => None,
        });
        Ok(Reaped { removed: removed as u64, backlog: backlog as u64, sessions: sessions.collect() })
    }

    fn count(&self) -> Result<u64> {
        const DOING: &str = "counting sessions";
        let mut count = 0;
        for partition in 0..self.keys.partitions() {
            match self.index_script(DOING, Effect::Reads, &script::COUNT, partition, &[])? {
                Value::Int(live) => count += live as u64,
                other => return Err(unexpected(DOING, &other)),
            }
        }
        Ok(count)
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        const DOING: &str = "listing sessions";
        let wanted = offset.saturating_add(limit).to_string();
        let mut entries = Vec::new();
        for partition in 0..self.keys.partitions() {
            let answer = self.index_script(DOING, Effect::Reads, &script::PAGE, partition, &[wanted.as_bytes()])?;
            let Value::Array(parts) = answer else { return Err(unexpected(DOING, &answer)) };
            entries.extend(pairs(parts.into_iter()).filter_map(|pair| match pair {
                (Value::BulkString(key), Value::Int(left)) => {
                    Some(Entry::new(Handle::of_key(&key), u64::try_from(left).ok().map(Duration::from_millis)))
                }
                _ => None,
            }));
        }
        // No deadline is the furthest.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.expires_in.unwrap_or(Duration::MAX)));
        Ok(entries.into_iter().skip(offset).take(limit).collect())
    }

    fn of(&self, principal: &str) -> Result<Vec<Belonging>> {
        Ok(self.belonging(principal)?.into_iter().map(|(_, belonging)| belonging).collect())
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        const DOING: &str = "ending sessions";
        let (mode, key, partition) = match which {
            Ending::All => ("all", String::new(), None),
            Ending::AllBut(id) => ("but", self.keys.session(id), None),
            Ending::Only(handle) => {
                let his = self.belonging(principal)?;
                let Some((key, _)) = his.into_iter().find(|(_, belonging)| belonging.handle == handle) else {
                    return Ok(0);
                };
                ("only", key.key, Some(key.partition))
            }
        };
        let (owner, at_once) = (keys::owner(principal), AT_ONCE.to_string());
        let args = [owner.as_bytes(), at_once.as_bytes(), mode.as_bytes(), key.as_bytes()];
        let mut ended = 0;
        for partition in partition.map_or(0..self.keys.partitions(), |partition| partition..partition + 1) {
            loop {
                let answer = self.index_script(DOING, Effect::Writes, &script::END, partition, &args)?;
                let (some, more) = <(u64, bool)>::from_redis_value(answer)
                    .map_err(|_| unexpected(DOING, &Value::Array(Vec::new())))?;
                ended += some;
                if !more {
                    break;
                }
            }
        }
        Ok(ended)
    }

    fn verify(&self) -> Result<Verified> {
        const DOING: &str = "verifying the index";
        let mut verified = Verified::default();
        for partition in 0..self.keys.partitions() {
            self.displace_clobbered(DOING, partition, &mut verified)?;
            let index = self.keys.index(partition);
            let sessions = |cursor: u64| {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("COUNT").arg(STEP).arg("TYPE").arg("string");
                scan
            };
            self.walk(DOING, partition, sessions, |key| self.keys.is_session(partition, key), &mut verified)?;
            let entries = |cursor: u64| {
                let mut scan = redis::cmd("ZSCAN");
                scan.arg(&index).arg(cursor).arg("COUNT").arg(STEP);
                scan
            };
            // Besides keys it answers scores, which the script finds to be no sessions and in no index.
            self.walk(DOING, partition, entries, |_| true, &mut verified)?;
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
    /// Ends the oldest sessions of a principal beyond the cap. With one partition the scripts do it.
    pub(super) fn settle_cap(&self, bind: Bind<'_>) -> Result<()> {
        let Bind::To { principal, cap: Some(cap) } = bind else { return Ok(()) };
        if self.keys.partitions() > 1 {
            for (_, oldest) in self.belonging(principal)?.into_iter().skip(cap as usize) {
                self.end(principal, Ending::Only(oldest.handle))?;
            }
        }
        Ok(())
    }

    /// The sessions of a principal in all partitions, the newest first.
    fn belonging(&self, principal: &str) -> Result<Vec<(Place, Belonging)>> {
        const DOING: &str = "listing the sessions of a principal";
        let (owner, at_once) = (keys::owner(principal), AT_ONCE.to_string());
        let mut all = Vec::new();
        for partition in 0..self.keys.partitions() {
            let args = [owner.as_bytes(), at_once.as_bytes()];
            let answer = self.index_script(DOING, Effect::Reads, &script::OF, partition, &args)?;
            let his = Vec::<(String, Vec<u8>, i64, u64)>::from_redis_value(answer)
                .map_err(|_| unexpected(DOING, &Value::Array(Vec::new())))?;
            all.extend(his.into_iter().map(|(key, payload, left, since)| {
                let left = u64::try_from(left).ok().map(Duration::from_millis);
                let handle = Handle::of_key(key.as_bytes());
                (Place { key, partition }, Belonging::new(handle, payload, left, since))
            }));
        }
        all.sort_by_key(|(_, belonging)| std::cmp::Reverse(belonging.since));
        Ok(all)
    }

    fn index_script(
        &self,
        doing: &'static str,
        effect: Effect,
        script: &script::Script,
        partition: u32,
        args: &[&[u8]],
    ) -> Result<Value> {
        let (index, grace) = (self.keys.index(partition), self.grace().as_millis().to_string());
        let args: Vec<&[u8]> = std::iter::once(grace.as_bytes()).chain(args.iter().copied()).collect();
        let call = self.pool.call(doing, effect, |connection| script.call(connection, &[&index], &args));
        call.map(|answer| answer.value)
    }

    /// Runs a kind of `SCAN` to its end and has every step's keys verified.
    fn walk(
        &self,
        doing: &'static str,
        partition: u32,
        scan: impl Fn(u64) -> Cmd,
        is_ours: impl Fn(&str) -> bool,
        verified: &mut Verified,
    ) -> Result<()> {
        let mut cursor = 0;
        loop {
            let page = self.command(doing, Effect::Reads, &scan(cursor))?.value;
            let (next, keys) = <(u64, Vec<String>)>::from_redis_value(page)
                .map_err(|_| unexpected(doing, &Value::Array(Vec::new())))?;
            let keys: Vec<&[u8]> = keys.iter().filter(|key| is_ours(key)).map(|key| key.as_bytes()).collect();
            if !keys.is_empty() {
                let answer = self.index_script(doing, Effect::Writes, &script::VERIFY, partition, &keys)?;
                let (added, corrected, dropped) = <(u64, u64, u64)>::from_redis_value(answer)
                    .map_err(|_| unexpected(doing, &Value::Array(Vec::new())))?;
                verified.added += added;
                verified.corrected += corrected;
                verified.dropped += dropped;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Renames what is in the place of an index, so that there can be one again.
    fn displace_clobbered(&self, doing: &'static str, partition: u32, verified: &mut Verified) -> Result<()> {
        let index = self.keys.index(partition);
        let kind = self.command(doing, Effect::Reads, redis::cmd("TYPE").arg(&index))?.value;
        if !matches!(String::from_redis_value(kind).as_deref(), Ok("zset" | "none")) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let aside = format!("{index}:clobbered:{now}");
            self.command(doing, Effect::Writes, redis::cmd("RENAMENX").arg(&index).arg(aside))?;
            verified.displaced += 1;
        }
        Ok(())
    }
}

fn pairs(mut values: impl Iterator<Item = Value>) -> impl Iterator<Item = (Value, Value)> {
    std::iter::from_fn(move || values.next().zip(values.next()))
}
