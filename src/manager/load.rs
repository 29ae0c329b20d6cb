//! Loading: from the `Cookie` headers of a request, or an id, to a [`Session`].
//!
//! Adapters and applications open sessions here; `update` loads through the same code. An id that no live session has is
//! never adopted, and a session that the lifetime has ended is never handed out. If a request names several ids, the first live
//! one counts.

use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::timeouts::CLOCK_TOLERANCE;
use super::{Inner, SessionManager, Unreadable};
use crate::codec::Envelope;
use crate::session::{Change, Origin};
use crate::store::{Found, Stored, Touch};
use crate::{EndReason, Error, ErrorKind, Result, Session, SessionId, fence, operation};

/// The outcome of loading an id. `L` is what a live session is loaded as.
pub(super) enum Loaded<L> {
    Live(L),
    /// Another request moved the session to a new id a moment ago.
    Renewed,
    /// The session is over, and the reason is known.
    Ended(EndReason),
    Absent,
}

/// The fate of a request whose session cannot be decoded.
#[derive(Clone, Copy, PartialEq)]
enum IfUnreadable {
    /// The manager's [`Unreadable`] decides.
    AsSet,
    /// A session that replaces the unreadable one when it is committed.
    Replace,
}

/// The ids that a request names, while they are tried in their order.
struct Candidates<'a> {
    untried: &'a [SessionId],
    /// The ids of the sessions that could not be decoded and were passed over.
    unreadable: Vec<SessionId>,
}

impl<T: 'static> SessionManager<T> {
    /// Opens the session of a request by its `Cookie` header, or its several `Cookie` headers.
    ///
    /// A visitor without a cookie, or with a malformed one, gets a new session and costs no command. Only `NAME=ID` with the
    /// id in its [one form](SessionId) is well-formed: one that is quoted, percent-encoded, in upper case or in braces is
    /// not, whatever else the headers hold and however long they are.
    ///
    /// Browsers send several cookies of one name after the path, the domain or another attribute of the cookie changed. The
    /// manager tries at most four different ids, in the order sent, until one is live. If the first one is live, opening costs
    /// one command. An id that is unknown, expired or destroyed is never adopted. If no id is live, the session is new, or
    /// [detached](Session::is_detached) if another request renewed one of them a moment ago.
    ///
    /// Opening a session counts as using it, unless [`touch_on_read`](crate::SessionManagerBuilder::touch_on_read) is off.
    ///
    /// # Errors
    ///
    /// - Returns the error of the store if the store cannot be read.
    /// - Returns [`ErrorKind::Payload`] if neither the codec nor a migration can read the payload, unless
    ///   [`Unreadable::StartFresh`] is set. [`discard_unreadable`](Self::discard_unreadable) and
    ///   [`open_for_sign_in`](Self::open_for_sign_in) are the ways out for the visitor.
    pub fn open<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        self.0.open(&self.0.cookie.candidates(cookie_headers), IfUnreadable::AsSet)
    }

    /// Opens the session of a request that may sign a visitor in. If the session cannot be decoded, it opens a new one.
    ///
    /// Use it for the route that signs visitors in. Otherwise a visitor whose session became unreadable, for example by a deploy,
    /// could not sign in. If the new session is stored, its commit also ends the unreadable one, as a
    /// [renewal](Session::renew) ends the old id. If nothing is stored, for example after a wrong password, the unreadable
    /// session stays. In all other respects it works like [`open`](Self::open).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<String>::new(MemorySessionStore::new());
    /// let mut session = sessions.open_for_sign_in(None)?; // what the request has in its Cookie header
    /// session.renew();
    /// *session = "ada".to_owned();
    /// let committed = sessions.commit(session)?;
    /// # let _ = committed;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of the store if the store cannot be read.
    pub fn open_for_sign_in<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        self.0.open(&self.0.cookie.candidates(cookie_headers), IfUnreadable::Replace)
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
            Loaded::Renewed | Loaded::Ended(_) | Loaded::Absent => None,
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
    /// Opens the first live session of these ids, or a new session.
    fn open(&self, ids: &[SessionId], if_unreadable: IfUnreadable) -> Result<Session<T>>
    where
        T: Default,
    {
        let mut candidates = Candidates { untried: ids, unreadable: Vec::new() };
        let mut session = match self.load_first(&mut candidates, if_unreadable)? {
            Loaded::Live(session) => session,
            Loaded::Renewed => self.blank(Origin::Detached).after(EndReason::Renewed),
            Loaded::Ended(reason) => self.blank(Origin::New).after(reason),
            Loaded::Absent if ids.is_empty() || !candidates.unreadable.is_empty() => self.blank(Origin::New),
            Loaded::Absent => self.blank(Origin::New).after(EndReason::Unknown),
        };
        session.ends_rivals = if_unreadable == IfUnreadable::Replace && !candidates.unreadable.is_empty();
        session.rivals = candidates.unreadable;
        session.rivals.extend(candidates.untried);
        Ok(session)
    }

    /// Loads a session: one read, and a second one if the first one could not move the deadline to where it should be.
    pub(super) fn load(&self, id: &SessionId) -> Result<Loaded<Session<T>>> {
        let mut candidates = Candidates { untried: slice::from_ref(id), unreadable: Vec::new() };
        self.load_first(&mut candidates, IfUnreadable::AsSet)
    }

    /// Loads the first live session of the candidates. The candidates after it stay untried.
    fn load_first(&self, candidates: &mut Candidates<'_>, if_unreadable: IfUnreadable) -> Result<Loaded<Session<T>>> {
        let mut over = None;
        while !candidates.untried.is_empty() {
            let touch = self.first_touch(candidates.untried);
            let (at, found) = self.store.read_first(candidates.untried, touch);
            let (id, rest) = (candidates.untried[at], &candidates.untried[at + 1..]);
            let session = match found {
                Ok(Found::Live(stored)) => self.admit(&id, stored, touch),
                Ok(dead) => {
                    candidates.untried = &[];
                    return Ok(match (dead, over) {
                        (Found::Renewed, _) => Loaded::Renewed,
                        (Found::Ended(reason), _) | (_, Some(reason)) => Loaded::Ended(reason),
                        _ => Loaded::Absent,
                    });
                }
                Err(error) => Err(error),
            };
            candidates.untried = rest;
            match session {
                Ok(Some(session)) => return Ok(Loaded::Live(session)),
                // Its lifetime is over.
                Ok(None) => over = Some(EndReason::Expired),
                Err(error) => {
                    self.pass_over(&id, error, if_unreadable)?;
                    candidates.unreadable.push(id);
                }
            }
        }
        Ok(over.map_or(Loaded::Absent, Loaded::Ended))
    }

    /// Returns `Ok` if the error is that of a session that cannot be decoded, and the request may do without the session. The
    /// error can come from the codec, or from a step that cannot decrypt.
    fn pass_over(&self, id: &SessionId, error: Error, if_unreadable: IfUnreadable) -> Result<()> {
        if error.kind() != ErrorKind::Payload {
            return Err(error);
        }
        match (if_unreadable, self.unreadable) {
            (IfUnreadable::AsSet, Unreadable::Fail) => return Err(error),
            (IfUnreadable::AsSet, Unreadable::StartFresh) => {
                fence::log!(Warn, "session {} is left to expire: {error:#}", self.store.handle(id));
            }
            (IfUnreadable::Replace, _) => {
                fence::log!(Warn, "session {} can be replaced by a sign-in: {error:#}", self.store.handle(id));
            }
        }
        Ok(())
    }

    /// Makes a session of what was read. Returns `None`, and deletes the session, if its lifetime is over.
    fn admit(&self, id: &SessionId, stored: Stored, touched: Touch) -> Result<Option<Session<T>>> {
        let envelope = self.decode(&stored.payload)?;
        let (stored, mut envelope) = self.move_deadline(id, stored, envelope, touched)?;
        let now = self.clock.now();
        let clock_was_ahead = envelope.created > now + CLOCK_TOLERANCE;
        envelope.limit_times(now);
        let lifetime_left = self.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            self.clean_up(id);
            return Ok(None);
        }
        let expires_in = [stored.expires_in, lifetime_left].into_iter().flatten().min();
        let origin = Origin::Stored { id: *id, version: stored.version };
        let session = self.session(envelope, origin, expires_in, now);
        Ok(Some(Session { clock_was_ahead, ..session }))
    }

    /// Deletes a session whose lifetime is over. The session is absent in any case, so a failure, for example on a read-only
    /// server, does not concern the request. A later request tries again.
    fn clean_up(&self, id: &SessionId) {
        if let Err(error) = self.store.delete(id) {
            fence::log!(Debug, "session {} is over and could not be deleted: {error:#}", self.store.handle(id));
        }
    }

    /// Moves the deadline to where it should be, if the read could not do it. Only the payload shows that a session is
    /// remembered or has an owner, or that its lifetime ends before its idle timeout. A second read does it, and a third one if another request
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
            let moved = match self.store.read(id, touch) {
                Ok(Found::Live(moved)) => moved,
                Ok(Found::Renewed | Found::Ended(_) | Found::Absent) => break,
                // The session was read. The next request moves its deadline.
                Err(error) if error.kind().is_temporary() => {
                    fence::log!(Debug, "session {} was not extended: {error:#}", self.store.handle(id));
                    break;
                }
                Err(error) => return Err(error),
            };
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
        let longest = self.timeouts().longest_ttl(envelope, now);
        let end = longest.filter(|end| left > *end + (wanted / 64).min(Duration::from_secs(1)))?;
        if is_bounded {
            self.bounded.insert(*id, now + end, now);
        }
        Some(Touch::Set(end))
    }

    /// Returns the touch of the first read. It is none if the lifetime of one of the sessions is known to bound its deadline.
    fn first_touch(&self, ids: &[SessionId]) -> Touch {
        let touch = self.touch();
        let may_be_bounded = touch != Touch::No && self.lifetime.is_some();
        if may_be_bounded && ids.iter().any(|id| self.bounded.contains(id)) { Touch::No } else { touch }
    }

    fn touch(&self) -> Touch {
        match self.timeouts().shortest_idle_timeout() {
            // The TTL ends with the lifetime from the beginning, and no use moves that end.
            Some(idle) if self.lifetime.is_some_and(|lifetime| lifetime <= idle) => Touch::No,
            // A longer deadline may be that of a remembered or an owned session.
            Some(idle) if self.touch_on_read && self.timeouts().vary() => Touch::Extend(idle),
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
            rivals: Vec::new(),
            ends_rivals: false,
            is_renewal_stored: false,
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
            ended: None,
            expires_in,
        }
    }
}
