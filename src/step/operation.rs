//! What passes through a chain of steps.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

use super::{Step, Values};
use crate::store::{Bind, Bytes, Companion, Created, Found, Saved, SessionStore, Stored, Touch, Version, Write};
use crate::{Handle, Result, SessionId};

/// The rest of the chain, and the store behind it. It can be run once.
pub struct Next<'a> {
    store: &'a dyn SessionStore,
    /// The outermost last.
    rest: &'a [Box<dyn Step>],
    /// Who runs it.
    step: Option<&'a dyn Step>,
}

impl<'a> Next<'a> {
    pub(super) fn new(store: &'a dyn SessionStore, steps: &'a [Box<dyn Step>]) -> Self {
        Self { store, rest: steps, step: None }
    }

    /// Reads the session.
    ///
    /// # Errors
    ///
    /// Those of the steps inside, and of the store. This goes for all operations.
    pub fn read(self, operation: &mut ReadOperation<'_>) -> Result<Found> {
        let found = match self.rest.split_last() {
            Some((step, rest)) => step.read(operation, self.within(&**step, rest))?,
            None => self.store.read(&operation.id, operation.touch)?,
        };
        match found {
            Found::Live(stored) => Ok(Found::Live(self.restored(&operation.subject, stored)?)),
            other => Ok(other),
        }
    }

    /// Writes the session.
    pub fn write(self, operation: &mut WriteOperation<'_>) -> Result<Written> {
        let written = match self.rest.split_last() {
            Some((step, rest)) => step.write(operation, self.within(&**step, rest))?,
            None => operation.carry_out(self.store)?,
        };
        match written {
            // What is in the way of a rotation is under the old id.
            Written::Conflict(theirs) => {
                let there = operation.replaced.as_ref().unwrap_or(&operation.subject);
                Ok(Written::Conflict(self.restored(there, theirs)?))
            }
            other => Ok(other),
        }
    }

    /// Deletes the session, or takes note that it was reaped.
    pub fn delete(self, operation: &mut DeleteOperation<'_>) -> Result<Deleted> {
        let deleted = match self.rest.split_last() {
            Some((step, rest)) => step.delete(operation, self.within(&**step, rest))?,
            None => match operation.subject.id {
                Some(id) => Deleted { existed: self.store.delete(&id)?, payload: None },
                None => Deleted { existed: true, payload: operation.reaped.take() },
            },
        };
        match (deleted.payload, self.step) {
            (Some(payload), Some(step)) => {
                let payload = Some(step.restore(&operation.subject, payload)?);
                Ok(Deleted { payload, ..deleted })
            }
            (payload, _) => Ok(Deleted { payload, ..deleted }),
        }
    }

    fn within(&self, step: &'a dyn Step, rest: &'a [Box<dyn Step>]) -> Self {
        Self { store: self.store, rest, step: Some(step) }
    }

    fn restored(&self, session: &Subject<'_>, stored: Stored) -> Result<Stored> {
        match self.step {
            Some(step) => Ok(Stored { payload: step.restore(session, stored.payload)?, ..stored }),
            None => Ok(stored),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Next").field(&self.rest).field(&self.store).finish()
    }
}

/// The session that an operation, or a payload, belongs to.
pub struct Subject<'a> {
    store: &'a dyn SessionStore,
    id: Option<SessionId>,
    handle: OnceCell<Handle>,
}

impl<'a> Subject<'a> {
    fn known(store: &'a dyn SessionStore, id: &SessionId) -> Self {
        Self { store, id: Some(*id), handle: OnceCell::new() }
    }

    /// A session of which the store tells the handle only.
    pub(super) fn shown(store: &'a dyn SessionStore, handle: Handle) -> Self {
        Self { store, id: None, handle: OnceCell::from(handle) }
    }

    /// Its id. Sessions that were reaped or listed have only a handle.
    pub fn id(&self) -> Option<&SessionId> {
        self.id.as_ref()
    }

    /// Its handle, the hash of its key.
    pub fn handle(&self) -> Handle {
        *self.handle.get_or_init(|| {
            let id = self.id.as_ref().expect("without an id there is a handle");
            self.store.handle(id)
        })
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.handle())
    }
}

/// A read on its way.
#[derive(Debug)]
pub struct ReadOperation<'a> {
    id: SessionId,
    subject: Subject<'a>,
    touch: Touch,
    values: Values,
}

impl<'a> ReadOperation<'a> {
    pub(super) fn new(store: &'a dyn SessionStore, id: &SessionId, touch: Touch) -> Self {
        Self { id: *id, subject: Subject::known(store, id), touch, values: Values::default() }
    }

    /// Which session is read.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The handle of the session.
    pub fn handle(&self) -> Handle {
        self.subject.handle()
    }

    /// What the read does to the deadline.
    pub fn touch(&self) -> Touch {
        self.touch
    }

    /// Makes the read do something else to the deadline.
    pub fn set_touch(&mut self, touch: Touch) {
        self.touch = touch;
    }

    /// What steps hand each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }
}

/// A write on its way.
pub struct WriteOperation<'a> {
    kind: WriteKind,
    id: SessionId,
    subject: Subject<'a>,
    replaced: Option<Subject<'a>>,
    payload: Cow<'a, [u8]>,
    ttl: Option<Duration>,
    bind: Bind<'a>,
    expected: Option<&'a Version>,
    companions: Vec<Companion>,
    values: Values,
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
}

impl<'a> WriteOperation<'a> {
    pub(super) fn new(
        store: &'a dyn SessionStore,
        kind: WriteKind,
        id: &SessionId,
        write: Write<'a>,
        expected: Option<&'a Version>,
    ) -> Self {
        let replaced = match &kind {
            WriteKind::Rotate { from } => Some(Subject::known(store, from)),
            WriteKind::Create | WriteKind::Save => None,
        };
        Self {
            kind,
            id: *id,
            subject: Subject::known(store, id),
            replaced,
            payload: write.payload.into(),
            ttl: write.ttl,
            bind: write.bind,
            expected,
            companions: write.companions.to_vec(),
            values: Values::default(),
        }
    }

    /// Whether it creates, saves or rotates.
    pub fn kind(&self) -> WriteKind {
        self.kind
    }

    /// Under which id the session is written; of a rotation the new one.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The handle that goes with the [id](Self::id).
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

    /// Lets the session live this long.
    pub fn set_ttl(&mut self, ttl: impl Into<Option<Duration>>) {
        self.ttl = ttl.into();
    }

    /// Writes a companion with the session, in the same command, if the session is written. It has to be
    /// [declared](Step::companions). One that is not set stays as it is.
    pub fn set_companion(&mut self, suffix: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        let companion = Companion::new(suffix, value);
        self.companions.retain(|other| other.suffix != companion.suffix);
        self.companions.push(companion);
    }

    /// What steps hand each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }

    fn carry_out(&self, store: &dyn SessionStore) -> Result<Written> {
        let write = Write::new(&self.payload, self.ttl).with_bind(self.bind).with_companions(&self.companions);
        let saved = match &self.kind {
            WriteKind::Create => {
                return Ok(match store.create(&self.id, write)? {
                    Created::Stored(version) => Written::Stored(version),
                    Created::Taken => Written::Taken,
                });
            }
            WriteKind::Save => store.save(&self.id, write, self.expected)?,
            WriteKind::Rotate { from } => store.rotate(from, &self.id, write, self.expected)?,
        };
        Ok(match saved {
            Saved::Stored(version) => Written::Stored(version),
            Saved::Missing => Written::Missing,
            Saved::Conflict(theirs) => Written::Conflict(theirs),
        })
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
}

/// A delete on its way, or the news that a session was reaped.
pub struct DeleteOperation<'a> {
    subject: Subject<'a>,
    reaped: Option<Bytes>,
    values: Values,
}

impl<'a> DeleteOperation<'a> {
    pub(super) fn new(store: &'a dyn SessionStore, id: &SessionId) -> Self {
        Self { subject: Subject::known(store, id), reaped: None, values: Values::default() }
    }

    pub(super) fn reaped(store: &'a dyn SessionStore, handle: Handle, payload: Bytes) -> Self {
        Self { subject: Subject::shown(store, handle), reaped: Some(payload), values: Values::default() }
    }

    /// Which session is deleted; `None` for one that was reaped.
    pub fn id(&self) -> Option<&SessionId> {
        self.subject.id()
    }

    /// The handle of the session.
    pub fn handle(&self) -> Handle {
        self.subject.handle()
    }

    /// Whether the session expired and is gone already. [`Next::delete`] then answers its payload.
    pub fn is_reaped(&self) -> bool {
        self.subject.id.is_none()
    }

    /// What steps hand each other.
    pub fn values(&mut self) -> &mut Values {
        &mut self.values
    }
}

impl fmt::Debug for DeleteOperation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteOperation")
            .field("subject", &self.subject)
            .field("is_reaped", &self.is_reaped())
            .field("values", &self.values)
            .finish()
    }
}

/// What became of a delete.
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct Deleted {
    /// Whether there was a session.
    pub existed: bool,
    /// Of a session that was reaped its payload. Without it the application is not told that the session expired.
    pub payload: Option<Bytes>,
}

impl Deleted {
    /// For steps that delete by means of their own.
    pub fn new(existed: bool) -> Self {
        Self { existed, payload: None }
    }
}

impl fmt::Debug for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deleted").field("existed", &self.existed).finish_non_exhaustive()
    }
}
