//! The session manager: all policy about sessions, on top of a store that only keeps payloads.
//!
//! Applications and adapters use it. Each file has one part:
//!
//! - `builder`: the settings;
//! - `load`: from an id to a session;
//! - `commit`: from a session to an action;
//! - `headers`: from an outcome to the response;
//! - `discard`: sessions that cannot be decoded;
//! - `update`: changes that are retried;
//! - `save`: the optimistic loop behind `commit` and `update`;
//! - `events`: the events for observers;
//! - `principals`: the sessions of an owner;
//! - `update_all`: a change of these sessions from outside;
//! - `timeouts` and `bounded`: when a session ends, and which sessions end with their lifetime;
//! - `backoff` and `turns`: the pauses and the order of changes that conflict.
//!
//! A clone is the same manager: the settings never change after `build`.

// The documentation lists the methods in the order of these modules: `new` and `builder`, `open`, `commit`, and then the rest.
mod builder;

mod load;

mod commit;

mod backoff;
mod bounded;
mod discard;
mod events;
pub(crate) mod headers;
mod principals;
mod save;
mod timeouts;
mod turns;
mod update;
mod update_all;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use self::bounded::Bounded;
pub use self::builder::{OnCap, OnConflict, SessionManagerBuilder, Unreadable};
pub use self::commit::{Committed, Outcome};
#[cfg(feature = "rouille")]
pub(crate) use self::load::Peeked;
pub use self::principals::BoundSession;
pub(crate) use self::save::Changes;
pub(crate) use self::timeouts::Timeouts;
use self::turns::Turns;
pub use self::update::SignIn;
pub use self::update_all::UpdatedAll;
#[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
use crate::adapter::ErrorPages;
use crate::codec::Envelope;
use crate::cookie::SessionCookie;
use crate::cross_origin::{CrossOriginProtection, Page};
use crate::observer::Observers;
use crate::store::Health;
use crate::{Clock, Codec, Handle, RedisWarning, Result, Session, SessionStore, fence};

/// A manager that opens and commits sessions with values of type `T`, by the settings of the application.
///
/// Create one with [`new`](Self::new) or [`builder`](Self::builder) when the program starts. It is cheap to clone, and clones
/// are the same manager. A request [`open`](Self::open)s its session and [`commit`](Self::commit)s it. An adapter such as
/// `threaded_sessions::rouille` does both around a handler.
///
/// # Examples
///
/// Without an adapter, or without HTTP:
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
/// let id = committed.id().expect("the session is stored");
/// assert_eq!(*sessions.open_id(id)?.expect("the session is live"), 1);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct SessionManager<T>(Arc<Inner<T>>);

/// The settings of a manager, and the store and the codec that it works with.
struct Inner<T> {
    store: Arc<dyn SessionStore>,
    codec: Arc<dyn Codec<T>>,
    cookie: SessionCookie,
    cross_origin: CrossOriginProtection,
    plain_http: PlainHttp,
    clock: Clock,
    idle_timeout: Option<Duration>,
    anonymous_idle_timeout: Option<Duration>,
    lifetime: Option<Duration>,
    remember_for: Option<Duration>,
    touch_on_read: bool,
    touch_every: Option<Duration>,
    renew_every: Option<Duration>,
    on_conflict: OnConflict,
    unreadable: Unreadable,
    max_payload: usize,
    read_back: bool,
    max_per_principal: Option<u32>,
    on_cap: OnCap,
    bounded: Bounded,
    turns: Turns,
    observers: Observers,
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    error_pages: ErrorPages,
}

impl<T> Clone for SessionManager<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> SessionManager<T> {
    /// Returns a builder with a custom codec, for a `T` that is not a serde type.
    pub fn builder_with_codec(store: impl SessionStore, codec: impl Codec<T>) -> SessionManagerBuilder<T> {
        SessionManagerBuilder::new(store, codec)
    }

    /// Returns the store, for its [`index`](SessionStore::index) and for operations on a single session.
    pub fn store(&self) -> &dyn SessionStore {
        &*self.0.store
    }

    pub(crate) fn shared_store(&self) -> Arc<dyn SessionStore> {
        self.0.store.clone()
    }

    /// Returns a number that only clones of this manager have, as long as one of them exists.
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Returns the functions of the application for failed requests.
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn error_pages(&self) -> &ErrorPages {
        &self.0.error_pages
    }

    pub(crate) fn codec(&self) -> &dyn Codec<T> {
        &*self.0.codec
    }

    /// Returns the handle under which logs and pages can show a session; `None` if the session is not stored.
    ///
    /// It is the same as [`Session::handle`].
    pub fn handle(&self, session: &Session<T>) -> Option<Handle> {
        session.handle()
    }

    /// Returns whether the store can be reached, and its counters. It sends no command.
    pub fn health(&self) -> Health {
        self.0.store.health()
    }

    /// Checks that the store can work, and returns warnings about its settings; see [`SessionStore::check`].
    ///
    /// Call it once at the start of a program.
    ///
    /// # Errors
    ///
    /// Returns the error of the store, such as those of [`RedisSessionStore::check`](crate::RedisSessionStore::check).
    ///
    /// # Examples
    ///
    /// ```
    /// # let sessions = threaded_sessions::SessionManager::<u32>::new(threaded_sessions::MemorySessionStore::new());
    /// for warning in sessions.check()? {
    ///     eprintln!("{warning}");
    /// }
    /// assert!(sessions.health().is_healthy());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn check(&self) -> Result<Vec<RedisWarning>> {
        self.0.store.check()
    }

    /// Returns an error if a page of another origin made a browser send this request: cross-site request forgery.
    ///
    /// The adapters call it before they open a session. If you use the manager without an adapter, call it first for every
    /// request. `target` is the target of the request line, undecoded. Pass all headers with their values as they came, because
    /// a missing header lets a request pass. The rules are those of `CrossOriginProtection` in Go 1.25:
    ///
    /// - The methods `GET`, `HEAD` and `OPTIONS` pass, so a handler for them must not change anything.
    /// - With `Sec-Fetch-Site`, a request passes if the value is `same-origin` or `none`, but not if it is `same-site` or
    ///   `cross-site`. Browsers send this header over HTTPS and to localhost.
    /// - Without it, the host and the port of `Origin` must equal `Host`. `Origin: null` does not pass. Headers such as
    ///   `X-Forwarded-Host` are ignored, because any client can set them.
    /// - Without both headers, a request passes, because it comes from no browser, or from a very old one.
    /// - Any other request passes only if the settings name its origin
    ///   ([`trusted_origin`](SessionManagerBuilder::trusted_origin)) or its path
    ///   ([`exempt_path`](SessionManagerBuilder::exempt_path)).
    ///
    /// It also warns in the log, once, if a page that came over plain HTTP sends a form and the cookie is
    /// [`Secure`](SessionManagerBuilder::secure), because browsers drop such a cookie.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::CrossOrigin`](crate::ErrorKind::CrossOrigin), with the headers and the remedy as its source. Log
    /// the source, and respond with 403.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorKind, MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let own = [("Host", "shop.example"), ("Origin", "https://shop.example")];
    /// assert!(sessions.check_cross_origin("POST", "/cart?item=tea", own).is_ok());
    ///
    /// let forged = [("Host", "shop.example"), ("Origin", "https://attacker.example")];
    /// let error = sessions.check_cross_origin("POST", "/cart?item=tea", forged).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::CrossOrigin);
    /// ```
    #[doc(alias = "csrf")]
    pub fn check_cross_origin<N, V>(
        &self,
        method: &str,
        target: &str,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Result<()>
    where
        N: AsRef<str>,
        V: AsRef<[u8]>,
    {
        let page = self.0.cross_origin.check(method, target, headers.into_iter())?;
        if page == Page::PlainHttp && self.0.cookie.secure {
            self.0.plain_http.warn();
        }
        Ok(())
    }
}

/// Warns, once for a manager, that browsers drop its cookie.
#[derive(Default)]
struct PlainHttp(AtomicBool);

impl PlainHttp {
    fn warn(&self) {
        if !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Relaxed) {
            fence::log!(
                Warn,
                "browsers drop the session cookie, because it is Secure and a page came over plain HTTP: serve over HTTPS, or \
                 set `secure(false)` or `--insecure-cookies` during development"
            );
        }
    }
}

impl<T: 'static> Inner<T> {
    fn timeouts(&self) -> Timeouts {
        Timeouts {
            idle_timeout: self.idle_timeout,
            anonymous_idle_timeout: self.anonymous_idle_timeout,
            remember_for: self.remember_for,
            lifetime: self.lifetime,
            touch_every: self.touch_every,
        }
    }

    fn lifetime_left<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        self.timeouts().lifetime_left(envelope, now)
    }

    fn idle_timeout<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        self.timeouts().idle_timeout(envelope)
    }

    /// Returns how long a session lives that is used now. Zero: its lifetime is over.
    fn ttl<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        self.timeouts().ttl(envelope, self.clock.now())
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
            .field("cross_origin", &self.cross_origin)
            .field("idle_timeout", &self.idle_timeout)
            .field("anonymous_idle_timeout", &self.anonymous_idle_timeout)
            .field("lifetime", &self.lifetime)
            .field("remember_for", &self.remember_for)
            .field("touch_on_read", &self.touch_on_read)
            .field("touch_every", &self.touch_every)
            .field("renew_every", &self.renew_every)
            .field("on_conflict", &self.on_conflict)
            .field("unreadable", &self.unreadable)
            .field("max_payload", &self.max_payload)
            .field("read_back", &self.read_back)
            .finish_non_exhaustive()
    }
}
