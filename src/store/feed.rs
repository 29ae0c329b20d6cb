//! The feed of sessions that end, as stores offer it.
//!
//! The listener reads it. Invariant: a feed reports each end that is announced while it receives, and reports
//! [`EndNews::Ready`] each time after it may have missed one.

use std::time::Duration;

use crate::{Ended, Error, Result, operation};

/// A feed of the sessions that end, in all processes, from [`SessionStore::end_feed`](crate::SessionStore::end_feed).
///
/// The feed reconnects by itself whenever [`next`](Self::next) is called.
pub trait EndFeed: Send {
    /// Waits for the next end, up to about this long.
    ///
    /// # Errors
    ///
    /// Returns an error if the feed cannot receive. Call it again: the feed reports [`EndNews::Ready`] when it receives again.
    fn next(&mut self, wait: Duration) -> Result<EndNews>;
}

/// The outcome of [`EndFeed::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndNews {
    /// A session has ended.
    Ended(Ended),
    /// From now on the feed receives everything. It may have missed ends before.
    Ready,
    /// Nothing has ended.
    Quiet,
}

pub(super) fn unsupported() -> Error {
    let why = "the store announces no ends: build a Redis store with `announce_ends()`";
    Error::unsupported(operation::LISTEN_FOR_ENDS, why)
}
