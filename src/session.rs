//! A session as a request handler holds it, and the record of what the handler does to it.
//!
//! Handlers change it, and the manager opens and commits it. It does no I/O. Every change passes through `record_change`. Before
//! the first change it takes a snapshot, so that a commit can compare the value with it.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::bearer::Carrier;
use crate::codec::{Binding, Envelope, Head};
use crate::manager::{Changes, Timeouts};
use crate::store::{Bytes, Version};
use crate::{BoxError, Codec, EndReason, Error, Handle, OnConflict, Outcome, SessionId, SessionStore, csrf, operation};

/// A visitor's session, opened for one request.
///
/// It dereferences to your value `T`. Changes take effect when the session is [committed](crate::SessionManager::commit).
/// Dropping the session discards them, for example if the handler panics.
///
/// A session that was only read is not stored again, unless its cookie, its id or its timeouts are due. A new session that did
/// not change is not stored at all, unless [`renew`](Self::renew), [`reset`](Self::reset) or a [CSRF token](Self::csrf_token)
/// needs it. A session has changed if its value was borrowed mutably and is encoded differently afterwards. A change behind a
/// shared reference, in a `Cell` or a `Mutex` of `T`, is not noticed.
///
/// # Examples
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
/// A method of the session hides a method of `T` with the same name. To call that of `T`, name the type:
///
/// ```
/// use threaded_sessions::Session;
///
/// struct Lease {
///     renewals: u32,
/// }
///
/// impl Lease {
///     fn renew(&mut self) {
///         self.renewals += 1;
///     }
/// }
///
/// fn handler(lease: &mut Session<Lease>) {
///     Lease::renew(lease); // `lease.renew()` is the method of the session
/// }
/// ```
pub struct Session<T> {
    pub(crate) envelope: Envelope<T>,
    /// The id in the visitor's cookie, if that session is live, and when that cookie was sent if it is persistent.
    pub(crate) cookie_id: Option<(SessionId, Option<SystemTime>)>,
    /// The principal that owned the session when it was last read or stored.
    pub(crate) stored_principal: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) carrier: Carrier,
    /// The ids of the rivals: the sessions of the other session cookies in the request, for example of another path, that may be
    /// live. The browser keeps sending these cookies. So it would open a rival if this session ended or got another id.
    pub(crate) rivals: Vec<SessionId>,
    /// `true` if the commit ends the rivals when it changes the id of the session.
    pub(crate) ends_rivals: bool,
    /// `true` if this request has stored a renewal or a reset before the commit.
    pub(crate) is_renewal_stored: bool,
    pub(crate) change: Change,
    pub(crate) on_conflict: OnConflict,
    /// The payload that was read, until the session is stored.
    pub(crate) payload: Option<Bytes>,
    /// The session before its first change, encoded with a new revision. The changed session is encoded with that revision
    /// too, so the encoding that is compared with the snapshot can be stored. `None` if the session could not be encoded, or
    /// has no change.
    pub(crate) snapshot: Option<Vec<u8>>,
    /// The envelope of the snapshot, without the value.
    pub(crate) before: Option<Head>,
    /// The id that the session will have after the commit, if it gets another one. It is chosen once.
    pub(crate) next_id: OnceLock<SessionId>,
    /// `true` if a CSRF token was made for `next_id`. A new session must then be stored, or no form would be accepted.
    pub(crate) has_token: AtomicBool,
    /// `true` if an attempt of this request to store the session may have happened. It can be stored under `next_id` then.
    pub(crate) is_in_doubt: bool,
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) now: SystemTime,
    /// `true` if a stored time is so far ahead of this clock that it must be stored again.
    pub(crate) clock_was_ahead: bool,
    /// `true` if the session was opened without counting as used (`peek`), and nothing was stored since. Then the commit stores
    /// only a change.
    pub(crate) is_peeked: bool,
    /// `true` if the id is so old that the next store of this request renews it.
    pub(crate) is_renewal_due: bool,
    pub(crate) ended: Option<EndReason>,
    pub(crate) expires_in: Option<Duration>,
}

/// The origin of a session.
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
    /// The session is replaced. It is stronger than a discard, so that no discard undoes a logout.
    Reset,
    Destroy,
}

/// The parts of a session that a sign-in changes.
pub(crate) struct Pending {
    bound: Option<Binding>,
    created: SystemTime,
    change: Change,
    ends_rivals: bool,
    snapshot: Option<Vec<u8>>,
    before: Option<Head>,
}

impl<T: 'static> Session<T> {
    /// Returns the id; `None` if the session is not stored. A new session gets its id when it is committed.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// assert!(session.id().is_none());
    /// *session += 1;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    ///
    /// let session = sessions.open_id(&id)?.expect("the session is live");
    /// assert_eq!(session.id(), Some(&id));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn id(&self) -> Option<&SessionId> {
        match &self.origin {
            Origin::Stored { id, .. } => Some(id),
            Origin::New | Origin::Detached => None,
        }
    }

    /// Returns the handle under which logs and pages can show the session; `None` if it is not stored.
    pub fn handle(&self) -> Option<Handle> {
        self.id().map(|id| self.store.handle(id))
    }

    /// Returns `true` if the visitor came without a live session.
    ///
    /// A [detached](Self::is_detached) session is not new.
    pub fn is_new(&self) -> bool {
        matches!(self.origin, Origin::New)
    }

    /// Returns why the session of the visitor is over, if the request came with the id of a session that is not live.
    ///
    /// Returns `None` if the request had no id, as at a first visit, if its session is live, or if its session cannot be decoded.
    /// [`EndReason::Unknown`] means that the store does not know the reason. Stores know it if they
    /// [remember ends](crate::RedisSessionStoreBuilder::remember_ends). Show a reason only to the request that sent the id.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{EndReason, MemorySessionStore, SessionManager};
    ///
    /// let store = MemorySessionStore::new().remember_ends(Duration::from_secs(3600));
    /// let sessions = SessionManager::<u32>::new(store);
    /// let mut session = sessions.fresh();
    /// assert_eq!(session.ended(), None);
    /// *session = 1;
    /// let id = *sessions.commit(session)?.id().expect("it is stored");
    /// sessions.end_everybody()?;
    ///
    /// let cookie = format!("__Host-session={}", id.expose());
    /// let message = match sessions.open([&*cookie])?.ended() {
    ///     Some(EndReason::Ended) => "You were signed out.",
    ///     Some(EndReason::Expired) => "You were away for too long.",
    ///     _ => "Welcome.",
    /// };
    /// assert_eq!(message, "You were signed out.");
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    pub(crate) fn after(self, reason: EndReason) -> Self {
        Self { ended: Some(reason), ..self }
    }

    /// Returns `true` if another request renewed the id of this request less than [30 seconds](crate::store::RENEWED_FOR) ago.
    ///
    /// A detached session holds `T::default()`, and changes to it are not stored. The crate sends no cookie for it, because the
    /// visitor has, or is about to get, the cookie of the new id. If the handler changes it, the adapters respond with 409. Ask
    /// the visitor to reload the page. Only [`renew`](Self::renew) turns it into a new session, so that a visitor can repeat a
    /// login whose response was lost.
    pub fn is_detached(&self) -> bool {
        matches!(self.origin, Origin::Detached)
    }

    /// Returns when the session began, or [began anew](Self::restart_lifetime).
    ///
    /// The time is that of the clock of the application that created the session. A renewal keeps it.
    pub fn created(&self) -> SystemTime {
        self.envelope.created
    }

    /// Returns how long the session had left when it was opened, after the touch of opening it.
    ///
    /// Returns `None` if the session does not expire, or is not stored. The plain Redis store also returns `None` with
    /// [`touch_on_read(false)`](crate::SessionManagerBuilder::touch_on_read), unless the session was opened by
    /// [`peek`](crate::SessionManager::peek).
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Returns `true` if the session is [remembered](Self::remember).
    pub fn is_remembered(&self) -> bool {
        self.envelope.remembered.is_some()
    }

    /// Sets whether the visitor is remembered after the browser is closed. Defaults to `false`.
    ///
    /// A remembered session has a persistent cookie, and the idle timeout of
    /// [`remember_for`](crate::SessionManagerBuilder::remember_for). The cookie lasts as long as the session would, but at most
    /// 400 days, the limit of browsers. It is sent again when half its time has passed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let month = Duration::from_secs(30 * 86_400);
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).remember_for(month).build()?;
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// session.remember(true);
    /// let committed = sessions.commit(session)?;
    /// assert!(committed.headers().any(|(_, value)| value.contains("Max-Age=2592000")));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn remember(&mut self, remember: bool) {
        self.record_change(Change::Value);
        let since = self.envelope.remembered.unwrap_or(self.now);
        self.envelope.remembered = remember.then_some(since);
    }

    /// Sets the principal that owns the session, and a label for lists of sessions; typically at login.
    ///
    /// The label describes the session to its owner, such as a device or an address. From the commit on,
    /// [`SessionManager::list`](crate::SessionManager::list) lists the session for the principal, under whatever id, until it
    /// ends.
    ///
    /// The store must have an index, as the expiring Redis store and the memory store do. With another store, the commit fails
    /// with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// session.renew(); // at every login
    /// session.bind("ada", "laptop");
    /// sessions.commit(session)?;
    ///
    /// let devices = sessions.list("ada")?;
    /// assert_eq!(devices[0].label, "laptop");
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn bind(&mut self, principal: impl Into<String>, label: impl Into<String>) {
        self.record_change(Change::Value);
        self.envelope.bound = Some(Binding::new(principal, label));
    }

    /// Removes the principal, so that the session has no owner.
    pub fn unbind(&mut self) {
        self.record_change(Change::Value);
        self.envelope.bound = None;
    }

    /// Returns the principal that owns the session; `None` if it has no owner.
    pub fn principal(&self) -> Option<&str> {
        self.envelope.bound.as_ref().map(|bound| &*bound.principal)
    }

    /// Returns the label that [`bind`](Self::bind) set; `None` if the session has no owner.
    pub fn label(&self) -> Option<&str> {
        self.envelope.bound.as_ref().map(|bound| &*bound.label)
    }

    /// Replaces the session id on commit and invalidates the old id.
    ///
    /// Call this whenever privileges change, above all at login, to prevent session fixation. The value, the [creation
    /// time](Self::created) and the principal stay the same. A new session is stored even if its value did not change. To
    /// restart the lifetime as well, call [`restart_lifetime`](Self::restart_lifetime). (OWASP Session Management Cheat Sheet;
    /// Ring's `:recreate`.)
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let old = *sessions.commit(session)?.id().expect("the session is stored");
    ///
    /// let mut session = sessions.open_id(&old)?.expect("the session is live");
    /// session.renew();
    /// let new = *sessions.commit(session)?.id().expect("the session is stored");
    /// assert!(sessions.open_id(&old)?.is_none());
    /// assert_eq!(*sessions.open_id(&new)?.expect("the session is live"), 7);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias("RenewToken", "changeSessionId", "cycle_id", "cycle_key", "regenerate"))]
    pub fn renew(&mut self) {
        self.record_change(Change::Renew);
    }

    /// Restarts the [lifetime](crate::SessionManagerBuilder::lifetime) with this request, when the session is committed.
    ///
    /// Call it at a login, together with [`renew`](Self::renew). Otherwise the lifetime counts from the first visit, and a
    /// visitor who looked around for hours before the login is signed out earlier. Call it at a login only: a session that
    /// restarts its lifetime at every request never reaches its end.
    ///
    /// [`created`](Self::created) returns the new start. The restart counts as a change of the value. (OWASP's absolute timeout
    /// counts from the login; scs's `RenewToken` does both at once.)
    ///
    /// # Examples
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

    /// Returns a token for the forms of this session, against cross-site request forgery (CSRF).
    ///
    /// If you use tokens, put one into every form of signed-in visitors, and check it with [`verify_csrf`](Self::verify_csrf)
    /// when the form comes back. The token belongs to the id that the session has after the commit, so the page that follows a
    /// [`renew`](Self::renew) or a [`reset`](Self::reset) can have forms. A new session gets its id now and is stored with the
    /// commit, because its forms would be refused otherwise. Each call returns another token, and all of them fit as long as the
    /// session keeps its id. It sends no command.
    ///
    /// A page for visitors who are not signed in does not need a token: the adapters
    /// [reject](crate::SessionManager::check_cross_origin) forms of other sites. A token would store a session for each visitor.
    /// [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) ends such sessions sooner.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the session is [detached](Self::is_detached), if it
    /// is to be destroyed, or if its changes are to be discarded. A token must belong to a stored session, and these requests
    /// store none. After [`discard`](Self::discard) this also holds for a session that was stored before: make the token first.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let page = sessions.open(None)?;
    /// let token = page.csrf_token()?; // <input type=hidden name=token value=…>
    /// let id = *sessions.commit(page)?.id().expect("it is stored");
    ///
    /// let form = sessions.open_id(&id)?.expect("it lives");
    /// assert!(form.verify_csrf(&token));
    /// assert!(!form.verify_csrf("guessed"));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias = "authenticity_token")]
    pub fn csrf_token(&self) -> crate::Result<String> {
        let why = match (&self.origin, self.change) {
            (_, Change::Discard) => "the changes of the session are to be discarded",
            (_, Change::Destroy) => "the session is to be destroyed",
            (Origin::Detached, Change::None | Change::Value | Change::Reset) => {
                "the session is detached: another request renewed it"
            }
            (Origin::New, _) | (_, Change::Renew | Change::Reset) => return Ok(self.next_token()),
            _ if self.is_renewal_due => return Ok(self.next_token()),
            (Origin::Stored { id, .. }, _) => return Ok(csrf::token(id)),
        };
        Err(Error::unsupported(operation::MAKE_CSRF_TOKEN, why))
    }

    /// Returns the token of the id that the session gets with its commit.
    fn next_token(&self) -> String {
        self.has_token.store(true, Ordering::Relaxed);
        csrf::token(&self.next_id())
    }

    /// Returns `true` if the token belongs to this session. Call it before the request [renews](Self::renew) the session.
    ///
    /// It returns `false` for a session that is new or [detached](Self::is_detached). It stores nothing and sends no command.
    ///
    /// For an example, see [`csrf_token`](Self::csrf_token).
    pub fn verify_csrf(&self, token: &str) -> bool {
        self.id().is_some_and(|id| csrf::verify(id, token))
    }

    /// Sets what the commit does if another request changed the session. Defaults to the [manager's
    /// setting](crate::SessionManagerBuilder::on_conflict).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorKind, MemorySessionStore, OnConflict, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session = 1;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    ///
    /// let mut mine = sessions.open_id(&id)?.expect("the session is live");
    /// let mut theirs = sessions.open_id(&id)?.expect("the session is live");
    /// *theirs = 2;
    /// sessions.commit(theirs)?;
    /// *mine = 3;
    /// mine.on_conflict(OnConflict::Fail);
    /// assert_eq!(sessions.commit(mine).unwrap_err().kind(), ErrorKind::Conflict);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn on_conflict(&mut self, policy: OnConflict) {
        self.on_conflict = policy;
    }

    /// Drops all changes of this request, including later ones, except for [`reset`](Self::reset) and
    /// [`destroy`](Self::destroy).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// session.discard();
    /// assert!(sessions.commit(session)?.id().is_none());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn discard(&mut self) {
        self.record_change(Change::Discard);
    }

    /// Ends the session on commit, and clears the visitor's cookie; for logout.
    ///
    /// All changes of this request, including later ones, are dropped. To begin another session in the same request, call
    /// [`reset`](Self::reset). The cookie of a session that is over already stays, because it may have been renewed.
    ///
    /// Outside of the visitor's request, use [`SessionManager::end`](crate::SessionManager::end) to end a session of a
    /// principal by its handle, and [`SessionStore::delete`](crate::SessionStore::delete) to end any session by its id.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, Outcome, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    ///
    /// let mut session = sessions.open_id(&id)?.expect("the session is live");
    /// session.destroy();
    /// assert_eq!(sessions.commit(session)?.outcome(), Outcome::Destroyed);
    /// assert!(sessions.open_id(&id)?.is_none());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias("flush", "invalidate", "logout"))]
    pub fn destroy(&mut self) {
        self.record_change(Change::Destroy);
    }

    /// Replaces the session by a new one on commit, so that a message survives a logout.
    ///
    /// The value becomes `T::default()` at once. The new session has a new id and begins with this request. It has no owner and is
    /// not remembered. Later changes of the request, such as a message or a login, belong to the new session, which is stored even
    /// without them. Until the commit, [`id`](Self::id) returns the old id.
    ///
    /// The commit ends the old session and stores the new one in one atomic step, whatever other requests have saved since. If
    /// the old session has ended already, the commit creates the new one. If another request renewed the old session, or the
    /// session is [detached](Self::is_detached), nothing is stored and the outcome is [`Detached`](crate::Outcome::Detached),
    /// because the visitor is still signed in under another id. The adapters respond with 409; let the visitor sign out again.
    /// After an error of the commit the old session may still be live, so the response must not report a logout.
    ///
    /// It costs as much as [`renew`](Self::renew). [Companions](crate::store::Companion) that no later write replaces move to the
    /// new session. A [CSRF token](Self::csrf_token) from before the call is not valid for the new session.
    /// (Django's `flush`, Laravel's `invalidate`.)
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// #[derive(Default, Deserialize, Serialize)]
    /// #[serde(default)]
    /// struct Visit {
    ///     cart: Vec<String>,
    ///     message: Option<String>,
    /// }
    ///
    /// let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
    /// let mut visit = sessions.open(None)?;
    /// visit.bind("ada", "laptop");
    /// visit.cart.push("tea".into());
    /// let old = *sessions.commit(visit)?.id().expect("it is stored");
    ///
    /// let mut visit = sessions.open_id(&old)?.expect("it lives");
    /// visit.reset();
    /// visit.message = Some("You are signed out.".into());
    /// let new = *sessions.commit(visit)?.id().expect("it is stored");
    ///
    /// assert!(sessions.open_id(&old)?.is_none());
    /// let visit = sessions.open_id(&new)?.expect("it lives");
    /// assert!(visit.principal().is_none() && visit.cart.is_empty() && visit.message.is_some());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias("clear", "flush", "invalidate", "logout", "regenerate"))]
    pub fn reset(&mut self)
    where
        T: Default,
    {
        self.record_change(Change::Reset);
        self.envelope = Envelope::new(T::default());
        self.envelope.created = self.now;
        (self.snapshot, self.before) = (None, None);
        // An earlier id can be in use: in a token, or by an attempt whose outcome is unknown.
        self.give_up_next_id();
    }

    /// Records a change. It is the only place that does so. A stronger change stays, in whatever order the changes come.
    fn record_change(&mut self, change: Change) {
        if self.change == Change::None && change < Change::Discard {
            self.take_snapshot();
        }
        self.ends_rivals |= matches!(change, Change::Renew | Change::Reset | Change::Destroy);
        self.change = self.change.max(change);
    }

    fn take_snapshot(&mut self) {
        self.envelope.revise();
        self.snapshot = self.encode().ok();
        self.before = Some(self.envelope.head());
    }

    /// Records that the session is stored as it is now, under the id that it was to get.
    pub(crate) fn forget_changes(&mut self) {
        self.stored_principal = self.principal().map(str::to_owned);
        self.timeouts.stamp(&mut self.envelope);
        self.is_renewal_stored |= matches!(self.change, Change::Renew | Change::Reset);
        self.change = Change::None;
        (self.clock_was_ahead, self.is_peeked, self.is_renewal_due) = (false, false, false);
        (self.payload, self.snapshot, self.before) = (None, None, None);
        self.give_up_next_id();
    }

    /// Returns the part of the session that a sign-in changes, to restore it with [`restore`](Self::restore).
    pub(crate) fn pending(&self) -> Pending {
        Pending {
            bound: self.envelope.bound.clone(),
            created: self.envelope.created,
            change: self.change,
            ends_rivals: self.ends_rivals,
            snapshot: self.snapshot.clone(),
            before: self.before.clone(),
        }
    }

    /// Takes back a sign-in that was not stored.
    pub(crate) fn restore(&mut self, pending: Pending) {
        let Pending { bound, created, change, ends_rivals, snapshot, before } = pending;
        (self.envelope.bound, self.envelope.created) = (bound, created);
        (self.change, self.ends_rivals, self.snapshot, self.before) = (change, ends_rivals, snapshot, before);
    }

    /// Gives up the id of an attempt to store the session, unless a token belongs to it. After a lost connection a session may be
    /// stored under it.
    pub(crate) fn forget_attempt(&mut self) {
        if !*self.has_token.get_mut() {
            self.give_up_next_id();
        }
    }

    fn give_up_next_id(&mut self) {
        (self.next_id, self.has_token, self.is_in_doubt) = (OnceLock::new(), AtomicBool::new(false), false);
    }

    /// Returns `true` if the next store moves the session to another id.
    pub(crate) fn is_to_be_renewed(&self) -> bool {
        self.change == Change::Renew || (self.is_renewal_due && self.change < Change::Renew)
    }

    /// Returns the id that the session gets with its commit, if it gets another one. The store chooses it at the first call.
    pub(crate) fn next_id(&self) -> SessionId {
        *self.next_id.get_or_init(|| self.store.fresh_id(self.id()))
    }

    /// Returns the ids of the rivals that end with this commit. `stored` is the id that the session has now, if it is stored.
    ///
    /// If the rivals did not end, the next request of a visitor who has signed out would open a rival. The same would happen after
    /// a sign-in if the browser sends the rival's cookie first.
    pub(crate) fn rivals_to_end(&self, outcome: Outcome, stored: Option<&SessionId>) -> &[SessionId] {
        let has_other_id = stored.is_some_and(|id| self.cookie_id.is_none_or(|(cookie_id, _)| cookie_id != *id));
        if self.ends_rivals && (outcome == Outcome::Destroyed || has_other_id) { &self.rivals } else { &[] }
    }

    /// Returns `true` if the visitor's cookie has another id, or was not sent when the session was last remembered.
    pub(crate) fn needs_cookie(&self, id: &SessionId) -> bool {
        self.cookie_id.is_none_or(|(cookie_id, remembered)| {
            let is_longer = remembered != self.envelope.remembered && self.change != Change::Discard;
            cookie_id != *id || (is_longer && self.carrier == Carrier::Cookie)
        })
    }

    /// Returns the envelope that is stored under this id, if the visitor needs a cookie for it although the changes that are not
    /// stored yet are dropped.
    pub(crate) fn stored_head(&self, id: &SessionId) -> Option<Head> {
        let head = self.before.clone().unwrap_or_else(|| self.envelope.head());
        // Without a snapshot, a pending reset or logout has changed the envelope.
        let is_stored = (self.before.is_some() || self.change == Change::None) && self.carrier == Carrier::Cookie;
        let needs_cookie = self
            .cookie_id
            .is_none_or(|(cookie_id, remembered)| cookie_id != *id || (is_stored && remembered != head.remembered));
        needs_cookie.then_some(head)
    }

    pub(crate) fn version(&self) -> Option<&Version> {
        match &self.origin {
            Origin::Stored { version, .. } => Some(version),
            Origin::New | Origin::Detached => None,
        }
    }

    /// Returns `true` if what was read has fields that only another version of the program knows. A request that changes nothing
    /// does not store such a session, because they would be lost.
    pub(crate) fn loses_fields(&self) -> bool {
        self.payload.as_ref().is_some_and(|payload| self.codec.loses(payload))
    }

    /// Encodes the session as it is now.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BoxError> {
        self.encode_value(&self.envelope.head(), &self.envelope.data)
    }

    /// Encodes a value in this envelope, with the times that it would be stored with.
    pub(crate) fn encode_value(&self, head: &Head, value: &T) -> Result<Vec<u8>, BoxError> {
        let mut envelope = head.with_data(value);
        self.timeouts.stamp(&mut envelope);
        self.codec.encode(&envelope)
    }

    /// Returns the changes since the snapshot, if there are any. `now` is the session, encoded as it is now.
    pub(crate) fn changes<'e>(&self, now: &'e [u8]) -> Option<Changes<'e>> {
        let is_same = self.snapshot.as_deref() == Some(now);
        let before = self.before.as_ref().filter(|_| self.change != Change::None && !is_same)?;
        let after = self.envelope.head();
        let value = if after == *before {
            Some(Cow::from(now))
        } else {
            let value = self.encode_value(before, &self.envelope.data).ok();
            value.filter(|value| Some(value) != self.snapshot.as_ref()).map(Cow::from)
        };
        Some(Changes { before: before.clone(), after, value })
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
