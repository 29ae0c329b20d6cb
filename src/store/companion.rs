//! Companions, the values that go with a session, and the rules for their suffixes.
//!
//! Steps write companions, and both stores check them here. A store keeps a companion only under a suffix that was declared
//! before.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, Result, operation};

/// A value that goes with a session without being in its payload: the time it was last written, say.
///
/// It is stored under a key of its own, the session's with a colon and the suffix behind it, and shares the session's
/// fate within the same command: it is written with it, gets its deadline at every touch, moves with it to a new id, and
/// goes when the session ends, however it ends. [`SessionStore::companion`](crate::SessionStore::companion) reads it.
///
/// All programs on the same sessions should know the same companions, that is, have the same steps: one that ends a session
/// without knowing its companions leaves them until their time has come.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Companion {
    /// Which of the session's companions it is.
    pub suffix: Cow<'static, str>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Companion {
    /// The companion with this suffix and value.
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
