//! The figures that operators watch: sessions, backlog, round trip, and what Redis reports of itself.
//!
//! The command `watch` of the command line takes a sample in each interval. The invariant: a sample only reads, and looks at a
//! fixed number of sessions.

use std::time::{Duration, Instant};

use super::RedisSessionStore;
use super::net::error::Effect;
use super::net::pool::To;
use super::walk;
use crate::store::{SessionIndex, SessionKey, Snapshot};
use crate::{Handle, Result, operation};

/// One sample. A figure is `None` if the store has no index, or if the user may not run `INFO`.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) sessions: Option<u64>,
    /// The number of entries of the index that are due and wait for a reaper.
    pub(crate) backlog: Option<u64>,
    /// The time that one `TIME` took, which belongs to the kind of reads, as `PING` does not.
    pub(crate) round_trip: Duration,
    /// The bytes that Redis uses, as the sum over all servers.
    pub(crate) memory: Option<u64>,
    pub(crate) clients: Option<u64>,
    pub(crate) commands_per_second: Option<u64>,
    /// The sessions that expire last, which are the sessions used last if all have the same idle timeout.
    pub(crate) recent: Vec<Snapshot>,
}

impl RedisSessionStore {
    /// Takes a sample with at most this many sessions.
    pub(crate) fn vitals(&self, recent: usize) -> Result<Vitals> {
        let servers = self.pool.servers(operation::WATCH)?;
        let (mut round_trip, mut figures) = (Duration::ZERO, [None; 3]);
        for server in &servers {
            let start = Instant::now();
            self.command(operation::WATCH, Effect::Reads, To::Server(server), &redis::cmd("TIME"))?;
            round_trip = round_trip.max(start.elapsed());
            add(&mut figures, self.figures(To::Server(server))?);
        }
        let [memory, clients, commands_per_second] = figures;
        let mut vitals = Vitals {
            sessions: None,
            backlog: None,
            round_trip,
            memory,
            clients,
            commands_per_second,
            recent: Vec::new(),
        };
        if self.expiring {
            let entries = self.index_total(operation::WATCH)?.total;
            let sessions = self.count()?;
            vitals.sessions = Some(sessions);
            vitals.backlog = Some(entries.saturating_sub(sessions));
            vitals.recent = self.recent(recent)?;
        }
        Ok(vitals)
    }

    /// Returns the number of entries of the index that are due.
    pub(crate) fn backlog(&self, operation: &'static str) -> Result<u64> {
        let entries = self.index_total(operation)?.total;
        Ok(entries.saturating_sub(self.count()?))
    }

    fn figures(&self, server: To<'_>) -> Result<[Option<u64>; 3]> {
        let info = match self.info(server) {
            Ok(info) => info,
            Err(error) if error.kind().is_temporary() => return Err(error),
            Err(_) => return Ok([None; 3]),
        };
        let figure = |name: &str| info.get(name)?.trim().parse().ok();
        Ok(["used_memory", "connected_clients", "instantaneous_ops_per_sec"].map(figure))
    }

    /// Returns the sessions that expire last.
    fn recent(&self, limit: usize) -> Result<Vec<Snapshot>> {
        let mut found: Vec<(f64, SessionKey)> = Vec::new();
        let take = limit.to_string();
        for partition in 0..self.keys.partitions() {
            let args = [b"0".as_slice(), take.as_bytes()];
            let some: Vec<(Vec<u8>, f64, i64)> =
                self.index_script(operation::WATCH, Effect::Reads, &self.scripts.page, partition, &args)?;
            let own = some.into_iter().filter(|(key, ..)| self.keys.is_in(partition, key));
            found.extend(own.map(|(key, score, _)| (score, SessionKey::new(Handle::of_key(&key), partition, key))));
        }
        found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let keys: Vec<SessionKey> = found.into_iter().take(limit).map(|(_, key)| key).collect();
        walk::snapshots(self, &keys)
    }
}

/// Adds the figures of one server to the sums.
fn add(sums: &mut [Option<u64>; 3], figures: [Option<u64>; 3]) {
    for (sum, figure) in sums.iter_mut().zip(figures) {
        *sum = figure.map_or(*sum, |figure| Some(sum.unwrap_or_default().saturating_add(figure)));
    }
}
