//! Steps from plain closures (rrss `create-read-step`, `create-write-step`, `create-delete-step`).

use std::fmt;

use super::{DeleteOperation, Deleted, Next, ReadOperation, Step, WriteOperation, Written};
use crate::Result;
use crate::store::Found;

/// A step around reads.
pub fn on_read<F>(step: F) -> OnRead<F>
where
    F: Fn(&mut ReadOperation<'_>, Next<'_>) -> Result<Found> + Send + Sync + 'static,
{
    OnRead(step)
}

/// A step around creations, saves and rotations.
pub fn on_write<F>(step: F) -> OnWrite<F>
where
    F: Fn(&mut WriteOperation<'_>, Next<'_>) -> Result<Written> + Send + Sync + 'static,
{
    OnWrite(step)
}

/// A step around deletes, and around the news that a session was reaped.
pub fn on_delete<F>(step: F) -> OnDelete<F>
where
    F: Fn(&mut DeleteOperation<'_>, Next<'_>) -> Result<Deleted> + Send + Sync + 'static,
{
    OnDelete(step)
}

/// From [`on_read`].
#[derive(Clone, Copy)]
pub struct OnRead<F>(F);

/// From [`on_write`].
#[derive(Clone, Copy)]
pub struct OnWrite<F>(F);

/// From [`on_delete`].
#[derive(Clone, Copy)]
pub struct OnDelete<F>(F);

impl<F> Step for OnRead<F>
where
    F: Fn(&mut ReadOperation<'_>, Next<'_>) -> Result<Found> + Send + Sync + 'static,
{
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        self.0(operation, next)
    }
}

impl<F> Step for OnWrite<F>
where
    F: Fn(&mut WriteOperation<'_>, Next<'_>) -> Result<Written> + Send + Sync + 'static,
{
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        self.0(operation, next)
    }
}

impl<F> Step for OnDelete<F>
where
    F: Fn(&mut DeleteOperation<'_>, Next<'_>) -> Result<Deleted> + Send + Sync + 'static,
{
    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        self.0(operation, next)
    }
}

impl<F> fmt::Debug for OnRead<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRead(..)")
    }
}

impl<F> fmt::Debug for OnWrite<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnWrite(..)")
    }
}

impl<F> fmt::Debug for OnDelete<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDelete(..)")
    }
}
