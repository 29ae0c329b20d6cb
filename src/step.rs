//! Phases around every operation of a store (rrss *steps*).
//!
//! A [`Step`] sees an operation, may change it, passes it on, and acts on the way back. [`StepStore`] runs a chain of steps
//! around another store, and is a store itself: managers, reapers and adapters work on it as on any other.
//!
//! # The order
//!
//! **The last step is the outermost**, as in rrss: it sees an operation first, and its answer last. What it leaves in an
//! operation, the steps inside it see; what they leave there, it sees afterwards.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use threaded_sessions::step::on_write;
//! use threaded_sessions::{MemorySessionStore, SessionManager, StepStore};
//!
//! let seen = Arc::new(Mutex::new(Vec::new()));
//! let note = |name: &'static str| {
//!     let seen = seen.clone();
//!     on_write(move |operation, next| {
//!         seen.lock().unwrap().push(format!("before {name}"));
//!         let written = next.write(operation)?;
//!         seen.lock().unwrap().push(format!("after {name}"));
//!         Ok(written)
//!     })
//! };
//! let store = StepStore::builder(MemorySessionStore::new()).step(note("first")).step(note("last")).build()?;
//!
//! let sessions = SessionManager::<u32>::new(store);
//! let mut session = sessions.fresh();
//! *session += 1;
//! let _ = sessions.commit(session)?;
//! assert_eq!(*seen.lock().unwrap(), ["before last", "before first", "after first", "after last"]);
//! # Ok::<_, threaded_sessions::Error>(())
//! ```
//!
//! # Payloads
//!
//! A step that stores payloads in another form changes them in [`write`](Step::write) and changes them back in
//! [`restore`](Step::restore). Every payload that leaves the store goes through that: of reads, of conflicts, of sessions
//! that expired, of lists of a principal's sessions. So a step sees payloads as the steps outside it know them, wherever
//! they come from. [`Version`](crate::store::Version)s stay those of the innermost store.
//!
//! The [manager](crate::SessionManagerBuilder::read_back) reads back what a step has changed: before the store gets the
//! payload, all steps restore it and the codec decodes it. A payload that cannot be restored is rejected, and nothing is
//! stored.
//!
//! # Refusing
//!
//! A step that returns an error instead of passing the operation on refuses it, and nothing is done:
//!
//! ```
//! use threaded_sessions::step::on_write;
//! use threaded_sessions::{Error, ErrorKind, MemorySessionStore, Reason, StepStore};
//!
//! let limit = on_write(|operation, next| match operation.payload().len() {
//!     0..4096 => next.write(operation),
//!     _ => Err(Error::new(ErrorKind::Refused, "storing a session").with_source(Reason::new("it is too large"))),
//! });
//! let store = StepStore::builder(MemorySessionStore::new()).step(limit).build()?;
//! # let _ = store;
//! # Ok::<_, Error>(())
//! ```
//!
//! Steps see payloads, so the text of an error could quote one. The crate shows the text of the source of a step's error nowhere,
//! unless the source is a [`Reason`](crate::Reason) or the error comes from the store. Your program gets the source from
//! [`Error::downcast_ref`](crate::Error::downcast_ref).
//!
//! A step that panics is an error as well: of kind [`Refused`](crate::ErrorKind::Refused) if the store was not asked yet, and
//! of kind [`Other`](crate::ErrorKind::Other) afterwards, because the change is stored then. A step that panics while a list is
//! read, or while a reaper reports what expired, costs only the session that it panicked over.
//!
//! # What steps do not see
//!
//! Sessions that end because their principal has too many of them, or ends them, or because everybody's end: there the
//! store finds out by itself which they are. Counting and listing, except that payloads are [restored](Step::restore). Everything
//! else of the index is the store's own, too.

mod closure;
#[cfg(feature = "encryption")]
mod encrypted;
mod fenced;
mod operation;
mod store;
mod values;
mod written_at;

use std::fmt;

pub use self::closure::{OnDelete, OnRead, OnWrite, on_delete, on_read, on_write};
#[cfg(feature = "encryption")]
pub use self::encrypted::{Encrypted, EncryptionKey};
pub use self::operation::{DeleteOperation, Deleted, Next, ReadOperation, Subject, WriteKind, WriteOperation, Written};
pub use self::store::{StepStore, StepStoreBuilder};
pub use self::values::Values;
pub use self::written_at::WrittenAt;
use crate::Result;
use crate::store::{Bytes, Found};

/// A phase around every operation of a store. Each method passes on unless it is implemented. See the
/// [module](crate::step) for the order; [`WrittenAt`] and `Encrypted` (feature `encryption`) are examples to copy.
pub trait Step: fmt::Debug + Send + Sync + 'static {
    /// Around a read: [`next.read`](Next::read) runs the rest.
    ///
    /// # Errors
    ///
    /// Those of the rest, or the step's own, which refuse the operation: of the kind
    /// [`Refused`](crate::ErrorKind::Refused) unless another says more. This goes for all operations.
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        next.read(operation)
    }

    /// Around a creation, a save or a rotation: [`next.write`](Next::write) runs the rest.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        next.write(operation)
    }

    /// Around a delete, and around the news that a reaper removed an expired session: [`next.delete`](Next::delete) runs
    /// the rest. A reaped session is gone already; refusing then keeps nothing but the news from the application, and is
    /// logged.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        next.delete(operation)
    }

    /// Undoes what [`write`](Self::write) did to a payload. Without a copy, `payload.slice(4..)` is what stands behind a
    /// prefix, and `Bytes::from` takes a `Vec`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`](crate::ErrorKind::Payload) for a payload that the step did not write. A read or a save that
    /// met with it fails and changes nothing; a list leaves the session out.
    fn restore(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let _ = session;
        Ok(payload)
    }

    /// The suffixes of the [companions](crate::store::Companion) that this step writes, of letters, digits, `-` and `_`.
    /// Asked once, when the store is built.
    fn companions(&self) -> Vec<String> {
        Vec::new()
    }
}
