mod backoff;
mod builder;
mod commit;
mod principals;
mod update;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::builder::{OnConflict, SessionManagerBuilder, Unreadable};
pub use self::commit::{Committed, Outcome};
pub use self::principals::BoundSession;
use crate::codec::Envelope;
use crate::cookie::SessionCookie;
use crate::session::{Change, Origin};
use crate::store::{Found, Touch};
use crate::{Clock, Codec, Error, ErrorKind, Handle, Json, Result, Session, SessionId, SessionStore, operation};

/// Opens and commits sessions with values of type `T`: all policy is here.
///
/// [`new`](Self::new) or [`builder`](Self::builder) makes one, for as long as the program runs; it is cheap to clone, and
/// clones are the same manager. A request [`open`](Self::open)s its session and [`commit`](Self::commit)s it, which an adapter
/// such as `threaded_sessions::rouille` does around a handler. By hand, or without HTTP, it is this:
///
/// ```
/// use threaded_sessions::{MemorySessionStore, Outcome, SessionManager};
///
/// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
///
/// let mut session = sessions.open(None)?; // what the request has in its Cookie header
/// *session += 1;
/// let committed = sessions.commit(session)?;
/// assert_eq!(committed.outcome(), Outcome::Stored);
/// for (name, value) in committed.headers() {
///     // onto the response
/// #   let _ = (name, value);
/// }
///
/// let id = committed.id().expect("it was stored");
/// assert_eq!(*sessions.open_id(id)?.expect("it lives"), 1);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct SessionManager<T>(Arc<Inner<T>>);

/// Everything a manager was told.
struct Inner<T> {
    store: Box<dyn SessionStore>,
    codec: Arc<dyn Codec<T>>,
    cookie: SessionCookie,
    clock: Clock,
    idle_timeout: Option<Duration>,
    lifetime: Option<Duration>,
    remember_for: Option<Duration>,
    touch_on_read: bool,
    on_conflict: OnConflict,
    unreadable: Unreadable,
    max_payload: usize,
    max_per_principal: Option<u32>,
}

impl<T> Clone for SessionManager<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Serialize + DeserializeOwned + 'static> SessionManager<T> {
    /// A manager on this store with all settings as by default, which [`SessionManagerBuilder`] tells.
    pub fn new(store: impl SessionStore) -> Self {
        Self::builder(store).build().expect("the default settings are valid")
    }

    /// A manager on this store with other settings. Payloads are [`Json`], unless
    /// [told otherwise](SessionManagerBuilder::codec).
    pub fn builder(store: impl SessionStore) -> SessionManagerBuilder<T> {
        Self::builder_with_codec(store, Json::new())
    }
}

impl<T: 'static> SessionManager<T> {
    /// The same with a codec of one's own from the start, for a `T` that is not a serde type.
    pub fn builder_with_codec(store: impl SessionStore, codec: impl Codec<T>) -> SessionManagerBuilder<T> {
        SessionManagerBuilder::new(store, codec)
    }

    /// The store, for what it can do besides: its [`index`](SessionStore::index), its [`health`](SessionStore::health).
    pub fn store(&self) -> &dyn SessionStore {
        &*self.0.store
    }

    pub(crate) fn codec(&self) -> &dyn Codec<T> {
        &*self.0.codec
    }

    /// The handle under which a session can be shown in logs and pages; `None` if it is not stored.
    pub fn handle(&self, session: &Session<T>) -> Option<Handle> {
        session.id().map(|id| self.0.store.handle(id))
    }

    /// Opens the session of a request by its `Cookie` header, or its several `Cookie` headers.
    ///
    /// A visitor without a cookie, or with a malformed one, gets a new session and costs no command. Only `NAME=ID` with the
    /// id in its [one form](SessionId) is well-formed: one that is quoted, percent-encoded, in upper case or in braces is
    /// not, whatever else the headers hold and however long they are. Of several well-formed ids the first counts. If it is
    /// unknown, expired or destroyed the session is new; the id is never adopted.
    ///
    /// Opening a session counts as using it, unless [`touch_on_read`](SessionManagerBuilder::touch_on_read) is off.
    ///
    /// # Errors
    ///
    /// That the store could not be asked, and [`ErrorKind::Payload`] if nothing can read what is stored, unless
    /// [`Unreadable::StartFresh`] is set.
    pub fn open<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Session<T>>
    where
        T: Default,
    {
        let Some(id) = self.0.cookie.find(cookie_headers) else { return Ok(self.fresh()) };
        Ok(match self.load(&id)? {
            Ok(session) => session,
            Err(Gone::Renewed) => self.blank(Origin::Detached),
            Err(Gone::Absent) => self.fresh(),
        })
    }

    /// Opens a session by its id; `None` if there is none (any more). For programs without HTTP, and for jobs. Counts as use
    /// as [`open`](Self::open) does.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_id(&self, id: &SessionId) -> Result<Option<Session<T>>> {
        Ok(self.load(id)?.ok())
    }

    /// A new session with `T::default()`, which gets an id when it is committed with a change. No I/O.
    pub fn fresh(&self) -> Session<T>
    where
        T: Default,
    {
        self.blank(Origin::New)
    }

    fn blank(&self, origin: Origin) -> Session<T>
    where
        T: Default,
    {
        let (mut envelope, now) = (Envelope::new(T::default()), self.0.clock.now());
        envelope.created = now;
        self.session(envelope, origin, None, now)
    }

    fn load(&self, id: &SessionId) -> Result<Result<Session<T>, Gone>> {
        let inner = &*self.0;
        let opened = match inner.store.read(id, inner.touch()) {
            Ok(Found::Live(stored)) => inner.decode(&stored.payload).map(|envelope| (stored, envelope)),
            Ok(Found::Renewed) => return Ok(Err(Gone::Renewed)),
            Ok(Found::Absent) => return Ok(Err(Gone::Absent)),
            Err(error) => Err(error),
        };
        let (mut stored, mut envelope) = match opened {
            Ok(opened) => opened,
            // From the codec, or from a step that cannot decrypt.
            Err(error) if error.kind() == ErrorKind::Payload && inner.unreadable == Unreadable::StartFresh => {
                log::warn!("session {} is left to expire: {}", inner.store.handle(id), error.in_full());
                return Ok(Err(Gone::Absent));
            }
            Err(error) => return Err(error),
        };
        // A remembered session has an idle timeout of its own, which only its payload tells: it is touched once more, but
        // not for less than a 64th of it.
        if let (true, Some(_), Some(idle), Some(left)) =
            (inner.touch_on_read, envelope.remembered, inner.remember_for, stored.expires_in)
            && left < idle - idle / 64
            && let Found::Live(again) = inner.store.read(id, Touch::Extend(idle))?
        {
            envelope = inner.decode(&again.payload)?;
            stored = again;
        }
        let now = inner.clock.now();
        let lifetime_left = inner.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            inner.store.delete(id)?;
            return Ok(Err(Gone::Absent));
        }
        let expires_in = [stored.expires_in, lifetime_left].into_iter().flatten().min();
        let origin = Origin::Stored { id: *id, version: stored.version };
        Ok(Ok(self.session(envelope, origin, expires_in, now)))
    }

    fn session(
        &self,
        envelope: Envelope<T>,
        origin: Origin,
        expires_in: Option<Duration>,
        now: SystemTime,
    ) -> Session<T> {
        let cookie_id = match &origin {
            Origin::Stored { id, .. } => Some((*id, envelope.remembered)),
            Origin::New | Origin::Detached => None,
        };
        Session {
            stored_principal: match origin {
                Origin::Stored { .. } => envelope.bound.as_ref().map(|bound| bound.principal.clone()),
                Origin::New | Origin::Detached => None,
            },
            envelope,
            cookie_id,
            origin,
            change: Change::None,
            on_conflict: self.0.on_conflict,
            snapshot: None,
            codec: self.0.codec.clone(),
            now,
            expires_in,
        }
    }
}

/// Why there is no session under an id.
enum Gone {
    Renewed,
    Absent,
}

impl<T: 'static> Inner<T> {
    fn touch(&self) -> Touch {
        match self.idle_timeout {
            Some(idle) if self.touch_on_read && self.remember_for.is_some() => Touch::Extend(idle),
            Some(idle) if self.touch_on_read => Touch::Set(idle),
            _ => Touch::No,
        }
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<T>> {
        let decoded = self.codec.decode(payload);
        decoded.map_err(|error| Error::new(ErrorKind::Payload, operation::DECODE).with_source(error))
    }

    fn lifetime_left<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(envelope.created).unwrap_or_default();
        self.lifetime.map(|lifetime| lifetime.saturating_sub(age))
    }

    fn idle_timeout<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        envelope.remembered.and(self.remember_for).or(self.idle_timeout)
    }
}

impl<T> fmt::Debug for SessionManager<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager")
            .field("store", &self.store)
            .field("cookie", &self.cookie)
            .field("idle_timeout", &self.idle_timeout)
            .field("lifetime", &self.lifetime)
            .field("remember_for", &self.remember_for)
            .field("touch_on_read", &self.touch_on_read)
            .field("on_conflict", &self.on_conflict)
            .field("unreadable", &self.unreadable)
            .field("max_payload", &self.max_payload)
            .finish_non_exhaustive()
    }
}
