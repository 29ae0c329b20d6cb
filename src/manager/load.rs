//! Loading: from the `Cookie` headers of a request, or an id, to a [`Session`].
//!
//! Adapters and applications open sessions here; `update` loads through the same code. An id that no live session has is
//! never adopted, and a session that the lifetime has ended is deleted and never handed out.

use std::time::{Duration, SystemTime};

use super::{Inner, SessionManager, Unreadable};
use crate::codec::Envelope;
use crate::session::{Change, Origin};
use crate::store::{Found, Stored, Touch};
use crate::{Error, ErrorKind, Result, Session, SessionId, operation};

/// The outcome of loading an id. `L` is what a live session is loaded as.
pub(super) enum Loaded<L> {
    Live(L),
    /// Another request moved the session to a new id a moment ago.
    Renewed,
    Absent,
}

impl<L> Loaded<L> {
    /// Continues with a live session. The other outcomes stay what they are.
    fn and_then<M>(self, next: impl FnOnce(L) -> Result<Loaded<M>>) -> Result<Loaded<M>> {
        match self {
            Self::Live(live) => next(live),
            Self::Renewed => Ok(Loaded::Renewed),
            Self::Absent => Ok(Loaded::Absent),
        }
    }
}

impl<T: 'static> SessionManager<T> {
    /// Opens the session of a request by its `Cookie` header, or its several `Cookie` headers.
    ///
    /// A visitor without a cookie, or with a malformed one, gets a new session and costs no command. Only `NAME=ID` with the
    /// id in its [one form](SessionId) is well-formed: one that is quoted, percent-encoded, in upper case or in braces is
    /// not, whatever else the headers hold and however long they are. Of several well-formed ids the first counts. If it is
    /// unknown, expired or destroyed the session is new; the id is never adopted.
    ///
    /// Opening a session counts as using it, unless [`touch_on_read`](crate::SessionManagerBuilder::touch_on_read) is off.
    ///
    /// # Errors
    ///
    /// - Returns the error of the store if the store cannot be read.
    /// - Returns [`ErrorKind::Payload`] if neither the codec nor a migration can read the payload, unless
    ///   [`Unreadable::StartFresh`] is set.
    pub fn open<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        let Some(id) = self.0.cookie.find(cookie_headers) else { return Ok(self.fresh()) };
        Ok(match self.0.load(&id)? {
            Loaded::Live(session) => session,
            Loaded::Renewed => self.0.blank(Origin::Detached),
            Loaded::Absent => self.fresh(),
        })
    }

    /// Opens a session by its id; returns `None` if no live session has the id.
    ///
    /// For programs without HTTP, and for jobs. Opening counts as use, as with [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open).
    pub fn open_id(&self, id: &SessionId) -> Result<Option<Session<T>>> {
        Ok(match self.0.load(id)? {
            Loaded::Live(session) => Some(session),
            Loaded::Renewed | Loaded::Absent => None,
        })
    }

    /// Creates a new session with `T::default()`. It does no I/O; the session gets an id when it is committed with a change.
    pub fn fresh(&self) -> Session<T>
    where
        T: Default,
    {
        self.0.blank(Origin::New)
    }
}

impl<T: 'static> Inner<T> {
    /// Loads a session: one read, and a second one if the session is remembered and its idle timeout must be extended.
    pub(super) fn load(&self, id: &SessionId) -> Result<Loaded<Session<T>>> {
        self.read(id)?.and_then(|(stored, envelope)| {
            let (stored, envelope) = self.touch_remembered(id, stored, envelope)?;
            self.admit(id, stored, envelope)
        })
    }

    /// Reads and decodes what is stored, and applies [`Unreadable`]. The error can come from the codec, or from a step that
    /// cannot decrypt.
    fn read(&self, id: &SessionId) -> Result<Loaded<(Stored, Envelope<T>)>> {
        let read = self.store.read(id, self.touch()).and_then(|found| match found {
            Found::Live(stored) => self.decode(&stored.payload).map(|envelope| Loaded::Live((stored, envelope))),
            Found::Renewed => Ok(Loaded::Renewed),
            Found::Absent => Ok(Loaded::Absent),
        });
        match read {
            Err(error) if error.kind() == ErrorKind::Payload && self.unreadable == Unreadable::StartFresh => {
                log::warn!("session {} is left to expire: {error:#}", self.store.handle(id));
                Ok(Loaded::Absent)
            }
            read => read,
        }
    }

    /// Extends a remembered session to `remember_for`. The first read could not do it, because only the payload says that the
    /// session is remembered. To save round trips, a session that has lost less than a 64th of the time is left as it is.
    fn touch_remembered(&self, id: &SessionId, stored: Stored, envelope: Envelope<T>) -> Result<(Stored, Envelope<T>)> {
        let idle = self.remember_for.filter(|_| self.touch_on_read && envelope.remembered.is_some());
        let (Some(idle), Some(left)) = (idle, stored.expires_in) else { return Ok((stored, envelope)) };
        if left >= idle - idle / 64 {
            return Ok((stored, envelope));
        }
        match self.store.read(id, Touch::Extend(idle))? {
            Found::Live(extended) => {
                let envelope = self.decode(&extended.payload)?;
                Ok((extended, envelope))
            }
            Found::Renewed | Found::Absent => Ok((stored, envelope)),
        }
    }

    /// Makes a session of what was read, or deletes it if its lifetime is over.
    fn admit(&self, id: &SessionId, stored: Stored, envelope: Envelope<T>) -> Result<Loaded<Session<T>>> {
        let now = self.clock.now();
        let lifetime_left = self.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            self.store.delete(id)?;
            return Ok(Loaded::Absent);
        }
        let expires_in = [stored.expires_in, lifetime_left].into_iter().flatten().min();
        let origin = Origin::Stored { id: *id, version: stored.version };
        Ok(Loaded::Live(self.session(envelope, origin, expires_in, now)))
    }

    fn touch(&self) -> Touch {
        match self.idle_timeout {
            Some(idle) if self.touch_on_read && self.remember_for.is_some() => Touch::Extend(idle),
            Some(idle) if self.touch_on_read => Touch::Set(idle),
            _ => Touch::No,
        }
    }

    pub(super) fn decode(&self, payload: &[u8]) -> Result<Envelope<T>> {
        let decoded = self.codec.decode(payload);
        decoded.map_err(|error| Error::new(ErrorKind::Payload, operation::DECODE).with_source(error))
    }

    /// A session that is not stored.
    fn blank(&self, origin: Origin) -> Session<T>
    where
        T: Default,
    {
        let (mut envelope, now) = (Envelope::new(T::default()), self.clock.now());
        envelope.created = now;
        self.session(envelope, origin, None, now)
    }

    fn session(
        &self,
        envelope: Envelope<T>,
        origin: Origin,
        expires_in: Option<Duration>,
        now: SystemTime,
    ) -> Session<T> {
        let (cookie_id, stored_principal) = match &origin {
            Origin::Stored { id, .. } => {
                (Some((*id, envelope.remembered)), envelope.bound.as_ref().map(|bound| bound.principal.clone()))
            }
            Origin::New | Origin::Detached => (None, None),
        };
        Session {
            envelope,
            cookie_id,
            stored_principal,
            origin,
            change: Change::None,
            on_conflict: self.on_conflict,
            snapshot: None,
            codec: self.codec.clone(),
            now,
            expires_in,
        }
    }
}
