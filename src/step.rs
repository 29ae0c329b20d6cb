//! Phases around every operation of a store (rrss *steps*).
//!
//! A [`Step`] sees an operation, may change it, passes it on, and sees its outcome. [`StepStore`] runs a chain of steps around
//! another store. It is a store itself, so managers, reapers and adapters use it as any other.
//!
//! # The order
//!
//! **The last step is the outermost**, as in rrss: it sees an operation first, and its outcome last. The steps inside it see the
//! changes that it makes to the operation before it passes it on. It sees their changes afterwards.
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
//! [`restore`](Step::restore). Every payload that the store returns passes through `restore`: those of reads, of conflicts, of
//! expired sessions, and of the sessions of a principal. So a step sees each payload in the form that the steps outside it wrote.
//! [`Version`](crate::store::Version)s stay those of the innermost store.
//!
//! The [manager](crate::SessionManagerBuilder::read_back) reads back a payload that a step has changed: before the store gets the
//! payload, all steps restore it and the codec decodes it. A payload that cannot be restored is rejected, and nothing is
//! stored.
//!
//! # Rejecting
//!
//! To reject an operation, return an error instead of passing the operation on. The store then does nothing:
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
//! If a step panics, the operation fails with [`Refused`](crate::ErrorKind::Refused). If the store had already executed a write or
//! a deletion, the operation fails with [`Other`](crate::ErrorKind::Other) instead, because the change is stored. If a step panics
//! while a list is read, or while a reaper reports expired sessions, only the session of that call is left out.
//!
//! # What steps do not see
//!
//! - Ends of sessions because their principal has too many of them or ends them, or because all sessions end. The store finds these
//!   sessions by itself.
//! - Counts and lists, except that payloads are [restored](Step::restore).
//! - All other operations of the index.

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

/// A phase around every operation of a store. Each method passes the operation on, unless it is implemented.
///
/// The [module](crate::step) describes the order. [`WrittenAt`] and `Encrypted` (feature `encryption`) are examples to copy.
pub trait Step: fmt::Debug + Send + Sync + 'static {
    /// Wraps a read; [`next.read`](Next::read) runs the rest of the chain.
    ///
    /// # Errors
    ///
    /// - Returns the errors of the rest of the chain.
    /// - Returns a custom error to reject the operation. Its kind is [`ErrorKind::Refused`](crate::ErrorKind::Refused), unless
    ///   another kind is more precise.
    ///
    /// The other operations return the same errors.
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        next.read(operation)
    }

    /// Wraps a creation, a save, a rotation or a change from outside; [`next.write`](Next::write) runs the rest of the chain.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read).
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        next.write(operation)
    }

    /// Wraps a delete, and the report of a session that a reaper removed; [`next.delete`](Next::delete) runs the rest of the
    /// chain.
    ///
    /// A reaped session is already removed. If a step rejects it, the application does not get the report, and a warning is
    /// logged.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read).
    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        next.delete(operation)
    }

    /// Reverts the change of [`write`](Self::write) to a payload.
    ///
    /// To avoid a copy, `payload.slice(4..)` returns the bytes after a prefix, and `Bytes::from` takes a `Vec`.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Payload`](crate::ErrorKind::Payload) if the step did not write the payload. A read or a save of
    /// this session then fails and changes nothing; a list leaves the session out.
    fn restore(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let _ = session;
        Ok(payload)
    }

    /// Returns the suffixes of the [companions](crate::store::Companion) that this step writes.
    ///
    /// A suffix has letters, digits, `-` and `_`. The method is called once, when the store is built.
    fn companions(&self) -> Vec<String> {
        Vec::new()
    }
}
