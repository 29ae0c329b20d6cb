//! The end of a session, and the reason for it.
//!
//! Stores read both from their announcements and notes. A listener passes the end to the application, and a later request gets
//! the reason from its [`Session`](crate::Session). Invariant: an end names sessions by their handles only.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::Handle;

/// A session that has ended, or has a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ended {
    /// The handle of the session that is over.
    pub handle: Handle,
    /// The reason why it is over.
    pub reason: EndReason,
    /// The handle under which the session continues, if it was renewed and the new handle is known.
    pub successor: Option<Handle>,
}

impl Ended {
    /// Creates the end of a session, for custom stores.
    pub fn new(handle: Handle, reason: EndReason) -> Self {
        Self { handle, reason, successor: None }
    }

    /// Sets the handle under which a renewed session continues.
    pub fn with_successor(self, successor: Handle) -> Self {
        Self { successor: Some(successor), ..self }
    }
}

/// The reason why a session is over.
///
/// It serializes as its text: `destroyed`, `renewed`, `ended`, `cap`, `expired` or `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Its visitor signed out, or the program deleted it by its id.
    ///
    /// A request that finds a session whose [lifetime](crate::SessionManagerBuilder::lifetime) is over deletes it as well.
    Destroyed,
    /// It has a new id, under which it continues.
    Renewed,
    /// A person or a program ended it from elsewhere: one session, all of a principal, or all sessions of the store.
    Ended,
    /// Its principal signed in once more than the cap on their sessions allows.
    Cap,
    /// It was idle for too long.
    Expired,
    /// It is gone, and the reason is not known: the end was not announced, or its announcement was lost.
    Unknown,
}

impl EndReason {
    /// All reasons that a store notes.
    const NOTED: [Self; 5] = [Self::Destroyed, Self::Renewed, Self::Ended, Self::Cap, Self::Expired];

    fn text(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Renewed => "renewed",
            Self::Ended => "ended",
            Self::Cap => "cap",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a reason that a script noted. A reason of a later version is unknown.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        Self::NOTED.into_iter().find(|reason| reason.text().as_bytes() == text).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for EndReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_read_back_from_its_text() {
        for reason in EndReason::NOTED {
            assert_eq!(EndReason::of_text(reason.to_string().as_bytes()), reason);
        }
        assert_eq!(EndReason::of_text(b"evicted"), EndReason::Unknown);
    }
}
