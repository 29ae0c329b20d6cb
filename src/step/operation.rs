//! Operations as they pass through a chain of steps: one file for each kind, and one for the rest of the chain.
//!
//! Steps read and change operations. Only the innermost [`Next`] executes an operation on the store.

mod delete;
mod next;
mod read;
mod subject;
mod write;

pub use self::delete::{DeleteOperation, Deleted};
pub use self::next::Next;
pub use self::read::ReadOperation;
pub use self::subject::Subject;
pub use self::write::{WriteKind, WriteOperation, Written};
