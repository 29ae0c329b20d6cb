//! Loading: from the `Cookie` headers of a request, or an id, to a [`Session`].
//!
//! Adapters and applications open sessions here; `update` loads through the same code. An id that no live session has is
//! never adopted, and a session that the lifetime has ended is deleted and never handed out.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::timeouts::CLOCK_TOLERANCE;
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
    /// Loads a session: one read, and a second one if the first one could not move the deadline to where it should be.
    pub(super) fn load(&self, id: &SessionId) -> Result<Loaded<Session<T>>> {
        let touch = self.touch();
        let is_bounded = touch != Touch::No && self.lifetime.is_some() && self.bounded.contains(id);
        let touch = if is_bounded { Touch::No } else { touch };
        self.read(id, touch)?.and_then(|(stored, envelope)| {
            let (stored, envelope) = self.move_deadline(id, stored, envelope, touch)?;
            self.admit(id, stored, envelope)
        })
    }

    /// Reads and decodes what is stored, and applies [`Unreadable`]. The error can come from the codec, or from a step that
    /// cannot decrypt.
    fn read(&self, id: &SessionId, touch: Touch) -> Result<Loaded<(Stored, Envelope<T>)>> {
        let read = self.store.read(id, touch).and_then(|found| match found {
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

    /// Moves the deadline to where it should be, if the read could not do it. Only the payload shows that a session is
    /// remembered, or that its lifetime ends before its idle timeout. A second read does it, and a third one if another request
    /// changed the session in between.
    fn move_deadline(
        &self,
        id: &SessionId,
        mut stored: Stored,
        mut envelope: Envelope<T>,
        touched: Touch,
    ) -> Result<(Stored, Envelope<T>)> {
        let mut touched = touched;
        for _ in 0..2 {
            let Some(touch) = self.second_touch(id, &stored, &envelope, touched) else { break };
            let Found::Live(moved) = self.store.read(id, touch)? else { break };
            (envelope, stored, touched) = (self.decode(&moved.payload)?, moved, touch);
        }
        Ok((stored, envelope))
    }

    /// Returns the touch that is missing after a read. To save round trips, a session that has lost less than a 64th of the time
    /// is left as it is.
    fn second_touch(&self, id: &SessionId, stored: &Stored, envelope: &Envelope<T>, touched: Touch) -> Option<Touch> {
        let now = self.clock.now();
        let (idle, lifetime_left) = (self.idle_timeout(envelope), self.lifetime_left(envelope, now));
        let wanted = [idle, lifetime_left].into_iter().flatten().min().filter(|wanted| !wanted.is_zero())?;
        if !self.touch_on_read {
            return None;
        }
        let is_bounded = lifetime_left.is_some_and(|end| idle.is_none_or(|idle| end < idle));
        if !is_bounded && touched == Touch::No && self.touch() != Touch::No {
            // The lifetime began anew, so the deadline moves again.
            self.bounded.remove(id);
            return Some(self.touch());
        }
        let left = stored.expires_in?;
        if left < wanted - wanted / 64 {
            return Some(Touch::Extend(wanted));
        }
        let end = lifetime_left.filter(|end| left > *end + (wanted / 64).min(Duration::from_secs(1)))?;
        if is_bounded {
            self.bounded.insert(*id, now + end, now);
        }
        Some(Touch::Set(end))
    }

    /// Makes a session of what was read, or deletes it if its lifetime is over.
    fn admit(&self, id: &SessionId, stored: Stored, mut envelope: Envelope<T>) -> Result<Loaded<Session<T>>> {
        let now = self.clock.now();
        let clock_was_ahead = envelope.created > now + CLOCK_TOLERANCE;
        envelope.limit_times(now);
        let lifetime_left = self.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            self.store.delete(id)?;
            return Ok(Loaded::Absent);
        }
        let expires_in = [stored.expires_in, lifetime_left].into_iter().flatten().min();
        let origin = Origin::Stored { id: *id, version: stored.version };
        let session = self.session(envelope, origin, expires_in, now);
        Ok(Loaded::Live(Session { clock_was_ahead, ..session }))
    }

    fn touch(&self) -> Touch {
        match self.idle_timeout {
            // The TTL ends with the lifetime from the beginning, and no use moves that end.
            Some(idle) if self.lifetime.is_some_and(|lifetime| lifetime <= idle) => Touch::No,
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
            before: None,
            next_id: OnceLock::new(),
            has_token: AtomicBool::new(false),
            store: self.store.clone(),
            codec: self.codec.clone(),
            timeouts: self.timeouts(),
            now,
            clock_was_ahead: false,
            expires_in,
        }
    }
}
