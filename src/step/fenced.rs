//! [`FencedStep`], a step of the application as the chain calls it.
//!
//! [`StepStore`](crate::StepStore) wraps every step once, when it is built. The invariant: no panic of a step passes, and no
//! text of its errors.

use std::any::type_name;
use std::fmt;

use super::{DeleteOperation, Deleted, Next, ReadOperation, Step, Subject, WriteOperation, Written};
use crate::store::{Bytes, Found};
use crate::{Error, ErrorKind, Reason, Result, fence, operation};

/// A step that turns panics into errors, and hides the texts of errors.
pub(super) struct FencedStep {
    step: Box<dyn Step>,
    /// The name of the type, for error texts.
    name: &'static str,
}

impl FencedStep {
    pub(super) fn new<S: Step>(step: S) -> Self {
        Self { step: Box::new(step), name: type_name::<S>() }
    }

    pub(super) fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        let found = fence::call(|| self.step.read(operation, next));
        self.fenced(found, ErrorKind::Refused, operation::READ)
    }

    pub(super) fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        let written = fence::call(|| self.step.write(operation, next));
        self.fenced(written, kind_of_panic(operation.is_executed()), operation::SAVE)
    }

    pub(super) fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        let deleted = fence::call(|| self.step.delete(operation, next));
        self.fenced(deleted, kind_of_panic(operation.is_executed()), operation::DELETE)
    }

    /// Restores a payload outside an operation.
    pub(super) fn restore(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let restored = fence::call(|| self.step.restore(session, payload));
        self.fenced(restored, ErrorKind::Payload, operation::RESTORE)
    }

    /// Restores a payload within an operation that this step has passed on. A panic ends at the fence of the operation.
    pub(super) fn restore_within(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        self.step.restore(session, payload).map_err(|error| self.hide(error))
    }

    /// Asks for companions, while the store is built. A panic passes on to the caller.
    pub(super) fn companions(&self) -> Vec<String> {
        self.step.companions()
    }

    /// Returns the result of a call; an error of this kind if the step panicked.
    fn fenced<R>(&self, result: Option<Result<R>>, kind: ErrorKind, operation: &'static str) -> Result<R> {
        match result {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(self.hide(error)),
            None => Err(self.panicked(kind, operation)),
        }
    }

    #[cold]
    fn hide(&self, error: Error) -> Error {
        error.fenced(format!("the step {} failed", self.name))
    }

    #[cold]
    fn panicked(&self, kind: ErrorKind, operation: &'static str) -> Error {
        let why = format!("the step {} panicked", self.name);
        Error::new(kind, operation).with_source(Reason::computed(why))
    }
}

/// A step that panics before the store did anything has refused the operation.
fn kind_of_panic(is_executed: bool) -> ErrorKind {
    if is_executed { ErrorKind::Other } else { ErrorKind::Refused }
}

impl fmt::Debug for FencedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.fmt(f)
    }
}
