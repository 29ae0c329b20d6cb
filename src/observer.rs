//! Observers of operations, sessions and connections, for metrics and traces.
//!
//! Applications set an [`Observer`] with [`SessionManagerBuilder::observer`](crate::SessionManagerBuilder::observer). The module
//! has two observers. [`PrometheusText`] renders its counters as text, without any dependency.
//! `MetricsObserver` (feature `metrics`) feeds the recorder of the `metrics` crate. Both use the same names, which the
//! [guide to operating](crate::operating#metrics) lists.
//!
//! A manager without an observer runs no code of this module. No event holds an id, a payload or a principal.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use threaded_sessions::observer::Ended;
//! use threaded_sessions::{MemorySessionStore, Observer, SessionManager};
//!
//! #[derive(Default)]
//! struct SignOuts(AtomicU64);
//!
//! impl Observer for SignOuts {
//!     fn on_ended(&self, ended: &Ended<'_>) {
//!         self.0.fetch_add(ended.sessions, Ordering::Relaxed);
//!     }
//! }
//!
//! let sign_outs = Arc::new(SignOuts::default());
//! let sessions =
//!     SessionManager::<u32>::builder(MemorySessionStore::new()).observer(sign_outs.clone()).build()?;
//!
//! let mut session = sessions.open(None)?;
//! *session += 1;
//! let id = *sessions.commit(session)?.id().expect("it is stored");
//! let mut session = sessions.open_id(&id)?.expect("it lives");
//! session.destroy();
//! let _ = sessions.commit(session)?;
//! assert_eq!(sign_outs.0.load(Ordering::Relaxed), 1);
//! # Ok::<_, threaded_sessions::Error>(())
//! ```

pub(crate) mod effort;
mod event;
mod gauges;
mod metric;
#[cfg(feature = "metrics")]
mod metrics;
mod prometheus;
mod recording;
mod store;

use std::fmt;
use std::ptr;
use std::sync::{Arc, RwLock, Weak};

pub use self::event::{
    CircuitEvent, CircuitState, CloseReason, Conflict, ConnectionEvent, EndCause, Ended, ObservedSession, Operation,
    OperationKind, OperationOutcome, Resolution,
};
pub use self::gauges::Gauges;
#[cfg(feature = "metrics")]
pub use self::metrics::MetricsObserver;
pub use self::prometheus::PrometheusText;
pub(crate) use self::store::ObservedStore;
use crate::{fence, sync};

/// A receiver of events. Each method does nothing unless it is implemented.
///
/// The methods run in the thread of the event: of a request, of the reaper, or of the pool. So they must not block. If a method
/// panics, the event is lost, and the operation continues.
pub trait Observer: Send + Sync + 'static {
    /// Receives an operation of the store that has ended.
    fn on_operation(&self, operation: &Operation) {
        let _ = operation;
    }

    /// Receives a new session, after it was stored.
    fn on_created(&self, session: &ObservedSession<'_>) {
        let _ = session;
    }

    /// Receives a session that moved to a new id.
    fn on_renewed(&self, from: &ObservedSession<'_>, to: &ObservedSession<'_>) {
        let _ = (from, to);
    }

    /// Receives the end of one or several sessions.
    ///
    /// Two ends are not reported: an end by the cap on the sessions of a principal, which happens in the store, and an end by
    /// [`SessionStore::delete`](crate::SessionStore::delete), which is an operation.
    fn on_ended(&self, ended: &Ended<'_>) {
        let _ = ended;
    }

    /// Receives a session that a request could not decode. Each such request is an event.
    fn on_unreadable(&self, session: &ObservedSession<'_>) {
        let _ = session;
    }

    /// Receives a save that met the change of another request.
    fn on_conflict(&self, conflict: &Conflict) {
        let _ = conflict;
    }

    /// Receives a connection to Redis that was opened or closed, or could not be opened.
    fn on_connection(&self, event: &ConnectionEvent<'_>) {
        let _ = event;
    }

    /// Receives a change of the circuit breaker of a Redis server.
    fn on_circuit(&self, event: &CircuitEvent<'_>) {
        let _ = event;
    }
}

/// The observers of a manager.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Observer>> {
        self.0.iter()
    }

    /// Passes an event to each observer. A panic ends at the fence.
    pub(crate) fn tell(&self, event: impl Fn(&dyn Observer)) {
        for observer in &self.0 {
            fence::call(|| event(&**observer));
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").field("count", &self.0.len()).finish()
    }
}

/// The observers of a pool, which several managers may share. A manager that is dropped takes its observers with it.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<RwLock<Vec<Weak<dyn Observer>>>>);

impl Watchers {
    /// Adds an observer, unless it is there already because another manager brought it.
    pub(crate) fn add(&self, observer: &Arc<dyn Observer>) {
        let mut watchers = sync::write(&self.0);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        if !watchers.iter().any(|watcher| ptr::addr_eq(watcher.as_ptr(), Arc::as_ptr(observer))) {
            watchers.push(Arc::downgrade(observer));
        }
    }

    /// Passes an event to each observer, without a lock. A panic ends at the fence.
    pub(crate) fn tell(&self, event: impl Fn(&dyn Observer)) {
        let watchers: Vec<Arc<dyn Observer>> = sync::read(&self.0).iter().filter_map(Weak::upgrade).collect();
        for watcher in watchers {
            fence::call(|| event(&*watcher));
            // The last reference may be this one, and the observer's `drop` is code of the application.
            fence::call(|| drop(watcher));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Observer for Counting {
        fn on_circuit(&self, _: &CircuitEvent<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(watchers: &Watchers) {
        watchers.tell(|observer| observer.on_circuit(&CircuitEvent::new("nowhere", CircuitState::Open)));
    }

    #[test]
    fn shared_pool_reports_once_to_each_observer() {
        let (watchers, counting) = (Watchers::default(), Arc::new(Counting::default()));
        let observer: Arc<dyn Observer> = counting.clone();
        watchers.add(&observer);
        watchers.add(&observer);
        watchers.clone().add(&(counting.clone() as _));
        tell(&watchers);
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn pool_keeps_no_observer_alive() {
        let (watchers, counting) = (Watchers::default(), Arc::new(Counting::default()));
        watchers.add(&(counting.clone() as _));
        let left = Arc::downgrade(&counting);
        drop(counting);
        tell(&watchers);
        assert!(left.upgrade().is_none());
        watchers.add(&(Arc::new(Counting::default()) as _));
        assert_eq!(sync::read(&watchers.0).len(), 1);
    }
}
