//! A session as a request handler holds it, and the record of what the handler does to it.
//!
//! Handlers change it, and the manager opens and commits it. It does no I/O. Every change passes through `record_change`,
//! which takes a snapshot before the first one, so that a commit can tell whether the value really changed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::codec::{Binding, Envelope};
use crate::store::Version;
use crate::{BoxError, Codec, OnConflict, SessionId};

/// A visitor's session, opened for one request.
///
/// It dereferences to your value `T`. Changes take effect when the session is [committed](crate::SessionManager::commit).
/// Dropping the session discards them, for example if the handler panics.
///
/// A session that was only read is not stored again, and a new session that did not change is not stored at all. A session has
/// changed if its value was borrowed mutably and is encoded differently afterwards. A change behind a shared reference, in a
/// `Cell` or a `Mutex` of `T`, is not noticed.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use threaded_sessions::{MemorySessionStore, Session, SessionManager};
///
/// #[derive(Default, Deserialize, Serialize)]
/// #[serde(default)]
/// struct Visit {
///     user: Option<String>,
/// }
///
/// fn sign_in(visit: &mut Session<Visit>, user: &str, stay: bool) {
///     visit.renew(); // at every login
///     visit.remember(stay);
///     visit.user = Some(user.to_owned());
/// }
///
/// let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
/// let mut visit = sessions.open(None)?;
/// assert!(visit.is_new());
/// sign_in(&mut visit, "ada", true);
/// let committed = sessions.commit(visit)?;
///
/// let id = committed.id().expect("it is stored");
/// let visit = sessions.open_id(id)?.expect("it lives");
/// assert_eq!(visit.user.as_deref(), Some("ada"));
/// assert!(visit.is_remembered());
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
///
/// If `T` has methods of the same names, those of the session hide them; `(*session).renew()` reaches `T`'s.
pub struct Session<T> {
    pub(crate) envelope: Envelope<T>,
    /// The id in the visitor's cookie, if that session is live, and when that cookie was sent if it is persistent.
    pub(crate) cookie_id: Option<(SessionId, Option<SystemTime>)>,
    /// The principal that owned the session when it was last read or stored.
    pub(crate) stored_principal: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) change: Change,
    pub(crate) on_conflict: OnConflict,
    /// The session before its first change, encoded with a new revision. The changed session is encoded with that revision
    /// too, so the encoding that is compared with the snapshot can be stored. `None` if the session could not be encoded, or
    /// has no change.
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) now: SystemTime,
    pub(crate) expires_in: Option<Duration>,
}

/// Where a session comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The request: the session is not stored yet.
    New,
    /// The store.
    Stored { id: SessionId, version: Version },
    /// An id that another request renewed a moment ago.
    Detached,
}

/// The strongest change that a request made, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    None,
    /// The value, the binding or the cookie may have changed.
    Value,
    Renew,
    Discard,
    Destroy,
}

impl<T: 'static> Session<T> {
    /// Returns the id; `None` if the session is not stored. A new session gets its id when it is committed.
    pub fn id(&self) -> Option<&SessionId> {
        match &self.origin {
            Origin::Stored { id, .. } => Some(id),
            Origin::New | Origin::Detached => None,
        }
    }

    /// Whether the visitor came without a session that lives. A session that is [detached](Self::is_detached) is not new.
    pub fn is_new(&self) -> bool {
        matches!(self.origin, Origin::New)
    }

    /// Whether the visitor came with an id that another request renewed less than
    /// [30 seconds](crate::store::RENEWED_FOR) ago. Such a session holds `T::default()`, and changes to it are not stored:
    /// the response must not disturb the new id that the visitor has, or is about to get. Only [`renew`](Self::renew) starts a
    /// session of its own, so that a login whose answer got lost can be repeated.
    pub fn is_detached(&self) -> bool {
        matches!(self.origin, Origin::Detached)
    }

    /// When the session began, or [began anew](Self::restart_lifetime), on the clock of the application that began it. Survives
    /// a renewal.
    pub fn created(&self) -> SystemTime {
        self.envelope.created
    }

    /// How long the session had left when it was opened, with the touch of opening it. `None` if it does not expire, if it
    /// is not stored, and if the store did not tell: the plain Redis store does not with
    /// [`touch_on_read(false)`](crate::SessionManagerBuilder::touch_on_read).
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Whether the session is remembered.
    pub fn is_remembered(&self) -> bool {
        self.envelope.remembered.is_some()
    }

    /// Remembers the visitor, or no longer: a persistent cookie instead of one that goes with the browser, and the idle
    /// timeout of [`remember_for`](crate::SessionManagerBuilder::remember_for). The cookie lasts as long as the session would,
    /// but for 400 days at most, as browsers have it; it is sent again when half its time is over.
    pub fn remember(&mut self, remember: bool) {
        self.record_change(Change::Value);
        let since = self.envelope.remembered.unwrap_or(self.now);
        self.envelope.remembered = remember.then_some(since);
    }

    /// Says whom the session belongs to, typically at login, and calls it something for the list of their sessions: a device,
    /// an address. From the commit on the session is among those of the principal
    /// ([`SessionManager::list`](crate::SessionManager::list)), whatever id it has, until it ends.
    ///
    /// It takes a store with an index, the expiring Redis store or the memory store; with another the commit answers
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub fn bind(&mut self, principal: impl Into<String>, label: impl Into<String>) {
        self.record_change(Change::Value);
        self.envelope.bound = Some(Binding::new(principal, label));
    }

    /// The session belongs to nobody any more.
    pub fn unbind(&mut self) {
        self.record_change(Change::Value);
        self.envelope.bound = None;
    }

    /// Whom the session belongs to.
    pub fn principal(&self) -> Option<&str> {
        self.envelope.bound.as_ref().map(|bound| &*bound.principal)
    }

    /// What [`bind`](Self::bind) called the session, if it belongs to anybody.
    pub fn label(&self) -> Option<&str> {
        self.envelope.bound.as_ref().map(|bound| &*bound.label)
    }

    /// Replaces the session id on commit and invalidates the old id.
    ///
    /// Call this whenever privileges change, above all at login, to prevent session fixation. The value, the
    /// [creation time](Self::created) and the principal stay the same. A new session is stored even if its value did not
    /// change. To restart the lifetime as well, call [`restart_lifetime`](Self::restart_lifetime). (OWASP Session Management
    /// Cheat Sheet; Ring's `:recreate`.)
    pub fn renew(&mut self) {
        self.record_change(Change::Renew);
    }

    /// Begins the [lifetime](crate::SessionManagerBuilder::lifetime) anew with this request, when the session is committed;
    /// [`created`](Self::created) tells so. For a login, together with [`renew`](Self::renew): otherwise the lifetime counts
    /// from when the visitor came, and who looked around for hours before signing in is signed out the sooner. (OWASP's
    /// absolute timeout counts from the login; scs's `RenewToken` does both at once.) It counts as a change of the value.
    ///
    /// At a login only: called at every request it would leave no lifetime at all.
    ///
    /// ```
    /// use threaded_sessions::Session;
    ///
    /// fn sign_in<T: 'static>(session: &mut Session<T>, user: &str, device: &str) {
    ///     session.renew();
    ///     session.restart_lifetime();
    ///     session.bind(user, device);
    /// }
    /// # let sessions = threaded_sessions::SessionManager::<u32>::new(threaded_sessions::MemorySessionStore::new());
    /// # sign_in(&mut sessions.fresh(), "ada", "laptop");
    /// ```
    pub fn restart_lifetime(&mut self) {
        self.record_change(Change::Value);
        self.envelope.created = self.now;
    }

    /// What happens if another request changed the session meanwhile, for this one only. Defaults to what the
    /// [manager](crate::SessionManagerBuilder::on_conflict) was told.
    pub fn on_conflict(&mut self, policy: OnConflict) {
        self.on_conflict = policy;
    }

    /// Drops all changes of this request, also those that are still to come, except for [`destroy`](Self::destroy).
    pub fn discard(&mut self) {
        self.record_change(Change::Discard);
    }

    /// Ends the session when it is committed, and clears the visitor's cookie; for logout. Changes of this request, also
    /// those that are still to come, are dropped.
    ///
    /// From outside the visitor's request, [`SessionManager::end`](crate::SessionManager::end) ends one of a principal's
    /// sessions by its handle, and [`SessionStore::delete`](crate::SessionStore::delete) any session by its id.
    pub fn destroy(&mut self) {
        self.record_change(Change::Destroy);
    }

    /// Records a change. It is the only place that does so. A stronger change stays, in whatever order the changes come.
    fn record_change(&mut self, change: Change) {
        if self.change == Change::None && change < Change::Discard {
            self.take_snapshot();
        }
        self.change = self.change.max(change);
    }

    fn take_snapshot(&mut self) {
        self.envelope.revise();
        self.snapshot = self.encode().ok();
    }

    /// Records that the session is stored as it is now. A renewal stays due.
    pub(crate) fn forget_changes(&mut self) {
        self.stored_principal = self.principal().map(str::to_owned);
        if self.change == Change::Value {
            self.change = Change::None;
        }
        match self.change {
            Change::None => self.snapshot = None,
            _ => self.take_snapshot(),
        }
    }

    /// Returns `true` if the visitor's cookie has another id, or was not sent when the session was last remembered.
    pub(crate) fn needs_cookie(&self, id: &SessionId) -> bool {
        self.cookie_id.is_none_or(|(cookie_id, remembered)| {
            cookie_id != *id || (remembered != self.envelope.remembered && self.change != Change::Discard)
        })
    }

    pub(crate) fn version(&self) -> Option<&Version> {
        match &self.origin {
            Origin::Stored { version, .. } => Some(version),
            Origin::New | Origin::Detached => None,
        }
    }

    /// Encodes the session as it is now.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BoxError> {
        self.codec.encode(&self.envelope.by_ref())
    }

    /// Returns `true` if the session is encoded differently `now` than before its first change.
    ///
    /// A session that cannot be encoded counts as different, so that storing it reports why. The comparison holds within one
    /// request only: a `HashMap` that is decoded again is encoded in another order.
    pub(crate) fn differs(&self, now: &Result<Vec<u8>, BoxError>) -> bool {
        match (&self.snapshot, now) {
            _ if self.change == Change::None => false,
            (Some(before), Ok(now)) => before != now,
            _ => true,
        }
    }
}

impl<T> Deref for Session<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.envelope.data
    }
}

impl<T: 'static> DerefMut for Session<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.record_change(Change::Value);
        &mut self.envelope.data
    }
}

/// Shows neither id nor value.
impl<T> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("origin", &self.origin)
            .field("change", &self.change)
            .field("remembered", &self.envelope.remembered.is_some())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}
