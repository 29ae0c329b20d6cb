//! The sessions of a principal in one partition, as a walk that changes all of them finds them.
//!
//! [`SessionManager::update_all`](crate::SessionManager::update_all) uses it, and stores with an index implement it. The invariant:
//! a session keeps its place in the walk when it is renewed.

use std::fmt;
use std::time::Duration;

use super::{Bytes, SessionKey, Version};
use crate::{Error, Result, operation};

/// A page of the sessions of a principal; from [`owned_after`](super::SessionIndex::owned_after).
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct OwnedPage {
    /// The live sessions of the page. A page can be empty before the last one.
    pub sessions: Vec<Owned>,
    /// Where the next page begins. `None`: the principal has no session in this partition beyond the page before.
    pub next: Option<u64>,
}

impl OwnedPage {
    /// Creates a page, for custom stores.
    pub fn new(sessions: Vec<Owned>, next: Option<u64>) -> Self {
        Self { sessions, next }
    }
}

/// A live session of a principal, with what it takes to change the session from outside.
#[non_exhaustive]
pub struct Owned {
    /// The name of the session.
    pub key: SessionKey,
    /// The encoded session, or the error of the [step](crate::Step) that could not restore it.
    pub payload: Result<Bytes>,
    /// The version to expect in a [`save_key`](super::SessionStore::save_key).
    pub version: Version,
    /// How long the session lives if it is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
    /// When the principal got the session, in milliseconds since 1970 on the clock of the store. It survives renewals, and no two
    /// sessions of a principal in one partition have the same time.
    pub since: u64,
}

impl Owned {
    /// Creates a session of a principal, for custom stores.
    pub fn new(
        key: SessionKey,
        payload: impl Into<Bytes>,
        version: Version,
        expires_in: Option<Duration>,
        since: u64,
    ) -> Self {
        Self { key, payload: Ok(payload.into()), version, expires_in, since }
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned")
            .field("key", &self.key)
            .field("bytes", &self.payload.as_ref().map(|payload| payload.len()).ok())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

pub(super) fn unsupported() -> Error {
    Error::unsupported(operation::UPDATE_ALL, "the store cannot change the sessions of a principal from outside")
}
