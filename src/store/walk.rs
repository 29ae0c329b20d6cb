//! The walk over all sessions of a store: pages of names, and what a store knows of the sessions under them.
//!
//! [`AllSessions`](crate::AllSessions) uses it, and every store implements it. The invariant: a walk only reads, and no name of a
//! session, which can contain the id, reaches a text.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use super::Bytes;
use crate::{Error, Handle, Result};

/// The name by which a store finds a session that a [`walk`](super::SessionStore::walk) returned.
///
/// It can contain the session id, so `Debug` is redacted. Show the [handle](Self::handle).
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey {
    handle: Handle,
    partition: u32,
    name: Bytes,
}

impl SessionKey {
    /// Creates a name, for custom stores. `name` is any bytes by which the store finds the session again.
    pub fn new(handle: Handle, partition: u32, name: impl Into<Bytes>) -> Self {
        Self { handle, partition, name: name.into() }
    }

    /// Returns the handle of the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Returns the partition of the session: 0 in a store without partitions.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Returns the same name in another partition.
    pub(super) fn with_partition(&self, partition: u32) -> Self {
        Self { partition, ..self.clone() }
    }

    /// Returns the bytes that the store put there. They can be a secret.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("handle", &self.handle)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// A page of a [`walk`](super::SessionStore::walk).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeyPage {
    /// The sessions of the page. A page can be empty before the last one.
    pub keys: Vec<SessionKey>,
    /// How far the walk is after this page.
    pub progress: Progress,
}

impl KeyPage {
    /// Creates a page, for custom stores.
    pub fn new(keys: Vec<SessionKey>, progress: Progress) -> Self {
        Self { keys, progress }
    }
}

/// The pages of a [`walk`](super::SessionStore::walk). After an error, the walk is over.
pub type KeyPages<'a> = Box<dyn Iterator<Item = Result<KeyPage>> + Send + 'a>;

/// The progress of a long operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of entries or keys that the operation has looked at. Never more than `total`.
    pub done: u64,
    /// The number that it will look at, as far as the store knows. It grows if `done` would pass it, because sessions begin
    /// during the operation.
    pub total: u64,
}

impl Progress {
    /// Creates a progress of `done` out of `total`, or out of `done` if that is more.
    pub fn new(done: u64, total: u64) -> Self {
        Self { done, total: total.max(done) }
    }

    /// Returns the progress after `more` entries.
    pub(crate) fn after(self, more: u64) -> Self {
        Self::new(self.done + more, self.total)
    }
}

/// A callback of a long operation. The operation calls it between two steps, and stops if it returns [`ControlFlow::Break`].
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// A live session as a store has it; from [`snapshots`](super::SessionStore::snapshots).
#[non_exhaustive]
pub struct Snapshot {
    /// The name of the session.
    pub key: SessionKey,
    /// The encoded session, or the error of the [step](crate::Step) that could not restore it.
    pub payload: Result<Bytes>,
    /// How long the session lives if it is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
    /// The hash of the principal that the session belongs to, if the store keeps one.
    pub owner_hash: Option<String>,
}

impl Snapshot {
    /// Creates a snapshot of a session without an owner, for custom stores.
    pub fn new(key: SessionKey, payload: impl Into<Bytes>, expires_in: Option<Duration>) -> Self {
        Self { key, payload: Ok(payload.into()), expires_in, owner_hash: None }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("key", &self.key)
            .field("bytes", &self.payload.as_ref().map(|payload| payload.len()).ok())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// The result of an operation that ends all sessions, and that its caller may stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedAll {
    /// How many live sessions ended.
    pub ended: u64,
    /// `true` if the callback stopped the operation before it was done.
    pub interrupted: bool,
}

impl EndedAll {
    /// Creates a result, for custom stores.
    pub fn new(ended: u64, interrupted: bool) -> Self {
        Self { ended, interrupted }
    }
}

pub(super) fn unsupported(operation: &'static str) -> Error {
    Error::unsupported(operation, "the store cannot walk its sessions")
}
