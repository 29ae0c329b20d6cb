//! [`Gauges`]: the state at one moment, which no event reports.
//!
//! Applications collect them when a monitor asks, and pass them to an exporter. Collecting does no I/O here; only the
//! application's own call of `count` does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metric::{self, Labels, Metric};
use crate::ReaperStats;
use crate::store::Health;

/// The state of a store and a reaper at one moment, for [`PrometheusText::render`](super::PrometheusText::render) and for
/// `MetricsObserver::record`.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    health: Health,
    live: Option<u64>,
    reaper: Option<ReaperStats>,
}

impl Gauges {
    /// Creates gauges from the [health](crate::SessionManager::health) of a store.
    pub fn new(health: Health) -> Self {
        Self { health, live: None, reaper: None }
    }

    /// Sets the number of live sessions, from [`SessionManager::count`](crate::SessionManager::count). Defaults to none.
    ///
    /// `count` sends a command to each partition.
    pub fn live(self, sessions: u64) -> Self {
        Self { live: Some(sessions), ..self }
    }

    /// Sets the [statistics](crate::Reaper::stats) of a reaper. Defaults to none.
    pub fn reaper(self, stats: ReaperStats) -> Self {
        Self { reaper: Some(stats), ..self }
    }

    /// Passes each value on. The values of counters are totals.
    pub(super) fn visit(&self, mut visit: impl FnMut(&'static Metric, Labels, f64)) {
        let health = &self.health;
        visit(&metric::HEALTHY, vec![], f64::from(u8::from(health.is_healthy())));
        visit(&metric::FAILING, vec![], health.failing_for.unwrap_or_default().as_secs_f64());
        for (state, connections) in [("used", health.connections_in_use), ("idle", health.connections_idle)] {
            visit(&metric::CONNECTIONS, vec![("state", state)], connections.into());
        }
        visit(&metric::CONNECTIONS_MAX, vec![], health.connections_max.into());
        let results = [("answered", health.answered), ("repeated", health.repeated), ("failed", health.failed)];
        for (result, commands) in results {
            visit(&metric::COMMANDS, vec![("result", result)], commands as f64);
        }
        if let Some(near) = &health.near_cache {
            visit(&metric::NEAR_READS, vec![("result", "hit")], near.hits as f64);
            visit(&metric::NEAR_READS, vec![("result", "miss")], near.misses as f64);
            visit(&metric::NEAR_INVALIDATIONS, vec![], near.invalidations as f64);
            visit(&metric::NEAR_ENTRIES, vec![], near.entries as f64);
            visit(&metric::NEAR_OUT, vec![], near.out_of_service_for.unwrap_or_default().as_secs_f64());
        }
        if let Some(live) = self.live {
            visit(&metric::LIVE, vec![], live as f64);
        }
        let Some(reaper) = &self.reaper else { return };
        visit(&metric::REAPER_ROUNDS, vec![], reaper.rounds as f64);
        visit(&metric::REAPER_REMOVED, vec![], reaper.removed as f64);
        visit(&metric::REAPER_ERRORS, vec![], reaper.errors as f64);
        visit(&metric::REAPER_BACKLOG, vec![], reaper.backlog as f64);
        if let Some(began) = reaper.last_round {
            visit(&metric::REAPER_LAST_ROUND, vec![], since_epoch(began).as_secs_f64());
        }
        visit(&metric::REAPER_LAST_DURATION, vec![], reaper.last_duration.as_secs_f64());
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
