//! The metrics of the crate: names, types, units and descriptions.
//!
//! Both exporters use this list, `docs/operating.md` has it as a table, and the dashboard in `docs/grafana.json` queries it.
//! Names follow the semantic conventions of OpenTelemetry in the form that Prometheus uses, where a convention exists.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// Names and values. All are constants, so no label can hold a secret or grow without bound.
pub(super) type Labels = Vec<(&'static str, &'static str)>;

/// An operation on Redis takes about 0.1 ms, and fails after 1 second by default.
const DURATION_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

const SIZE_BUCKETS: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, $help:literal;)*) => {
        $(pub(super) static $constant: Metric = Metric { name: $name, kind: $kind, help: $help };)*

        /// All metrics, in the order in which they are rendered.
        pub(super) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    OPERATION_DURATION: Kind::Histogram(DURATION_BUCKETS), "db_client_operation_duration_seconds",
        "Duration of store operations.";
    WAIT_TIME: Kind::Histogram(DURATION_BUCKETS), "db_client_connection_wait_time_seconds",
        "Time that operations waited because no connection was idle.";
    CREATE_TIME: Kind::Histogram(DURATION_BUCKETS), "db_client_connection_create_time_seconds",
        "Time to open a connection, with TLS and login.";
    CONNECTIONS: Kind::Gauge, "threaded_sessions_connections",
        "Open connections, by state.";
    CONNECTIONS_MAX: Kind::Gauge, "db_client_connection_max",
        "Connections that the pool may open.";
    PAYLOAD: Kind::Histogram(SIZE_BUCKETS), "threaded_sessions_payload_bytes",
        "Size of payloads that were read or written.";
    RETRIES: Kind::Counter, "threaded_sessions_retries_total",
        "Commands that were sent again because a connection died.";
    CREATED: Kind::Counter, "threaded_sessions_created_total",
        "Sessions that were created.";
    RENEWED: Kind::Counter, "threaded_sessions_renewed_total",
        "Sessions that moved to a new id.";
    ENDED: Kind::Counter, "threaded_sessions_ended_total",
        "Sessions that ended, by reason.";
    UNREADABLE: Kind::Counter, "threaded_sessions_unreadable_total",
        "Requests whose session could not be decoded.";
    CONFLICTS: Kind::Counter, "threaded_sessions_conflicts_total",
        "Saves that met the change of another request, by resolution.";
    OPENED: Kind::Counter, "threaded_sessions_connections_opened_total",
        "Connections that were opened.";
    CONNECT_FAILED: Kind::Counter, "threaded_sessions_connections_failed_total",
        "Attempts to connect that failed.";
    CLOSED: Kind::Counter, "threaded_sessions_connections_closed_total",
        "Connections that were closed, by reason.";
    CIRCUIT: Kind::Counter, "threaded_sessions_circuit_changes_total",
        "Changes of a circuit breaker, by new state.";
    HEALTHY: Kind::Gauge, "threaded_sessions_store_healthy",
        "1 if the store can be reached, otherwise 0.";
    FAILING: Kind::Gauge, "threaded_sessions_store_failing_seconds",
        "How long the store has been failing, 0 if it works.";
    COMMANDS: Kind::Counter, "threaded_sessions_store_commands_total",
        "Commands, by result: answered, answered at the second attempt, or failed.";
    NEAR_READS: Kind::Counter, "threaded_sessions_near_cache_reads_total",
        "Reads of sessions, by where the near cache got them: in the process (hit) or in Redis (miss).";
    NEAR_INVALIDATIONS: Kind::Counter, "threaded_sessions_near_cache_invalidations_total",
        "Entries of the near cache that Redis announced as changed.";
    NEAR_ENTRIES: Kind::Gauge, "threaded_sessions_near_cache_entries",
        "Sessions in the near cache.";
    NEAR_OUT: Kind::Gauge, "threaded_sessions_near_cache_out_of_service_seconds",
        "How long the near cache has been out of service, 0 if it serves.";
    LIVE: Kind::Gauge, "threaded_sessions_live",
        "Live sessions, as the index has them.";
    REAPER_ROUNDS: Kind::Counter, "threaded_sessions_reaper_rounds_total",
        "Rounds of the reaper that were completed.";
    REAPER_REMOVED: Kind::Counter, "threaded_sessions_reaper_removed_total",
        "Sessions that the reaper removed.";
    REAPER_ERRORS: Kind::Counter, "threaded_sessions_reaper_errors_total",
        "Rounds of the reaper that failed.";
    REAPER_BACKLOG: Kind::Gauge, "threaded_sessions_reaper_backlog",
        "Overdue entries of the index that the reaper has not looked at yet.";
    REAPER_LAST_ROUND: Kind::Gauge, "threaded_sessions_reaper_last_round_timestamp_seconds",
        "When the last round of the reaper began.";
    REAPER_LAST_DURATION: Kind::Gauge, "threaded_sessions_reaper_last_round_duration_seconds",
        "How long the last round of the reaper took.";
}
