//! A creation, a save or a rotation on its way through the steps, and its outcome.
//!
//! [`StepStore`](crate::StepStore) makes one for each write. Steps may change payload, TTL and companions, but never the
//! session, its owner or the expected version.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Subject;
use crate::step::Values;
use crate::store::{Bind, Companion, Created, ReadBack, Saved, SessionKey, SessionStore, Stored, Version, Write};
use crate::{Handle, Result, SessionId};

/// A write on its way through the steps.
pub struct WriteOperation<'a> {
    kind: WriteKind,
    target: Target<'a>,
    subject: Subject<'a>,
    replaced: Option<Subject<'a>>,
    payload: Cow<'a, [u8]>,
    ttl: Option<Duration>,
    bind: Bind<'a>,
    companions: Vec<Companion>,
    values: Values,
    read_back: Option<&'a dyn ReadBack>,
    is_executed: bool,
}

/// The session that is written, and the version that it must have.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// The session with this id.
    Id(SessionId, Option<&'a Version>),
    /// The session with this name.
    Key(&'a SessionKey, &'a Version),
}

/// The kinds of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteKind {
    /// A new session.
    Create,
    /// A new payload of the same session.
    Save,
    /// A new id of the same session.
    Rotate {
        /// The old id.
        from: SessionId,
    },
    /// A change of the same session from outside of its requests. Only its handle is known, and it keeps its deadline and its
    /// owner. See [`SessionManager::update_all`](crate::SessionManager::update_all).
    Change,
}

impl<'a> WriteOperation<'a> {
    pub(in crate::step) fn new(
        store: &'a dyn SessionStore,
        kind: WriteKind,
        id: &SessionId,
        write: Write<'a>,
        expected: Option<&'a Version>,
    ) -> Self {
        let replaced = match &kind {
            WriteKind::Rotate { from } => Some(Subject::known(store, from)),
            WriteKind::Create | WriteKind::Save | WriteKind::Change => None,
        };
        Self { replaced, ..Self::of(kind, Target::Id(*id, expected), Subject::known(store, id), write) }
    }

    /// Creates a change of a session that is known only by its name.
    pub(in crate::step) fn change(
        store: &'a dyn SessionStore,
        key: &'a SessionKey,
        write: Write<'a>,
        expected: &'a Version,
    ) -> Self {
        let subject = Subject::shown(store, key.handle());
        Self::of(WriteKind::Change, Target::Key(key, expected), subject, write)
    }

    fn of(kind: WriteKind, target: Target<'a>, subject: Subject<'a>, write: Write<'a>) -> Self {
        Self {
            kind,
            target,
            subject,
            replaced: None,
            payload: write.payload.into(),
            ttl: write.ttl,
            bind: write.bind,
            companions: write.companions.to_vec(),
            values: Values::default(),
            read_back: write.read_back,
            is_executed: false,
        }
    }

    /// Returns the kind of the write.
    pub fn kind(&self) -> WriteKind {
        self.kind
    }

    /// Returns the id under which the session is written: the new one in a rotation, and `None` in a
    /// [change](WriteKind::Change) from outside.
    pub fn id(&self) -> Option<&SessionId> {
        self.subject.id()
    }

    /// Returns the handle of the session; of a rotation that of the new id.
    pub fn handle(&self) -> Handle {
        self.subject.handle()
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Sets the payload to write.
    ///
    /// Different payloads must stay different, because a store recognises its own earlier success by the payload. For the same
    /// reason, the same payload must always become the same bytes.
    pub fn set_payload(&mut self, payload: impl Into<Vec<u8>>) {
        self.payload = Cow::Owned(payload.into());
    }

    /// Returns the time that the session lives from now on; `None` if it does not expire.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Sets the time that the session lives from now on. A [change](WriteKind::Change) keeps the deadline that the session has.
    pub fn set_ttl(&mut self, ttl: impl Into<Option<Duration>>) {
        self.ttl = ttl.into();
    }

    /// Sets a companion to write with the session, in the same command, if the session is written.
    ///
    /// [Declare](crate::Step::companions) its suffix. A companion that is not set stays as it is.
    pub fn set_companion(&mut self, suffix: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        let companion = Companion::new(suffix, value);
        self.companions.retain(|other| other.suffix != companion.suffix);
        self.companions.push(companion);
    }

    /// Returns the values that steps pass to each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }

    /// Returns the session whose payload is overwritten. In a rotation, it has the old id.
    pub(super) fn replaced(&self) -> &Subject<'a> {
        self.replaced.as_ref().unwrap_or(&self.subject)
    }

    pub(super) fn subject(&self) -> &Subject<'a> {
        &self.subject
    }

    /// Returns the manager that has to read the payload back, if steps have changed it.
    pub(super) fn changed_for(&self) -> Option<&'a dyn ReadBack> {
        self.read_back.filter(|_| matches!(self.payload, Cow::Owned(_)))
    }

    /// Returns `true` if the store was asked to write.
    pub(in crate::step) fn is_executed(&self) -> bool {
        self.is_executed
    }

    pub(super) fn execute(&mut self, store: &dyn SessionStore) -> Result<Written> {
        self.is_executed = true;
        let write = Write::new(&self.payload, self.ttl).with_bind(self.bind).with_companions(&self.companions);
        match (self.target, &self.kind) {
            (Target::Key(key, expected), _) => store.save_key(key, write, expected).map(Written::from),
            (Target::Id(id, _), WriteKind::Create) => store.create(&id, write).map(Written::from),
            (Target::Id(id, expected), WriteKind::Rotate { from }) => {
                store.rotate(from, &id, write, expected).map(Written::from)
            }
            (Target::Id(id, expected), _) => store.save(&id, write, expected).map(Written::from),
        }
    }
}

impl fmt::Debug for WriteOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOperation")
            .field("kind", &self.kind)
            .field("subject", &self.subject)
            .field("bytes", &self.payload.len())
            .field("ttl", &self.ttl)
            .field("companions", &self.companions)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

/// The outcome of a write.
#[derive(Clone, Debug)]
#[must_use]
pub enum Written {
    /// The session is stored, with this new version.
    Stored(Version),
    /// The session was not created, because another live session has this id.
    Taken,
    /// The session was neither saved nor rotated, because no live session has this id.
    Missing,
    /// The session was neither saved nor rotated, because the stored session, given here, has another version than expected.
    Conflict(Stored),
    /// The session was not stored, because the principal has as many sessions as [`Bind::WithinCap`] allows.
    OverCap,
}

impl From<Created> for Written {
    fn from(created: Created) -> Self {
        match created {
            Created::Stored(version) => Self::Stored(version),
            Created::Taken => Self::Taken,
            Created::OverCap => Self::OverCap,
        }
    }
}

impl From<Saved> for Written {
    fn from(saved: Saved) -> Self {
        match saved {
            Saved::Stored(version) => Self::Stored(version),
            Saved::Missing => Self::Missing,
            Saved::Conflict(theirs) => Self::Conflict(theirs),
            Saved::OverCap => Self::OverCap,
        }
    }
}
