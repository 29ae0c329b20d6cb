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
use crate::bearer::{self, Carrier};
use crate::codec::Envelope;
use crate::observer::EndCause;
use crate::session::{Change, Origin};
use crate::store::{Found, Stored, Touch};
use crate::throttle::Throttle;
use crate::{EndReason, Error, ErrorKind, Result, Session, SessionId, fence, operation};

/// The sessions that requests could not decode and went on without.
static UNREADABLE: Throttle = Throttle::new();

/// The outcome of loading an id. `L` is what a live session is loaded as.
pub(super) enum Loaded<L> {
    Live(L),
    /// Another request moved the session to a new id a moment ago.
    Renewed,
    /// The session is over, and the reason is known.
    Ended(EndReason),
    Absent,
}

/// The outcome of looking at a session by its id.
#[cfg(feature = "rouille")]
pub(crate) enum Peeked {
    /// The session is live, and expires after this time, if it expires.
    Live(Option<Duration>),
    Over(EndReason),
}

/// The purpose for which a request opens its session.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// To use it.
    Use,
    /// To sign a visitor in. If the session cannot be decoded, the commit of a new one replaces it. For the other purposes, the
    /// manager's [`Unreadable`] decides.
    SignIn,
    /// To look at it, which is no use: the store is only read.
    Peek,
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
        self.0.open(&self.0.cookie.candidates(cookie_headers), Purpose::Use)
    }

    /// Opens the session of a request past the [near cache](crate::near_cache), if the store has one.
    ///
    /// Use it for routes that must not miss a logout or a change in another process: payments, changes of a password, the pages
    /// of administrators. The read asks Redis, and costs as much as without a cache. In all other respects it works like
    /// [`open`](Self::open).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let session = sessions.open_uncached(None)?; // what the request has in its Cookie header
    /// assert!(session.is_new());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open).
    pub fn open_uncached<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        let ids = self.0.cookie.candidates(cookie_headers);
        self.0.store.forget(&ids);
        self.0.open(&ids, Purpose::Use)
    }

    /// Opens the session of a request without using it: no deadline moves, and nothing is stored or deleted.
    ///
    /// Use it for requests that a page sends by itself, such as polls. With [`open`](Self::open), they would keep a session alive
    /// whose visitor is gone. [`Session::expires_in`] is known on every store, so a page can show how long the session still
    /// lives. In all other respects it works like `open`, and opening costs one round trip.
    ///
    /// If the session is changed, its commit counts as use as always. The commit of an unchanged session sends no command and
    /// sets no cookie, even if the cookie of a [remembered](Session::remember) session is due.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{Clock, MemorySessionStore, SessionManager};
    ///
    /// const HOUR: Duration = Duration::from_secs(3600);
    ///
    /// let clock = Clock::manual();
    /// let store = MemorySessionStore::new().with_clock(clock.clone());
    /// let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).idle_timeout(HOUR).build()?;
    /// let mut session = sessions.fresh();
    /// *session += 1;
    /// let cookie = format!("__Host-session={}", sessions.commit(session)?.id().expect("it is stored").expose());
    ///
    /// clock.advance(HOUR / 4);
    /// assert_eq!(sessions.peek([&*cookie])?.expires_in(), Some(HOUR / 4 * 3));
    /// assert_eq!(sessions.open([&*cookie])?.expires_in(), Some(HOUR));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open).
    pub fn peek<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        self.0.open(&self.0.cookie.candidates(cookie_headers), Purpose::Peek)
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
        self.0.open(&self.0.cookie.candidates(cookie_headers), Purpose::SignIn)
    }

    /// Opens the session of a request by a bearer token, for clients without cookies: `Authorization: Bearer ID`.
    ///
    /// Pass the values of all `Authorization` headers, and of no other header. Cookies do not count, and there is no fallback to
    /// them, so a page of another site cannot make a browser send the token, and no
    /// [check of the origin](Self::check_cross_origin) is needed. A request without a token, with a malformed one or with several
    /// `Authorization` headers gets a new session and costs no command.
    ///
    /// Commit the session as any other. The response then sets no cookie, and varies with `Authorization`. A client gets a new
    /// token, after the first store and after each renewal, in the header [`TOKEN_HEADER`](crate::TOKEN_HEADER). The token is
    /// the id of the session, so a session can be reached by cookie and by token.
    ///
    /// If another request renewed the session a moment ago, the session is [detached](Session::is_detached), and the outcome of the
    /// commit is [`Detached`](crate::Outcome::Detached) even if nothing changed. Respond with 409, as the adapters do, so
    /// that the client keeps its newest token and tries again.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager, TOKEN_HEADER};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open_bearer([])?;
    /// *session += 1;
    /// let committed = sessions.commit(session)?;
    /// let (_, token) = committed.headers().find(|(name, _)| *name == TOKEN_HEADER).expect("a new token");
    ///
    /// let authorization = format!("Bearer {token}");
    /// assert_eq!(*sessions.open_bearer([&*authorization])?, 1);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open). After [`ErrorKind::Payload`] the client should drop its token and sign in
    /// again without one.
    pub fn open_bearer<'h>(&self, authorization: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        let token = bearer::token(authorization);
        let session = self.0.open(token.as_slice(), Purpose::Use)?;
        Ok(Session { carrier: Carrier::Bearer, is_renewal_due: false, ..session })
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

    /// Looks at a session at whose deadline no end was announced, so a session that is absent has expired.
    #[cfg(feature = "rouille")]
    pub(crate) fn peek_id(&self, id: &SessionId) -> Result<Peeked> {
        let mut candidates = Candidates { untried: slice::from_ref(id), unreadable: Vec::new() };
        Ok(match self.0.load_first(&mut candidates, Purpose::Peek)? {
            Loaded::Live(session) => Peeked::Live(session.expires_in()),
            Loaded::Renewed => Peeked::Over(EndReason::Renewed),
            Loaded::Absent if !candidates.unreadable.is_empty() => Peeked::Live(None),
            Loaded::Ended(EndReason::Unknown) | Loaded::Absent => Peeked::Over(EndReason::Expired),
            Loaded::Ended(reason) => Peeked::Over(reason),
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
    fn open(&self, ids: &[SessionId], purpose: Purpose) -> Result<Session<T>>
    where
        T: Default,
    {
        let mut candidates = Candidates { untried: ids, unreadable: Vec::new() };
        let mut session = match self.load_first(&mut candidates, purpose)? {
            Loaded::Live(session) => session,
            Loaded::Renewed => self.blank(Origin::Detached).after(EndReason::Renewed),
            Loaded::Ended(reason) => self.blank(Origin::New).after(reason),
            Loaded::Absent if ids.is_empty() || !candidates.unreadable.is_empty() => self.blank(Origin::New),
            Loaded::Absent => self.blank(Origin::New).after(EndReason::Unknown),
        };
        session.is_renewal_due = self.is_renewal_due(&session) && !session.loses_fields();
        session.ends_rivals = purpose == Purpose::SignIn && !candidates.unreadable.is_empty();
        session.rivals = candidates.unreadable;
        session.rivals.extend(candidates.untried);
        Ok(session)
    }

    /// Returns `true` if the id of a session is older than the settings allow, and the request uses the session.
    fn is_renewal_due(&self, session: &Session<T>) -> bool {
        let envelope = &session.envelope;
        let age = session.now.duration_since(envelope.id_since.unwrap_or(envelope.created)).unwrap_or_default();
        !session.is_peeked
            && !session.is_new()
            && !session.is_detached()
            && self.renew_every.is_some_and(|every| age > every)
    }

    /// Loads a session: one read, and a second one if the first one could not move the deadline to where it should be.
    pub(super) fn load(&self, id: &SessionId) -> Result<Loaded<Session<T>>> {
        let mut candidates = Candidates { untried: slice::from_ref(id), unreadable: Vec::new() };
        self.load_first(&mut candidates, Purpose::Use)
    }

    /// Loads the first live session of the candidates. The candidates after it stay untried.
    fn load_first(&self, candidates: &mut Candidates<'_>, purpose: Purpose) -> Result<Loaded<Session<T>>> {
        let mut over = None;
        while !candidates.untried.is_empty() {
            let touch = match purpose {
                Purpose::Use | Purpose::SignIn => self.first_touch(candidates.untried),
                Purpose::Peek => Touch::Peek,
            };
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
                    self.pass_over(&id, error, purpose)?;
                    candidates.unreadable.push(id);
                }
            }
        }
        Ok(over.map_or(Loaded::Absent, Loaded::Ended))
    }

    /// Returns `Ok` if the error is that of a session that cannot be decoded, and the request may do without the session. The
    /// error can come from the codec, or from a step that cannot decrypt.
    fn pass_over(&self, id: &SessionId, error: Error, purpose: Purpose) -> Result<()> {
        if error.kind() != ErrorKind::Payload {
            return Err(error);
        }
        self.report_unreadable(id);
        let fate = match (purpose, self.unreadable) {
            (Purpose::SignIn, _) => "can be replaced by a sign-in",
            (Purpose::Use | Purpose::Peek, Unreadable::Fail) => return Err(error),
            (Purpose::Use | Purpose::Peek, Unreadable::StartFresh) => "is left to expire",
        };
        let handle = self.store.handle(id);
        fence::log!(Debug, session:% = handle; "session {handle} {fate}: {error:#}");
        if let Some(count) = UNREADABLE.count() {
            let others = match count {
                1 => String::new(),
                _ => format!("{count} sessions could not be read since the last such warning; "),
            };
            fence::log!(Warn, session:% = handle, sessions = count; "{others}session {handle} {fate}: {error:#}");
        }
        Ok(())
    }

    /// Makes a session of what was read. Returns `None`, and deletes the session unless it was a peek, if its lifetime is over.
    fn admit(&self, id: &SessionId, mut stored: Stored, touched: Touch) -> Result<Option<Session<T>>> {
        let mut envelope = self.decode(&stored.payload)?;
        let is_peeked = touched == Touch::Peek;
        if !is_peeked {
            (stored, envelope) = self.move_deadline(id, stored, envelope, touched)?;
        }
        let now = self.clock.now();
        let times = [Some(envelope.created), envelope.remembered, envelope.id_since];
        let clock_was_ahead = times.into_iter().flatten().any(|time| time > now + CLOCK_TOLERANCE);
        envelope.limit_times(now);
        let lifetime_left = self.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            if !is_peeked {
                self.clean_up(id);
            }
            return Ok(None);
        }
        let expires_in = self.timeouts().promise(stored.expires_in, &envelope, now);
        let origin = Origin::Stored { id: *id, version: stored.version };
        let session = self.session(envelope, origin, expires_in, now);
        Ok(Some(Session { payload: Some(stored.payload), clock_was_ahead, is_peeked, ..session }))
    }

    /// Deletes a session whose lifetime is over. The session is absent in any case, so a failure, for example on a read-only
    /// server, does not concern the request. A later request tries again.
    pub(super) fn clean_up(&self, id: &SessionId) {
        if let Err(error) = self.delete_for(id, EndCause::Lifetime) {
            let (handle, kind) = (self.store.handle(id), error.kind().name());
            fence::log!(Debug, session:% = handle, error = kind; "session {handle} is over and could not be deleted: {error:#}");
        }
    }

    /// Moves the deadline to where it should be, if the read could not do it. Only the payload shows that a session is
    /// remembered or has an owner, or that its lifetime ends before its idle timeout. A second read does it, and a third one if
    /// another request changed the session in between.
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
                    let (handle, kind) = (self.store.handle(id), error.kind().name());
                    fence::log!(Debug, session:% = handle, error = kind; "session {handle} was not extended: {error:#}");
                    break;
                }
                Err(error) => return Err(error),
            };
            (envelope, stored, touched) = (self.decode(&moved.payload)?, moved, touch);
        }
        Ok((stored, envelope))
    }

    /// Returns the touch that is missing after a read. To save round trips, a session that has lost less than a 64th of the time,
    /// or less than `touch_every`, is left as it is.
    fn second_touch(&self, id: &SessionId, stored: &Stored, envelope: &Envelope<T>, touched: Touch) -> Option<Touch> {
        let now = self.clock.now();
        let timeouts = self.timeouts();
        let (idle, lifetime_left) = (self.idle_timeout(envelope), self.lifetime_left(envelope, now));
        let wanted = timeouts.stored_ttl(envelope, now).filter(|wanted| !wanted.is_zero())?;
        if !self.touch_on_read {
            return None;
        }
        let is_bounded = lifetime_left.is_some_and(|end| idle.is_none_or(|idle| end < idle));
        if !is_bounded && touched == Touch::No && self.touch() != Touch::No {
            // The lifetime began anew, so the deadline moves again.
            self.bounded.remove(id);
            return Some(self.touch());
        }
        if timeouts.touch_every.is_some() && lifetime_left == Some(wanted) {
            self.bounded.insert(*id, now + wanted, now);
        }
        let left = stored.expires_in?;
        if left.saturating_add(timeouts.slack(wanted, lifetime_left)) < wanted {
            return Some(Touch::Extend(wanted));
        }
        let longest = timeouts.longest_ttl(envelope, now);
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
        if may_be_bounded && ids.iter().any(|id| self.is_known_as_bounded(id)) { Touch::No } else { touch }
    }

    /// Returns `true` if no use moves the deadline of the session any more. With `touch_every` the lifetime bounds the TTL even
    /// before it bounds the idle timeout. Until then, a manager without the setting may make the TTL shorter.
    fn is_known_as_bounded(&self, id: &SessionId) -> bool {
        let idle = self.timeouts().shortest_idle_timeout().filter(|_| self.touch_every.is_some());
        let end = self.bounded.end(id);
        end.is_some_and(|end| idle.is_none_or(|idle| end < self.clock.now() + idle))
    }

    fn touch(&self) -> Touch {
        let timeouts = self.timeouts();
        let Some(idle) = timeouts.shortest_idle_timeout().filter(|_| self.touch_on_read) else { return Touch::No };
        // The TTL ends with the lifetime from the beginning, and no use moves that end.
        if self.lifetime.is_some_and(|lifetime| lifetime <= idle) {
            return Touch::No;
        }
        let ttl = timeouts.idle_ttl(idle);
        let enough = self.touch_every.map(|every| ttl.saturating_sub(every));
        // A longer deadline may be that of a remembered or an owned session.
        match (timeouts.vary(), enough) {
            (true, None) => Touch::Extend(ttl),
            (false, None) => Touch::Set(ttl),
            (true, Some(enough)) => Touch::ExtendIfDue { ttl, enough },
            (false, Some(enough)) => Touch::SetIfDue { ttl, enough },
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
            carrier: Carrier::Cookie,
            rivals: Vec::new(),
            ends_rivals: false,
            is_renewal_stored: false,
            change: Change::None,
            on_conflict: self.on_conflict,
            payload: None,
            snapshot: None,
            before: None,
            next_id: OnceLock::new(),
            is_in_doubt: false,
            has_token: AtomicBool::new(false),
            store: self.store.clone(),
            codec: self.codec.clone(),
            timeouts: self.timeouts(),
            now,
            clock_was_ahead: false,
            is_peeked: false,
            is_renewal_due: false,
            ended: None,
            expires_in,
        }
    }
}
