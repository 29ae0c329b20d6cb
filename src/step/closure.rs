//! Steps from plain closures (rrss `create-read-step`, `create-write-step`, `create-delete-step`).
//!
//! Applications use them for a step without state. Invariant: a step of a closure sees one kind of operation and passes the
//! others on.

use std::fmt;

use super::{DeleteOperation, Deleted, Next, ReadOperation, Step, WriteOperation, Written};
use crate::Result;
use crate::store::Found;

/// Creates a step around reads from a closure.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::on_read;
/// use threaded_sessions::{MemorySessionStore, StepStore};
///
/// let log = on_read(|operation, next| {
///     let found = next.read(operation);
///     println!("read {}: {}", operation.handle(), found.is_ok());
///     found
/// });
/// let store = StepStore::builder(MemorySessionStore::new()).step(log).build()?;
/// # let _ = store;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub fn on_read<F>(step: F) -> OnRead<F>
where
    F: Fn(&mut ReadOperation<'_>, Next<'_>) -> Result<Found> + Send + Sync + 'static,
{
    OnRead(step)
}

/// Creates a step around creations, saves, rotations and changes from outside, from a closure.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use threaded_sessions::step::on_write;
/// use threaded_sessions::{MemorySessionStore, SessionManager, StepStore};
///
/// let hour = Duration::from_secs(3600);
/// let shorten = on_write(move |operation, next| {
///     operation.set_ttl(hour);
///     next.write(operation)
/// });
/// let store = StepStore::builder(MemorySessionStore::new()).step(shorten).build()?;
/// let sessions = SessionManager::<u32>::new(store);
/// # let _ = sessions;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub fn on_write<F>(step: F) -> OnWrite<F>
where
    F: Fn(&mut WriteOperation<'_>, Next<'_>) -> Result<Written> + Send + Sync + 'static,
{
    OnWrite(step)
}

/// Creates a step around deletes, and around the reports of reaped sessions, from a closure.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::on_delete;
/// use threaded_sessions::{MemorySessionStore, StepStore};
///
/// let log = on_delete(|operation, next| {
///     println!("{} {}", operation.handle(), if operation.is_reaped() { "expired" } else { "ended" });
///     next.delete(operation)
/// });
/// let store = StepStore::builder(MemorySessionStore::new()).step(log).build()?;
/// # let _ = store;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub fn on_delete<F>(step: F) -> OnDelete<F>
where
    F: Fn(&mut DeleteOperation<'_>, Next<'_>) -> Result<Deleted> + Send + Sync + 'static,
{
    OnDelete(step)
}

/// A step around reads; from [`on_read`].
#[derive(Clone, Copy)]
pub struct OnRead<F>(F);

/// A step around writes; from [`on_write`].
#[derive(Clone, Copy)]
pub struct OnWrite<F>(F);

/// A step around deletes; from [`on_delete`].
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
