//! The process that created a pool or a thread.
//!
//! After `fork`, the child has a copy of everything but the threads. It shares the sockets with its parent, and a lock that
//! another thread held at the fork stays locked for ever. So connections, pools, reapers, listeners and near caches compare the
//! process before they touch either.
//!
//! Invariant: the comparison takes no lock. It costs one `getpid`.

use std::process;

use crate::{Error, Result};

/// The process in which a value was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(u32);

/// Why a store of the parent, or a thread on it, cannot work in the child.
pub(crate) const FORKED: &str = "the store was created before fork; create it in the child";

impl Origin {
    /// Returns the current process.
    pub(crate) fn here() -> Self {
        Self(process::id())
    }

    /// Returns `true` in the process that created the value.
    pub(crate) fn is_here(self) -> bool {
        self == Self::here()
    }

    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) in a child of the process.
    pub(crate) fn check(self, operation: &'static str) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(Error::misconfigured(operation, FORKED)) }
    }
}
