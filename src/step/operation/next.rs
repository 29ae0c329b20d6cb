//! The rest of a chain of steps, with the store behind it.
//!
//! Every step gets a [`Next`] and passes its operation on with it. A payload that comes back is restored by the step that holds
//! the `Next`, so a step sees each payload in the form that the steps outside it wrote.

use std::fmt;

use super::{DeleteOperation, Deleted, ReadOperation, Subject, WriteOperation, Written};
use crate::Result;
use crate::step::Step;
use crate::store::{Found, SessionStore, Stored};

/// The rest of the chain, and the store behind it. It can be run once.
pub struct Next<'a> {
    store: &'a dyn SessionStore,
    /// The steps that have not run yet. The outermost is the last.
    rest: &'a [Box<dyn Step>],
    /// The step that holds this `Next`; `None` outside the outermost step.
    step: Option<&'a dyn Step>,
}

impl<'a> Next<'a> {
    pub(in crate::step) fn new(store: &'a dyn SessionStore, steps: &'a [Box<dyn Step>]) -> Self {
        Self { store, rest: steps, step: None }
    }

    /// Reads the session.
    ///
    /// # Errors
    ///
    /// Those of the steps inside, and of the store. This goes for all operations.
    pub fn read(self, operation: &mut ReadOperation<'_>) -> Result<Found> {
        let found = match self.rest.split_last() {
            Some((step, rest)) => step.read(operation, self.within(&**step, rest))?,
            None => operation.execute(self.store)?,
        };
        match found {
            Found::Live(stored) => Ok(Found::Live(self.restored(operation.subject(), stored)?)),
            other => Ok(other),
        }
    }

    /// Writes the session.
    pub fn write(self, operation: &mut WriteOperation<'_>) -> Result<Written> {
        let written = match self.rest.split_last() {
            Some((step, rest)) => step.write(operation, self.within(&**step, rest))?,
            None => operation.execute(self.store)?,
        };
        match written {
            Written::Conflict(theirs) => Ok(Written::Conflict(self.restored(operation.replaced(), theirs)?)),
            other => Ok(other),
        }
    }

    /// Deletes the session, or takes note that it was reaped.
    pub fn delete(self, operation: &mut DeleteOperation<'_>) -> Result<Deleted> {
        let deleted = match self.rest.split_last() {
            Some((step, rest)) => step.delete(operation, self.within(&**step, rest))?,
            None => operation.execute(self.store)?,
        };
        match (deleted.payload, self.step) {
            (Some(payload), Some(step)) => {
                let payload = Some(step.restore(operation.subject(), payload)?);
                Ok(Deleted { payload, ..deleted })
            }
            (payload, _) => Ok(Deleted { payload, ..deleted }),
        }
    }

    fn within(&self, step: &'a dyn Step, rest: &'a [Box<dyn Step>]) -> Self {
        Self { store: self.store, rest, step: Some(step) }
    }

    fn restored(&self, session: &Subject<'_>, stored: Stored) -> Result<Stored> {
        match self.step {
            Some(step) => Ok(Stored { payload: step.restore(session, stored.payload)?, ..stored }),
            None => Ok(stored),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Next").field(&self.rest).field(&self.store).finish()
    }
}
