//! The life of sessions, as observers see it.
//!
//! `commit`, `save`, `load`, `discard` and `principals` report here after the store has done its part. Invariant: a manager
//! without observers computes nothing.

use super::Inner;
use super::save::SaveOutcome;
use crate::observer::{Conflict, EndCause, Ended, ObservedSession, Resolution};
use crate::{Result, SessionId};

impl<T: 'static> Inner<T> {
    fn observed<'a>(&'a self, id: &'a SessionId) -> ObservedSession<'a> {
        ObservedSession::new(&*self.store, id)
    }

    pub(super) fn report_created(&self, id: &SessionId) {
        self.observers.tell(|observer| observer.on_created(&self.observed(id)));
    }

    pub(super) fn report_renewed(&self, from: &SessionId, to: &SessionId) {
        self.observers.tell(|observer| observer.on_renewed(&self.observed(from), &self.observed(to)));
    }

    pub(super) fn report_unreadable(&self, id: &SessionId) {
        self.observers.tell(|observer| observer.on_unreadable(&self.observed(id)));
    }

    /// Deletes a session and reports its end, unless there was none. Returns `true` if there was one.
    pub(super) fn delete_for(&self, id: &SessionId, reason: EndCause) -> Result<bool> {
        let existed = self.store.delete(id)?;
        if existed {
            self.report_ended(id, reason);
        }
        Ok(existed)
    }

    pub(super) fn report_ended(&self, id: &SessionId, reason: EndCause) {
        self.observers.tell(|observer| observer.on_ended(&Ended::new(reason, 1, Some(self.observed(id)))));
    }

    /// Reports the end of several sessions, unless there were none.
    pub(super) fn report_all_ended(&self, sessions: u64, reason: EndCause) {
        if sessions > 0 {
            self.observers.tell(|observer| observer.on_ended(&Ended::new(reason, sessions, None)));
        }
    }

    /// Reports what became of a save that met `attempts` conflicts.
    pub(super) fn report_conflict(&self, attempts: u32, yields: bool, saved: &Result<SaveOutcome>) {
        let resolution = match saved {
            Ok(SaveOutcome::Stored(..)) => Resolution::Merged,
            Ok(SaveOutcome::Conflict) if yields => Resolution::Yielded,
            Ok(SaveOutcome::Conflict | SaveOutcome::OverCap) | Err(_) => Resolution::Rejected,
            Ok(SaveOutcome::Missing | SaveOutcome::Ended) => Resolution::Lost,
        };
        self.observers.tell(|observer| observer.on_conflict(&Conflict::new(resolution, attempts)));
    }
}
