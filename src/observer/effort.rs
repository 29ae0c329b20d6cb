//! The effort of an operation: how long it waited for a connection, and how often it was retried.
//!
//! The observed store measures it around an operation; the pool adds to it in the same thread. Invariant: without an observer,
//! the pool reads no clock for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    /// Present while an operation of this thread is measured.
    static EFFORT: Cell<Option<Effort>> = const { Cell::new(None) };
}

/// The effort of one operation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    pub(crate) waited: Duration,
    pub(crate) retries: u32,
}

/// Restores the effort of the operation around this one, also if this one panics.
struct Restore(Option<Effort>);

impl Drop for Restore {
    fn drop(&mut self) {
        EFFORT.set(self.0);
    }
}

/// Runs an operation, and returns its effort as well.
pub(crate) fn measure<R>(operation: impl FnOnce() -> R) -> (R, Effort) {
    let _restore = Restore(EFFORT.replace(Some(Effort::default())));
    let result = operation();
    (result, EFFORT.get().unwrap_or_default())
}

/// A wait for a connection, which ends when this is dropped.
pub(crate) struct Wait(Option<Instant>);

impl Wait {
    pub(crate) fn begin() -> Self {
        Self(EFFORT.get().map(|_| Instant::now()))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let (Some(began), Some(effort)) = (self.0, EFFORT.get()) {
            EFFORT.set(Some(Effort { waited: effort.waited + began.elapsed(), ..effort }));
        }
    }
}

/// Counts a retry of the operation of this thread.
pub(crate) fn on_retry() {
    if let Some(effort) = EFFORT.get() {
        EFFORT.set(Some(Effort { retries: effort.retries + 1, ..effort }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_operation_leaves_outer_effort_alone() {
        let ((), outer) = measure(|| {
            on_retry();
            let ((), inner) = measure(|| (0..2).for_each(|_| on_retry()));
            assert_eq!(inner.retries, 2);
        });
        assert_eq!(outer, Effort { waited: Duration::ZERO, retries: 1 });
    }

    #[test]
    fn unobserved_wait_reads_no_clock() {
        assert!(Wait::begin().0.is_none());
        let ((), effort) = measure(|| drop(Wait::begin()));
        assert!(effort.waited > Duration::ZERO);
        on_retry();
        assert_eq!(EFFORT.get(), None);
    }
}
