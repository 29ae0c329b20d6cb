//! A read on its way through the steps.
//!
//! [`StepStore`](crate::StepStore) makes one for each read. Steps may change the touch, but never the session.

use super::Subject;
use crate::step::Values;
use crate::store::{Found, SessionStore, Touch};
use crate::{Handle, Result, SessionId};

/// A read on its way through the steps.
#[derive(Debug)]
pub struct ReadOperation<'a> {
    id: SessionId,
    subject: Subject<'a>,
    touch: Touch,
    values: Values,
}

impl<'a> ReadOperation<'a> {
    pub(in crate::step) fn new(store: &'a dyn SessionStore, id: &SessionId, touch: Touch) -> Self {
        Self { id: *id, subject: Subject::known(store, id), touch, values: Values::default() }
    }

    /// Returns the id of the session.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the handle of the session.
    pub fn handle(&self) -> Handle {
        self.subject.handle()
    }

    /// Returns the effect of the read on the deadline.
    pub fn touch(&self) -> Touch {
        self.touch
    }

    /// Sets the effect of the read on the deadline.
    pub fn set_touch(&mut self, touch: Touch) {
        self.touch = touch;
    }

    /// Returns the values that steps pass to each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }

    pub(super) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    pub(super) fn execute(&self, store: &dyn SessionStore) -> Result<Found> {
        store.read(&self.id, self.touch)
    }
}
