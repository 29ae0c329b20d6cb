//! The rest of a chain of steps, with the store behind it.
//!
//! Every step gets a [`Next`] and passes its operation on with it. A payload that comes back is restored by the step that holds
//! the `Next`. So a step sees each payload in the form of the steps outside it.

use std::fmt;

use super::{DeleteOperation, Deleted, ReadOperation, Subject, WriteOperation, Written};
use crate::step::fenced::FencedStep;
use crate::store::{Bytes, Found, SessionStore, Stored};
use crate::{Error, Result};

/// The rest of the chain, and the store at its end. It can be run once.
pub struct Next<'a> {
    store: &'a dyn SessionStore,
    /// All steps. The outermost is the last.
    steps: &'a [FencedStep],
    /// The steps that have not run yet.
    rest: &'a [FencedStep],
    /// The step that holds this `Next`; `None` outside the outermost step.
    step: Option<&'a FencedStep>,
}

impl<'a> Next<'a> {
    pub(in crate::step) fn new(store: &'a dyn SessionStore, steps: &'a [FencedStep]) -> Self {
        Self { store, steps, rest: steps, step: None }
    }

    /// Reads the session.
    ///
    /// # Errors
    ///
    /// Returns the errors of the inner steps and of the store. All operations do.
    pub fn read(self, operation: &mut ReadOperation<'_>) -> Result<Found> {
        let found = match self.rest.split_last() {
            Some((step, rest)) => step.read(operation, self.within(step, rest))?,
            None => operation.execute(self.store).map_err(Error::vouched)?,
        };
        match found {
            Found::Live(stored) => Ok(Found::Live(self.restored(operation.subject(), stored)?)),
            other => Ok(other),
        }
    }

    /// Writes the session.
    pub fn write(self, operation: &mut WriteOperation<'_>) -> Result<Written> {
        let written = match self.rest.split_last() {
            Some((step, rest)) => step.write(operation, self.within(step, rest))?,
            None => {
                self.read_back(operation)?;
                operation.execute(self.store).map_err(Error::vouched)?
            }
        };
        match written {
            Written::Conflict(theirs) => Ok(Written::Conflict(self.restored(operation.replaced(), theirs)?)),
            other => Ok(other),
        }
    }

    /// Deletes the session, or passes on the report that it was reaped.
    pub fn delete(self, operation: &mut DeleteOperation<'_>) -> Result<Deleted> {
        let deleted = match self.rest.split_last() {
            Some((step, rest)) => step.delete(operation, self.within(step, rest))?,
            None => operation.execute(self.store).map_err(Error::vouched)?,
        };
        match (deleted.payload, self.step) {
            (Some(payload), Some(step)) => {
                let payload = Some(step.restore_within(operation.subject(), payload)?);
                Ok(Deleted { payload, ..deleted })
            }
            (payload, _) => Ok(Deleted { payload, ..deleted }),
        }
    }

    /// Restores a payload that steps have changed, and lets the manager read it back, before it is stored.
    fn read_back(&self, operation: &WriteOperation<'_>) -> Result<()> {
        let Some(manager) = operation.changed_for() else { return Ok(()) };
        let payload = Bytes::copy_from_slice(operation.payload());
        let restore = |payload, step: &FencedStep| step.restore(operation.subject(), payload);
        manager.read_back(&self.steps.iter().try_fold(payload, restore)?)
    }

    fn within(&self, step: &'a FencedStep, rest: &'a [FencedStep]) -> Self {
        Self { rest, step: Some(step), ..*self }
    }

    fn restored(&self, session: &Subject<'_>, stored: Stored) -> Result<Stored> {
        match self.step {
            Some(step) => Ok(Stored { payload: step.restore_within(session, stored.payload)?, ..stored }),
            None => Ok(stored),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Next").field(&self.rest).field(&self.store).finish()
    }
}
