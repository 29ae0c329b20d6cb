//! Companions, the values that go with a session, and the rules for their suffixes.
//!
//! Steps write companions, and both stores check them here. A store keeps a companion only under a suffix that was declared
//! before.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, Result, operation};

/// A value that is stored with a session but not in its payload, such as the time of its last write.
///
/// The store keeps it under a separate key: the key of the session, a colon, and the suffix. The same command changes both,
/// so the companion is written with the session, gets the session's deadline at every touch, moves with the session to a new
/// id, and ends with the session, whatever ends it. [`SessionStore::companion`](crate::SessionStore::companion) reads it.
///
/// Give all programs on the same sessions the same companions, that is, the same steps. If a program does not know the
/// companions of a session and ends it, the companions stay until their TTL has passed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Companion {
    /// The suffix that distinguishes the companions of a session.
    pub suffix: Cow<'static, str>,
    /// The value.
    pub value: Vec<u8>,
}

impl Companion {
    /// Creates a companion with this suffix and value.
    pub fn new(suffix: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) -> Self {
        Self { suffix: suffix.into(), value: value.into() }
    }
}

impl fmt::Debug for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Companion").field("suffix", &self.suffix).field("bytes", &self.value.len()).finish()
    }
}

/// Adds suffixes to those that a store keeps.
pub(super) fn keep(kept: &mut Vec<String>, suffixes: &[String]) -> Result<()> {
    for suffix in suffixes {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let why = if suffix.is_empty() || !suffix.chars().all(plain) {
            "is not made of letters, digits, - and _"
        } else if suffix == "renewed" {
            "is reserved for the tombstone of a renewed session"
        } else if suffix == "ended" {
            "is reserved for the reason why a session ended"
        } else if kept.contains(suffix) {
            "is in use already"
        } else {
            kept.push(suffix.clone());
            continue;
        };
        let why = format!("the suffix {suffix:?} {why}");
        return Err(Error::misconfigured(operation::KEEP_COMPANIONS, why));
    }
    Ok(())
}

/// Rejects a write with a companion that the store does not keep, because it would outlive its session.
pub(super) fn check_kept(kept: &[String], companions: &[Companion]) -> Result<()> {
    match companions.iter().find(|companion| !kept.iter().any(|suffix| *suffix == companion.suffix)) {
        None => Ok(()),
        Some(Companion { suffix, .. }) => {
            let why = format!("the suffix {suffix:?} was not declared");
            Err(Error::unsupported(operation::WRITE_COMPANION, why))
        }
    }
}

pub(super) fn unsupported(operation: &'static str) -> Error {
    Error::unsupported(operation, "this store keeps no companions")
}
