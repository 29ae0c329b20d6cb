//! [`Recording`]: from events to the instruments of a backend.
//!
//! Both exporters are a recording with a backend of their own. Invariant: an event costs no lock and no allocation, except the
//! first one with its labels, because each combination of labels has a slot in an array.

use std::sync::OnceLock;
use std::time::Duration;

use super::metric::{self, Labels, Metric};
use super::{
    CircuitEvent, CircuitState, CloseReason, Conflict, ConnectionEvent, EndCause, Ended, Operation, OperationKind,
    OperationOutcome, Resolution,
};
use crate::ErrorKind;

/// The maker of instruments: text for Prometheus, or the recorder of the `metrics` crate.
pub(super) trait Backend {
    type Counter: Count;
    type Histogram: Record;

    fn counter(&self, metric: &'static Metric, labels: Labels) -> Self::Counter;
    fn histogram(&self, metric: &'static Metric, labels: Labels) -> Self::Histogram;
}

pub(super) trait Count {
    fn add(&self, count: u64);
}

pub(super) trait Record {
    fn record(&self, value: f64);
}

/// The position of the first kind of error behind the other outcomes.
const FIRST_ERROR: usize = 6;

/// The number of different outcomes, with each kind of error. `Other` is the last kind.
const OUTCOMES: usize = FIRST_ERROR + ErrorKind::Other as usize + 1;

/// The number of kinds of operations. `Verify` is the last one.
const OPERATIONS: usize = OperationKind::Verify as usize + 1;

/// The instruments of one metric, which are made when they are first used.
struct Family<I> {
    metric: &'static Metric,
    slots: Box<[OnceLock<I>]>,
}

impl<I> Family<I> {
    fn new(metric: &'static Metric, slots: usize) -> Self {
        Self { metric, slots: (0..slots).map(|_| OnceLock::new()).collect() }
    }

    fn at(&self, slot: usize, make: impl FnOnce(&'static Metric) -> I) -> &I {
        self.slots[slot].get_or_init(|| make(self.metric))
    }
}

/// The instruments of all events.
pub(super) struct Recording<B: Backend> {
    pub(super) backend: B,
    durations: Family<B::Histogram>,
    payloads: Family<B::Histogram>,
    waits: Family<B::Histogram>,
    connect_times: Family<B::Histogram>,
    retries: B::Counter,
    created: B::Counter,
    renewed: B::Counter,
    unreadable: B::Counter,
    opened: B::Counter,
    connect_failed: B::Counter,
    ended: Vec<B::Counter>,
    conflicts: Vec<B::Counter>,
    closed: Vec<B::Counter>,
    circuit: Vec<B::Counter>,
}

impl<B: Backend> Recording<B> {
    /// Makes the counters, so that each begins with 0. Histograms are made with their first value.
    pub(super) fn new(backend: B) -> Self {
        let plain = |metric| backend.counter(metric, vec![]);
        let by = |metric, label, values: &[&'static str]| {
            values.iter().map(|value| backend.counter(metric, vec![(label, *value)])).collect()
        };
        Self {
            durations: Family::new(&metric::OPERATION_DURATION, OPERATIONS * OUTCOMES),
            payloads: Family::new(&metric::PAYLOAD, OPERATIONS),
            waits: Family::new(&metric::WAIT_TIME, 1),
            connect_times: Family::new(&metric::CREATE_TIME, 1),
            retries: plain(&metric::RETRIES),
            created: plain(&metric::CREATED),
            renewed: plain(&metric::RENEWED),
            unreadable: plain(&metric::UNREADABLE),
            opened: plain(&metric::OPENED),
            connect_failed: plain(&metric::CONNECT_FAILED),
            ended: by(&metric::ENDED, "reason", &EndCause::ALL.map(EndCause::as_str)),
            conflicts: by(&metric::CONFLICTS, "resolution", &Resolution::ALL.map(Resolution::as_str)),
            closed: by(&metric::CLOSED, "reason", &CloseReason::ALL.map(CloseReason::as_str)),
            circuit: by(&metric::CIRCUIT, "state", &CircuitState::ALL.map(CircuitState::as_str)),
            backend,
        }
    }

    pub(super) fn operation(&self, operation: &Operation) {
        let (kind, outcome) = (operation.kind, operation.outcome);
        let slot = kind as usize * OUTCOMES + slot(outcome);
        let durations = self.durations.at(slot, |metric| self.backend.histogram(metric, labels(kind, outcome)));
        durations.record(operation.duration.as_secs_f64());
        if let Some(bytes) = operation.payload {
            let label = vec![("db_operation_name", kind.as_str())];
            let payloads = self.payloads.at(kind as usize, |metric| self.backend.histogram(metric, label));
            payloads.record(bytes as f64);
        }
        if operation.waited > Duration::ZERO {
            let waits = self.waits.at(0, |metric| self.backend.histogram(metric, vec![]));
            waits.record(operation.waited.as_secs_f64());
        }
        if operation.retries > 0 {
            self.retries.add(operation.retries.into());
        }
    }

    pub(super) fn created(&self) {
        self.created.add(1);
    }

    pub(super) fn renewed(&self) {
        self.renewed.add(1);
    }

    pub(super) fn unreadable(&self) {
        self.unreadable.add(1);
    }

    pub(super) fn ended(&self, ended: &Ended<'_>) {
        self.ended[ended.reason as usize].add(ended.sessions);
    }

    pub(super) fn conflict(&self, conflict: &Conflict) {
        self.conflicts[conflict.resolution as usize].add(1);
    }

    pub(super) fn connection(&self, event: &ConnectionEvent<'_>) {
        match *event {
            ConnectionEvent::Opened { took, .. } => {
                self.opened.add(1);
                let times = self.connect_times.at(0, |metric| self.backend.histogram(metric, vec![]));
                times.record(took.as_secs_f64());
            }
            ConnectionEvent::Failed { .. } => self.connect_failed.add(1),
            ConnectionEvent::Closed { reason, .. } => self.closed[reason as usize].add(1),
        }
    }

    pub(super) fn circuit(&self, event: &CircuitEvent<'_>) {
        self.circuit[event.state as usize].add(1);
    }
}

fn slot(outcome: OperationOutcome) -> usize {
    match outcome {
        OperationOutcome::Done => 0,
        OperationOutcome::Absent => 1,
        OperationOutcome::Renewed => 2,
        OperationOutcome::Conflict => 3,
        OperationOutcome::Taken => 4,
        OperationOutcome::OverCap => 5,
        OperationOutcome::Failed(kind) => FIRST_ERROR + kind as usize,
    }
}

fn labels(kind: OperationKind, outcome: OperationOutcome) -> Labels {
    let error_type = outcome.error_type().map(|error| ("error_type", error));
    let labels = [("db_operation_name", kind.as_str()), ("outcome", outcome.as_str())];
    labels.into_iter().chain(error_type).collect()
}

/// Implements [`Observer`](super::Observer) for an exporter with a recording in its field `0`.
macro_rules! record_events {
    ($exporter:ty) => {
        impl $crate::Observer for $exporter {
            fn on_operation(&self, operation: &$crate::observer::Operation) {
                self.0.operation(operation);
            }

            fn on_created(&self, _: &$crate::observer::ObservedSession<'_>) {
                self.0.created();
            }

            fn on_renewed(&self, _: &$crate::observer::ObservedSession<'_>, _: &$crate::observer::ObservedSession<'_>) {
                self.0.renewed();
            }

            fn on_unreadable(&self, _: &$crate::observer::ObservedSession<'_>) {
                self.0.unreadable();
            }

            fn on_ended(&self, ended: &$crate::observer::Ended<'_>) {
                self.0.ended(ended);
            }

            fn on_conflict(&self, conflict: &$crate::observer::Conflict) {
                self.0.conflict(conflict);
            }

            fn on_connection(&self, event: &$crate::observer::ConnectionEvent<'_>) {
                self.0.connection(event);
            }

            fn on_circuit(&self, event: &$crate::observer::CircuitEvent<'_>) {
                self.0.circuit(event);
            }
        }
    };
}

pub(super) use record_events;

#[cfg(test)]
mod tests {
    use super::*;

    /// The position of a label is that of its counter.
    #[test]
    fn every_label_is_at_its_own_position() {
        assert!(EndCause::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(Resolution::ALL.iter().enumerate().all(|(at, resolution)| *resolution as usize == at));
        assert!(CloseReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
        assert!(CircuitState::ALL.iter().enumerate().all(|(at, state)| *state as usize == at));
        assert_eq!(slot(OperationOutcome::Failed(ErrorKind::Other)), OUTCOMES - 1);
        assert_eq!(slot(OperationOutcome::Failed(ErrorKind::Unavailable)), slot(OperationOutcome::OverCap) + 1);
    }
}
