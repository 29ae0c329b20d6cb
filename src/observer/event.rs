//! The events that observers get.
//!
//! The observed store, the manager and the pool of the Redis store make them. Invariant: no event holds an id, a payload or a
//! principal; a handle is computed only if an observer asks for it.

use std::fmt;
use std::time::Duration;

use crate::{ErrorKind, Handle, SessionId, SessionStore};

/// An operation of the store that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// The kind of operation.
    pub kind: OperationKind,
    /// The result.
    pub outcome: OperationOutcome,
    /// The time that the operation took, including steps, the wait for a connection and retries.
    pub duration: Duration,
    /// The size of the payload in bytes: as the manager wrote it, or as a read returned it. `None` if there was none.
    pub payload: Option<usize>,
    /// The time that the operation waited because no connection was idle. Zero unless the store is in Redis.
    pub waited: Duration,
    /// How often a command was sent again, because its connection died. Zero unless the store is in Redis.
    pub retries: u32,
}

/// The kind of an operation, by the method of [`SessionStore`] or [`SessionIndex`](crate::store::SessionIndex).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum OperationKind {
    Create,
    /// Also [`read_first`](SessionStore::read_first).
    Read,
    Save,
    Rotate,
    Delete,
    Companion,
    Reap,
    Count,
    Page,
    ListByPrincipal,
    /// The end of one, several or all sessions of a principal.
    End,
    EndEverybody,
    /// One page of a [`walk`](SessionStore::walk).
    Walk,
    Snapshots,
    EndKeys,
    Verify,
}

impl OperationKind {
    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Save => "save",
            Self::Rotate => "rotate",
            Self::Delete => "delete",
            Self::Companion => "companion",
            Self::Reap => "reap",
            Self::Count => "count",
            Self::Page => "page",
            Self::ListByPrincipal => "list_by_principal",
            Self::End => "end",
            Self::EndEverybody => "end_everybody",
            Self::Walk => "walk",
            Self::Snapshots => "snapshots",
            Self::EndKeys => "end_keys",
            Self::Verify => "verify",
        }
    }
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationOutcome {
    /// The operation did what it was for.
    Done,
    /// No live session has the id.
    Absent,
    /// A read found that the session moved to a new id a moment ago.
    Renewed,
    /// A write found another version than it expected.
    Conflict,
    /// A new session found another one under its id.
    Taken,
    /// A cap rejected the session of an owner.
    OverCap,
    /// The operation returned an error of this kind.
    Failed(ErrorKind),
}

impl OperationOutcome {
    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Absent => "absent",
            Self::Renewed => "renewed",
            Self::Conflict => "conflict",
            Self::Taken => "taken",
            Self::OverCap => "over_cap",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns the kind of error as metrics name it; `None` if the operation did not fail.
    pub fn error_type(self) -> Option<&'static str> {
        match self {
            Self::Failed(kind) => Some(kind.name()),
            _ => None,
        }
    }
}

/// A session that an event is about.
pub struct ObservedSession<'a> {
    store: &'a dyn SessionStore,
    id: &'a SessionId,
}

impl<'a> ObservedSession<'a> {
    pub(crate) fn new(store: &'a dyn SessionStore, id: &'a SessionId) -> Self {
        Self { store, id }
    }

    /// Computes the handle, under which logs and traces can name the session.
    pub fn handle(&self) -> Handle {
        self.store.handle(self.id)
    }
}

impl fmt::Debug for ObservedSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObservedSession").field(&self.handle()).finish()
    }
}

/// The end of one or several sessions.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended<'a> {
    /// The reason.
    pub reason: EndCause,
    /// The number of sessions that ended.
    pub sessions: u64,
    /// The session, if it is one and its id is known.
    pub session: Option<ObservedSession<'a>>,
}

impl<'a> Ended<'a> {
    pub(crate) fn new(reason: EndCause, sessions: u64, session: Option<ObservedSession<'a>>) -> Self {
        Self { reason, sessions, session }
    }
}

/// The reason why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// A request [destroyed](crate::Session::destroy) it.
    Destroyed,
    /// A request [reset](crate::Session::reset) it, which stores a new session in its place.
    Reset,
    /// A request that renewed or destroyed its session had a cookie of this one as well, or a sign-in replaced a session that
    /// could not be decoded.
    Superseded,
    /// It could not be decoded, and its visitor [discarded](crate::SessionManager::discard_unreadable) it.
    Discarded,
    /// A request found its [lifetime](crate::SessionManagerBuilder::lifetime) over.
    Lifetime,
    /// A reaper removed it, because its time had passed.
    Expired,
    /// [`SessionManager::end`](crate::SessionManager::end).
    End,
    /// [`SessionManager::end_others`](crate::SessionManager::end_others).
    EndOthers,
    /// [`SessionManager::end_all`](crate::SessionManager::end_all).
    EndAll,
    /// [`SessionManager::end_everybody`](crate::SessionManager::end_everybody), on a store with an index.
    EndEverybody,
    /// An operator ended it through [`AllSessions`](crate::AllSessions): by its handle, or with all sessions of a plain Redis
    /// store.
    Operator,
}

impl EndCause {
    pub(super) const ALL: [Self; 11] = [
        Self::Destroyed,
        Self::Reset,
        Self::Superseded,
        Self::Discarded,
        Self::Lifetime,
        Self::Expired,
        Self::End,
        Self::EndOthers,
        Self::EndAll,
        Self::EndEverybody,
        Self::Operator,
    ];

    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Reset => "reset",
            Self::Superseded => "superseded",
            Self::Discarded => "discarded",
            Self::Lifetime => "lifetime",
            Self::Expired => "expired",
            Self::End => "end",
            Self::EndOthers => "end_others",
            Self::EndAll => "end_all",
            Self::EndEverybody => "end_everybody",
            Self::Operator => "operator",
        }
    }
}

/// A save that met the change of another request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conflict {
    /// The resolution of the conflict.
    pub resolution: Resolution,
    /// The number of conflicts that this save met, at least 1.
    pub attempts: u32,
}

impl Conflict {
    pub(crate) fn new(resolution: Resolution, attempts: u32) -> Self {
        Self { resolution, attempts }
    }
}

/// The resolution of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// The change was merged into the stored version, or applied to it again, and stored.
    Merged,
    /// The change was not stored, and the caller got an error.
    Rejected,
    /// The request had changed nothing, so the stored version stays.
    Yielded,
    /// Another request ended or renewed the session while this one retried.
    Lost,
}

impl Resolution {
    pub(super) const ALL: [Self; 4] = [Self::Merged, Self::Rejected, Self::Yielded, Self::Lost];

    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Rejected => "rejected",
            Self::Yielded => "yielded",
            Self::Lost => "lost",
        }
    }
}

/// An event of a connection of the pool to Redis. The server is named as in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent<'a> {
    /// A connection was opened, and the server replied.
    #[non_exhaustive]
    Opened {
        /// The address of the server.
        server: &'a str,
        /// The time it took, with TLS and login.
        took: Duration,
    },
    /// An attempt to connect failed.
    #[non_exhaustive]
    Failed {
        /// The address of the server.
        server: &'a str,
    },
    /// A connection was closed.
    #[non_exhaustive]
    Closed {
        /// The address of the server.
        server: &'a str,
        /// The reason.
        reason: CloseReason,
    },
}

/// The reason why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The connection failed, or the application changed it.
    Spoiled,
    /// Another connection to the server failed, or there is another master, so the pool trusts no older connection.
    Suspect,
    /// The pool had no use for it: it was idle for long, reached its maximum age, or the pool was dropped.
    Retired,
}

impl CloseReason {
    pub(super) const ALL: [Self; 3] = [Self::Spoiled, Self::Suspect, Self::Retired];

    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spoiled => "spoiled",
            Self::Suspect => "suspect",
            Self::Retired => "retired",
        }
    }
}

/// A change of the circuit breaker of a Redis server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitEvent<'a> {
    /// The address of the server.
    pub server: &'a str,
    /// The new state.
    pub state: CircuitState,
}

impl<'a> CircuitEvent<'a> {
    pub(crate) fn new(server: &'a str, state: CircuitState) -> Self {
        Self { server, state }
    }
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Commands are sent.
    #[default]
    Closed,
    /// The server is reachable again. The next operation decides.
    HalfOpen,
    /// Operations fail fast.
    Open,
}

impl CircuitState {
    pub(super) const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Returns the name that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}
