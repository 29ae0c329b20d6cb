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

/// A write on its way.
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
    /// The same session anew.
    Save,
    /// The same session under a new id.
    Rotate {
        /// The id it had.
        from: SessionId,
    },
    /// The same session anew, from outside its requests: only its handle is known. It keeps its deadline and its owner. See
    /// [`SessionManager::update_all`](crate::SessionManager::update_all).
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

    /// A change of a session that is known by its name only.
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

    /// Whether it creates, saves, rotates or changes.
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

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Writes another payload. Two writes of different payloads must stay different: by its payload a store recognises its
    /// own earlier success. For the same reason the same should become the same again.
    pub fn set_payload(&mut self, payload: impl Into<Vec<u8>>) {
        self.payload = Cow::Owned(payload.into());
    }

    /// How long the session lives from now on; `None`: it does not expire.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Lets the session live this long. A [change](WriteKind::Change) keeps the deadline that the session has.
    pub fn set_ttl(&mut self, ttl: impl Into<Option<Duration>>) {
        self.ttl = ttl.into();
    }

    /// Writes a companion with the session, in the same command, if the session is written. It has to be
    /// [declared](crate::Step::companions). One that is not set stays as it is.
    pub fn set_companion(&mut self, suffix: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        let companion = Companion::new(suffix, value);
        self.companions.retain(|other| other.suffix != companion.suffix);
        self.companions.push(companion);
    }

    /// What steps hand each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }

    /// The session whose payload is overwritten. In a rotation this session has the old id.
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

/// What became of a write.
#[derive(Clone, Debug)]
#[must_use]
pub enum Written {
    /// The session is stored, and this is its version now.
    Stored(Version),
    /// Not created: another session lives under this id.
    Taken,
    /// Neither saved nor rotated: no session lives under this id.
    Missing,
    /// Neither saved nor rotated: the session does not have the expected version but this.
    Conflict(Stored),
    /// Not stored: the principal has as many sessions as [`Bind::WithinCap`] allows.
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
