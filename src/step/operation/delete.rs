//! A delete, or the news of a reaped session, on its way through the steps, and its outcome.
//!
//! [`StepStore`](crate::StepStore) makes one for each delete and for each session that a reaper removed. A reaped session has
//! no id, only a handle and a payload.

use std::fmt;

use super::Subject;
use crate::step::Values;
use crate::store::{Bytes, SessionStore};
use crate::{Handle, Result, SessionId};

/// A delete on its way through the steps, or the report of a reaped session.
pub struct DeleteOperation<'a> {
    subject: Subject<'a>,
    reaped: Option<Bytes>,
    values: Values,
    is_executed: bool,
}

impl<'a> DeleteOperation<'a> {
    pub(in crate::step) fn new(store: &'a dyn SessionStore, id: &SessionId) -> Self {
        Self { subject: Subject::known(store, id), reaped: None, values: Values::default(), is_executed: false }
    }

    pub(in crate::step) fn reaped(store: &'a dyn SessionStore, handle: Handle, payload: Bytes) -> Self {
        Self {
            subject: Subject::shown(store, handle),
            reaped: Some(payload),
            values: Values::default(),
            is_executed: false,
        }
    }

    /// Returns the id of the session; `None` if the session was reaped.
    pub fn id(&self) -> Option<&SessionId> {
        self.subject.id()
    }

    /// Returns the handle of the session.
    pub fn handle(&self) -> Handle {
        self.subject.handle()
    }

    /// Returns `true` if the session expired and is already removed. [`Next::delete`](super::Next::delete) then returns its
    /// payload.
    pub fn is_reaped(&self) -> bool {
        self.subject.id().is_none()
    }

    /// Returns the values that steps pass to each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }

    pub(super) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    /// Returns `true` if the store was asked to delete.
    pub(in crate::step) fn is_executed(&self) -> bool {
        self.is_executed
    }

    pub(super) fn execute(&mut self, store: &dyn SessionStore) -> Result<Deleted> {
        self.is_executed = true;
        match self.subject.id() {
            Some(id) => Ok(Deleted::new(store.delete(id)?)),
            None => Ok(Deleted { existed: true, payload: self.reaped.take() }),
        }
    }
}

impl fmt::Debug for DeleteOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteOperation")
            .field("subject", &self.subject)
            .field("is_reaped", &self.is_reaped())
            .field("values", &self.values)
            .finish()
    }
}

/// The outcome of a delete.
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct Deleted {
    /// `true` if there was a session.
    pub existed: bool,
    /// The payload of a reaped session. Without it, the application does not get the report that the session expired.
    pub payload: Option<Bytes>,
}

impl Deleted {
    /// Creates an outcome, for steps that delete without the store.
    pub fn new(existed: bool) -> Self {
        Self { existed, payload: None }
    }
}

impl fmt::Debug for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deleted").field("existed", &self.existed).finish_non_exhaustive()
    }
}
