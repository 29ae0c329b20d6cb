//! The settings of a session manager, their defaults and the rules between them.
//!
//! Applications build their manager here. A manager exists only if all rules hold, so the rest of `manager` relies on them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::turns::Turns;
use super::{Inner, PlainHttp, SessionManager};
#[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
use crate::adapter::{ErrorPage, ErrorPages, Failure};
use crate::codec::Fenced;
use crate::cookie::SessionCookie;
use crate::cross_origin::CrossOriginProtection;
use crate::observer::{ObservedStore, Observers};
use crate::store::MAX_TTL;
use crate::{Clock, Codec, Error, Json, Observer, Result, SameSite, SessionStore, operation};

/// One week, as rrss has it (604,800 seconds).
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(604_800);

const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// A policy for a login of a principal who has as many sessions as
/// [`max_per_principal`](SessionManagerBuilder::max_per_principal) allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnCap {
    /// The oldest session of the principal ends.
    #[default]
    EndOldest,
    /// The login is rejected, and nothing is stored.
    ///
    /// [`SessionManager::sign_in`] returns [`SignIn::Refused`](crate::SignIn::Refused) before the page is rendered. If you call
    /// [`bind`](crate::Session::bind) instead, the commit finds the limit: its outcome is [`Refused`](crate::Outcome::Refused),
    /// the session keeps its id, and the adapters respond with 409. A session that already belongs to the principal is never
    /// rejected, also not when it is renewed.
    ///
    /// A principal who loses a device waits until its session expires, unless another device ends it. The memory store, and a
    /// Redis store with one [partition](crate::RedisSessionStoreBuilder::partitions), never exceed the cap. With several
    /// partitions, the default in a cluster, the store counts first, with a command for each partition. Logins of one principal
    /// that run at the same moment do not count each other, so all of them can succeed. They can exceed the cap by their number,
    /// less one.
    Refuse,
}

/// A policy for a save of a session that another request changed since this request read it.
///
/// Without a conflict, a save costs only the comparison of the versions, in the same command. With one, a merge costs decoding,
/// encoding and another command.
///
/// # Right and wrong
///
/// With every policy, [`SessionManager::update`] and [`update_in`](SessionManager::update_in) keep counters and lists exact.
/// The policies treat the changes of two requests like this:
///
/// ```
/// use serde::{Deserialize, Serialize, de::DeserializeOwned};
/// use threaded_sessions::{ErrorKind, MemorySessionStore, OnConflict, Result, SessionManager};
///
/// #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
/// #[serde(default)]
/// struct Shop {
///     theme: String,
///     cart: Vec<String>,
///     hits: u32,
///     order: Order,
/// }
///
/// #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
/// enum Order {
///     #[default]
///     Open,
///     Paid,
///     Cancelled,
/// }
///
/// /// Two requests open a session, both change it, and are committed one after the other.
/// fn race<T>(policy: OnConflict, first: fn(&mut T), second: fn(&mut T)) -> Result<T>
/// where
///     T: Clone + Default + DeserializeOwned + Serialize + 'static,
/// {
///     let sessions = SessionManager::<T>::builder(MemorySessionStore::new()).on_conflict(policy).build()?;
///     let mut session = sessions.fresh();
///     session.renew(); // is stored although its value did not change
///     let id = *sessions.commit(session)?.id().expect("the session is stored");
///     let open = || sessions.open_id(&id).map(|session| session.expect("the session is live"));
///     let (mut one, mut other) = (open()?, open()?);
///     first(&mut one);
///     second(&mut other);
///     let _ = sessions.commit(one)?;
///     let _ = sessions.commit(other)?;
///     let session = open()?;
///     Ok(T::clone(&session))
/// }
///
/// let dark: fn(&mut Shop) = |shop| shop.theme = "dark".into();
/// let hit: fn(&mut Shop) = |shop| shop.hits += 1;
/// let tea: fn(&mut Shop) = |shop| shop.cart.push("tea".into());
/// let pay: fn(&mut Shop) = |shop| shop.order = Order::Paid;
///
/// // Merge, right: they change different fields, one of them a counter, a list or an enum.
/// assert_eq!(race(OnConflict::Merge, dark, hit)?, Shop { theme: "dark".into(), hits: 1, ..Shop::default() });
/// assert_eq!(race(OnConflict::Merge, dark, tea)?, Shop { theme: "dark".into(), cart: vec!["tea".into()], ..Shop::default() });
/// assert_eq!(race(OnConflict::Merge, dark, pay)?, Shop { theme: "dark".into(), order: Order::Paid, ..Shop::default() });
///
/// // Merge, wrong: they change the same counter, list or enum. The later one wins.
/// assert_eq!(race(OnConflict::Merge, hit, hit)?.hits, 1);
/// assert_eq!(race(OnConflict::Merge, tea, tea)?.cart.len(), 1);
/// let cancel: fn(&mut Shop) = |shop| shop.order = Order::Cancelled;
/// assert_eq!(race(OnConflict::Merge, pay, cancel)?.order, Order::Cancelled);
///
/// // Merge, refused: fields that must agree would come from different requests, here of an enum that is tagged inside.
/// #[derive(Clone, Deserialize, Serialize)]
/// #[serde(tag = "state")]
/// enum Basket {
///     Open { items: u32 },
///     Paid { items: u32, paid: u32 },
/// }
///
/// impl Default for Basket {
///     fn default() -> Self {
///         Self::Open { items: 1 }
///     }
/// }
///
/// let add = |basket: &mut Basket| *basket = Basket::Open { items: 2 };
/// let pay_one = |basket: &mut Basket| *basket = Basket::Paid { items: 1, paid: 1 };
/// let refused = race(OnConflict::Merge, add, pay_one).map(drop).unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
///
/// // LastWriteWins, right: the session is one choice. Wrong: everything else.
/// let light: fn(&mut Shop) = |shop| shop.theme = "light".into();
/// assert_eq!(race(OnConflict::LastWriteWins, dark, light)?.theme, "light");
/// assert_eq!(race(OnConflict::LastWriteWins, dark, tea)?.theme, "");
///
/// // Fail, right: only one of them may happen. Wrong: the changes were independent.
/// assert_eq!(race(OnConflict::Fail, pay, cancel).map(drop).unwrap_err().kind(), ErrorKind::Conflict);
/// assert_eq!(race(OnConflict::Fail, dark, tea).map(drop).unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnConflict {
    /// The top-level fields that this request changed are merged into the stored version. The other fields keep what the other
    /// request stored.
    ///
    /// Two requests that change different fields both succeed. If two requests change the same field, the later one wins, so
    /// a counter or a list loses one change.
    ///
    /// If one of the two requests left the value as it was, there is nothing to merge: a [login](crate::Session::renew),
    /// [`bind`](crate::Session::bind) or [`remember`](crate::Session::remember) without a change of the value never conflicts,
    /// whatever `T` is.
    ///
    /// A conflict that cannot be merged fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict):
    ///
    /// - `T` is no struct or map, or is an enum that serde tags externally, the default.
    /// - `T` is an enum with another tag or has a `flatten`, and one of the two requests changed the variant, or fields that depend
    ///   on each other.
    /// - The merged fields cannot be decoded as a `T`, or the result is too large.
    /// - Both requests changed a list, and this request only changed the order of its items. A `HashSet` can look like that, because
    ///   it has no fixed order.
    /// - Another version of the program stored fields that this version does not know. They would be lost.
    /// - Other requests kept changing the session for at least 1 second and at least 128 attempts.
    ///
    /// This is the default, because it is right for most sessions, rejects no request for an unrelated change, and costs
    /// nothing without a conflict.
    #[default]
    Merge,
    /// The change of this request overwrites the change of the other request. A request that did not change the value
    /// overwrites nothing.
    LastWriteWins,
    /// The change of this request is rejected with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict), which the adapters
    /// turn into a 409.
    Fail,
}

/// A policy for a session whose payload neither the codec nor its [migration](crate::codec::SerdeCodec::migrate) can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unreadable {
    /// Opening the session fails with [`ErrorKind::Payload`](crate::ErrorKind::Payload). This is the default, because it loses
    /// nothing.
    #[default]
    Fail,
    /// The visitor gets a new session, and opening the session by its id returns `None`. The stored payload is left to expire,
    /// and a warning is logged.
    StartFresh,
}

/// The settings of a [`SessionManager`]; from [`SessionManager::builder`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use threaded_sessions::{MemorySessionStore, OnConflict, SessionManager};
///
/// const HOUR: Duration = Duration::from_secs(3600);
///
/// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
///     .idle_timeout(HOUR)
///     .lifetime(HOUR * 24 * 90) // a quarter of a year, remembered or not
///     .remember_for(HOUR * 24 * 30)
///     .on_conflict(OnConflict::Fail)
///     .secure(false) // development over plain HTTP
///     .build()?;
/// # let _ = sessions;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[must_use]
pub struct SessionManagerBuilder<T>(Inner<T>);

impl<T: 'static> Inner<T> {
    fn new(store: impl SessionStore, codec: impl Codec<T>) -> Self {
        Self {
            store: Arc::new(store),
            codec: Arc::new(Fenced(codec)),
            cookie: SessionCookie::default(),
            cross_origin: CrossOriginProtection::default(),
            plain_http: PlainHttp::default(),
            clock: Clock::system(),
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            anonymous_idle_timeout: None,
            lifetime: None,
            remember_for: None,
            touch_on_read: true,
            touch_every: None,
            renew_every: None,
            on_conflict: OnConflict::Merge,
            unreadable: Unreadable::Fail,
            max_payload: DEFAULT_MAX_PAYLOAD,
            read_back: true,
            max_per_principal: None,
            on_cap: OnCap::EndOldest,
            bounded: Bounded::default(),
            turns: Turns::new(),
            observers: Observers::default(),
            #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
            error_pages: ErrorPages::default(),
        }
    }

    /// Checks the settings, except those of the cookie.
    fn validate(&self) -> Result<()> {
        let times = [self.idle_timeout, self.anonymous_idle_timeout, self.lifetime, self.remember_for];
        let is_too_short = times.into_iter().flatten().any(|time| time < Duration::from_millis(1));
        let outlives = |limit: Option<Duration>| self.remember_for.zip(limit).is_some_and(|(time, limit)| time > limit);
        let rules = [
            (is_too_short, "idle timeouts, `lifetime` and `remember_for` must be at least 1 ms, or not set"),
            (
                self.remember_for.is_some() && !outlives(self.idle_timeout),
                "`remember_for` must be longer than `idle_timeout`",
            ),
            (
                self.anonymous_idle_timeout.zip(self.idle_timeout).is_some_and(|(anonymous, idle)| anonymous > idle),
                "`anonymous_idle_timeout` must not be longer than `idle_timeout`",
            ),
            (
                self.anonymous_idle_timeout.is_some() && self.store.index().is_none(),
                "`anonymous_idle_timeout` needs a store with an index: use an expiring Redis store or a memory store",
            ),
            (outlives(self.lifetime), "`remember_for` must not be longer than `lifetime`"),
            (self.max_per_principal == Some(0), "`max_per_principal` must be at least 1"),
            (
                self.max_per_principal.is_some() && self.store.index().is_none(),
                "`max_per_principal` needs a store with an index: use an expiring Redis store or a memory store",
            ),
            (
                self.on_cap == OnCap::Refuse && self.max_per_principal.is_none(),
                "`on_cap` can reject logins only with a cap: set `max_per_principal`",
            ),
            (self.max_payload == 0, "`max_payload` must be greater than 0"),
        ];
        Error::first_broken(operation::BUILD_MANAGER, rules)?;
        self.validate_intervals()
    }

    /// Checks the settings that do something again after a time.
    fn validate_intervals(&self) -> Result<()> {
        let shortest_idle = self.timeouts().shortest_idle_timeout();
        let rules = [
            (
                self.touch_every.is_some_and(|every| every < Duration::from_millis(1)),
                "`touch_every` must be at least 1 ms, or not set",
            ),
            (
                self.touch_every.is_some() && !self.touch_on_read,
                "`touch_every` needs `touch_on_read`, because otherwise no read touches a session",
            ),
            (
                self.touch_every.is_some() && shortest_idle.is_none(),
                "`touch_every` needs an `idle_timeout`, because otherwise no session is touched",
            ),
            (
                self.touch_every.zip(shortest_idle).is_some_and(|(every, idle)| every > idle),
                "`touch_every` must not be longer than `idle_timeout` or `anonymous_idle_timeout`",
            ),
            (
                self.renew_every.is_some_and(|every| every < Duration::from_millis(1)),
                "`renew_every` must be at least 1 ms, or not set",
            ),
            (
                self.renew_every.is_some() && !self.touch_on_read,
                "`renew_every` needs `touch_on_read`, because a renewal extends the session",
            ),
            (
                self.renew_every.zip(self.lifetime).is_some_and(|(every, lifetime)| every >= lifetime),
                "`renew_every` must be shorter than `lifetime`, because otherwise no id is renewed",
            ),
        ];
        Error::first_broken(operation::BUILD_MANAGER, rules)
    }
}

// The methods have the bounds, and name `Deserialize` instead of `DeserializeOwned`, so that the compiler shows serde's advice for a
// `T` that lacks a derive.
impl<T: 'static> SessionManager<T> {
    /// Creates a manager with the default settings of [`SessionManagerBuilder`].
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// assert_eq!(*sessions.open(None)?, 0);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn new(store: impl SessionStore) -> Self
    where
        T: Serialize + for<'de> Deserialize<'de>,
    {
        Self::builder(store).build().expect("the default settings are valid")
    }

    /// Returns a builder for a manager with other settings. The codec defaults to [`Json`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .idle_timeout(Duration::from_secs(1800))
    ///     .build()?;
    /// # let _ = sessions;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn builder(store: impl SessionStore) -> SessionManagerBuilder<T>
    where
        T: Serialize + for<'de> Deserialize<'de>,
    {
        Self::builder_with_codec(store, Json::new())
    }
}

impl<T: 'static> SessionManagerBuilder<T> {
    pub(super) fn new(store: impl SessionStore, codec: impl Codec<T>) -> Self {
        Self(Inner::new(store, codec))
    }

    fn with(mut self, set: impl FnOnce(&mut Inner<T>)) -> Self {
        set(&mut self.0);
        self
    }

    /// Sets the codec, which converts a session to a payload and back. Defaults to [`Json`](crate::Json).
    pub fn codec(self, codec: impl Codec<T>) -> Self {
        self.with(|inner| inner.codec = Arc::new(Fenced(codec)))
    }

    /// Sets the idle timeout: a session expires this long after its last use. Defaults to one week.
    ///
    /// With `None`, a session does not expire by idling. The timeout is at least 1 ms; more than 100 years count as 100 years.
    /// (rrss `:duration`, also one week; ring-redis-session `:expire-secs`.)
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .idle_timeout(Duration::from_secs(1800))
    ///     .build()?;
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    /// let session = sessions.open_id(&id)?.expect("the session is live");
    /// assert!(session.expires_in().is_some_and(|left| left <= Duration::from_secs(1800)));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn idle_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.with(|inner| inner.idle_timeout = timeout)
    }

    /// Sets a shorter idle timeout for sessions without an owner. Defaults to `None`: they have the
    /// [`idle_timeout`](Self::idle_timeout).
    ///
    /// It limits how long sessions of bots and of passing visitors stay in the store. A session has an owner from the commit of
    /// [`bind`](crate::Session::bind) on. This commit moves the deadline to the full idle timeout, and a commit of
    /// [`unbind`](crate::Session::unbind) or [`reset`](crate::Session::reset) moves it back. A
    /// [remembered](crate::Session::remember) session counts as owned.
    ///
    /// The script that reads a session does not know its owner, which is inside the payload. So a read first extends the session
    /// only by this time. A second round trip extends an owned session to its full idle timeout, at most about 64 times in one idle
    /// timeout.
    ///
    /// It needs a store with an index, the expiring Redis store or the memory store. On a plain store no session can have an owner.
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
    /// let sessions = SessionManager::<u32>::builder(store)
    ///     .clock(clock.clone())
    ///     .idle_timeout(HOUR * 24)
    ///     .anonymous_idle_timeout(HOUR)
    ///     .build()?;
    ///
    /// let mut visitor = sessions.fresh();
    /// *visitor += 1;
    /// let visitor = *sessions.commit(visitor)?.id().expect("it is stored");
    /// let mut ada = sessions.fresh();
    /// ada.bind("ada", "laptop");
    /// let ada = *sessions.commit(ada)?.id().expect("it is stored");
    ///
    /// clock.advance(HOUR);
    /// assert!(sessions.open_id(&visitor)?.is_none());
    /// assert!(sessions.open_id(&ada)?.is_some());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn anonymous_idle_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.with(|inner| inner.anonymous_idle_timeout = timeout)
    }

    /// Sets the absolute timeout: a session ends this long after it was created, however often it is used. Defaults to `None`.
    ///
    /// It also limits [remembered](crate::Session::remember) sessions. A [renewal](crate::Session::renew) does not restart it,
    /// but [`restart_lifetime`](crate::Session::restart_lifetime) does, so that the lifetime can count from the login. It is at
    /// least 1 ms. It is measured on the [clock](Self::clock) of the application, so the clocks of its processes should not
    /// differ much. (OWASP's absolute timeout.)
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{Clock, MemorySessionStore, SessionManager};
    ///
    /// let (clock, hour) = (Clock::manual(), Duration::from_secs(3600));
    /// let store = MemorySessionStore::new().with_clock(clock.clone());
    /// let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).lifetime(hour * 8).build()?;
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    ///
    /// clock.advance(hour * 7);
    /// assert!(sessions.open_id(&id)?.is_some());
    /// clock.advance(hour);
    /// assert!(sessions.open_id(&id)?.is_none());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn lifetime(self, lifetime: impl Into<Option<Duration>>) -> Self {
        let lifetime = lifetime.into();
        self.with(|inner| inner.lifetime = lifetime)
    }

    /// Sets the idle timeout and the cookie's age for [remembered](crate::Session::remember) sessions. Defaults to `None`: the
    /// [`idle_timeout`](Self::idle_timeout).
    ///
    /// It must be longer than `idle_timeout`, and not longer than [`lifetime`](Self::lifetime).
    ///
    /// With this setting, the plain Redis store reads by a `GET` and a script in one round trip, because `GETEX` would shorten
    /// remembered sessions. The read of a remembered session takes a second round trip, at most about 64 times in this time.
    ///
    /// For an example, see [`Session::remember`](crate::Session::remember).
    pub fn remember_for(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.with(|inner| inner.remember_for = timeout)
    }

    /// Sets whether opening a session counts as use, and so moves its idle deadline. Defaults to `true`.
    ///
    /// The same round trip reads the session and moves the deadline. With `false`, only changes count as use, as in rrss.
    /// (ring-redis-session `:reset-on-read`.)
    pub fn touch_on_read(self, touch: bool) -> Self {
        self.with(|inner| inner.touch_on_read = touch)
    }

    /// Sets how often reading a session may write to the store. Defaults to `None`: every read moves the deadline.
    ///
    /// With it, every write and every touch makes the session live for this long in addition to its idle timeout. A read touches
    /// the session only when the idle timeout or less is left. So a session that is read often is touched about once in this time.
    /// All other reads write nothing, neither to the append-only file of Redis nor to its replicas. A session still
    /// lives at least its idle timeout after its last use, and at most this much longer. Its lifetime still bounds it.
    ///
    /// [`Session::expires_in`](crate::Session::expires_in) does not count the additional time. So it can be shorter than the idle
    /// timeout by up to `touch_every`, also in a request that counts as use.
    ///
    /// A read takes one round trip as before, but it runs a script, also on a plain Redis store. The read of a remembered or an
    /// owned session with a longer idle timeout takes a second round trip, about once in this time. Managers with and without
    /// this setting may share a store. It must not be longer than the shortest idle timeout, so it needs an idle timeout, and it needs
    /// [`touch_on_read`](Self::touch_on_read).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .idle_timeout(30 * MINUTE)
    ///     .touch_every(5 * MINUTE) // ends 30 to 35 minutes after the last use
    ///     .build()?;
    /// # let _ = sessions;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn touch_every(self, time: impl Into<Option<Duration>>) -> Self {
        let time = time.into();
        self.with(|inner| inner.touch_every = time)
    }

    /// Sets the age at which the id of a session is replaced. Defaults to `None`: only [`renew`](crate::Session::renew) replaces
    /// it.
    ///
    /// An id that leaked, for example into a log or a backup, then opens the session for this time at most, if the visitor keeps
    /// using the session. A thief who uses the id when it is due gets the new one, and the visitor has to sign in again. (OWASP's
    /// renewal timeout.)
    ///
    /// The commit of a request that uses the session renews an older id, in the one step and with the grace period of
    /// [`renew`](crate::Session::renew). While the id is young, no additional command is sent. If the request changes nothing
    /// and the renewal fails, because of an outage for example, the request keeps the old id, and a later request renews it. The
    /// request fails only if the page has a [CSRF token](crate::Session::csrf_token), if the id may have been renewed, or if the
    /// user of Redis lacks a right.
    ///
    /// Other requests of the visitor may be under way with the old id at that moment, as at a login:
    ///
    /// - A request that has opened the session and changes nothing ends as usual, and sets no cookie.
    /// - Its changes, if there are any, are not stored. The outcome is [`Detached`](crate::Outcome::Detached), which the adapters
    ///   turn into a 409. The page should send the request again.
    /// - A request that opens the session after the renewal, with the old cookie, gets a
    ///   [detached](crate::Session::is_detached) session, which is not signed in.
    ///
    /// If the response with the new cookie never reaches the visitor, the visitor has to sign in again. Therefore choose a long time,
    /// such as a few hours. The [CSRF tokens](crate::Session::csrf_token) of earlier pages end with the id.
    ///
    /// The following requests never renew by age:
    ///
    /// - a [`peek`](SessionManager::peek) and a discard, because they store nothing;
    /// - [`open_id`](SessionManager::open_id) and [`update`](SessionManager::update), because no response takes the new id to the
    ///   visitor;
    /// - [bearer tokens](SessionManager::open_bearer), because a client that sends requests in parallel would get a 409 even for
    ///   those that only read. Call `renew` in a route that the client calls alone.
    ///
    /// It needs [`touch_on_read`](Self::touch_on_read), because a renewal extends the session. It must be shorter than
    /// [`lifetime`](Self::lifetime).
    ///
    /// The age is that of the session until the first renewal under this setting. Then the payload holds the time of the last
    /// renewal, about 20 bytes. [`restart_lifetime`](crate::Session::restart_lifetime) before it begins the age anew.
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
    /// let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).renew_every(4 * HOUR).build()?;
    /// let mut session = sessions.fresh();
    /// *session = 7;
    /// let old = *sessions.commit(session)?.id().expect("it is stored");
    ///
    /// clock.advance(5 * HOUR);
    /// let session = sessions.open([&*format!("__Host-session={}", old.expose())])?;
    /// let committed = sessions.commit(session)?;
    /// assert_ne!(committed.id(), Some(&old));
    /// assert!(committed.headers().any(|(name, _)| name == "Set-Cookie"));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn renew_every(self, age: impl Into<Option<Duration>>) -> Self {
        let age = age.into();
        self.with(|inner| inner.renew_every = age)
    }

    /// Sets the policy for two requests that change a session at once. Defaults to [`OnConflict::Merge`].
    ///
    /// [`Session::on_conflict`](crate::Session::on_conflict) overrides it for one session.
    pub fn on_conflict(self, policy: OnConflict) -> Self {
        self.with(|settings| settings.on_conflict = policy)
    }

    /// Sets the policy for a session that cannot be decoded. Defaults to [`Unreadable::Fail`].
    pub fn unreadable(self, policy: Unreadable) -> Self {
        self.with(|settings| settings.unreadable = policy)
    }

    /// Sets the size of the largest payload to store, in bytes. Defaults to 1 MiB.
    ///
    /// The commit of a larger payload fails with [`ErrorKind::Payload`](crate::ErrorKind::Payload), and the stored session
    /// stays. A stored payload is read whatever its size.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorKind, MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<String>::builder(MemorySessionStore::new()).max_payload(1024).build()?;
    /// let mut session = sessions.open(None)?;
    /// session.push_str(&"x".repeat(2000));
    /// assert_eq!(sessions.commit(session).unwrap_err().kind(), ErrorKind::Payload);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn max_payload(self, bytes: usize) -> Self {
        self.with(|inner| inner.max_payload = bytes)
    }

    /// Sets whether a save first checks that its payload can be decoded again. Defaults to `true`.
    ///
    /// serde can write [some values](crate::codec#values-that-serde-cannot-read-back) that it cannot read. With `true`, such a
    /// change is rejected with [`ErrorKind::Payload`](crate::ErrorKind::Payload), and the stored session stays as it was. With
    /// `false`, it is stored, and every later request of the visitor fails. Reading back proves that a value can be read, not
    /// that it comes back equal.
    ///
    /// Reading back costs what decoding costs. A session that did not change is not encoded, and costs nothing. With JSON, a commit
    /// of a value of 200 B takes 0.5 µs longer, of 4 KiB 9 µs, and of 64 KiB 140 µs; with MessagePack 0.3, 6 and 150 µs. (The bench
    /// `read_back` measures it. Redis adds about 60 µs to each commit.) If steps change payloads, such
    /// as encryption, they first restore the payload, which the manager then decodes.
    pub fn read_back(self, read_back: bool) -> Self {
        self.with(|inner| inner.read_back = read_back)
    }

    /// Sets the maximum number of sessions of a principal, at least 1. Defaults to `None`: no limit.
    ///
    /// A further [`bind`](crate::Session::bind) ends the oldest session of the principal, unless [`on_cap`](Self::on_cap)
    /// rejects it. It needs a store with an index.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).max_per_principal(2).build()?;
    /// for device in ["laptop", "phone", "tablet"] {
    ///     let mut session = sessions.fresh();
    ///     session.bind("ada", device);
    ///     sessions.commit(session)?;
    /// }
    /// assert_eq!(sessions.list("ada")?.len(), 2);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn max_per_principal(self, sessions: impl Into<Option<u32>>) -> Self {
        let sessions = sessions.into();
        self.with(|inner| inner.max_per_principal = sessions)
    }

    /// Sets the policy for a login of a principal with [`max_per_principal`](Self::max_per_principal) sessions. Defaults to
    /// [`OnCap::EndOldest`].
    ///
    /// For an example, see [`SessionManager::sign_in`].
    pub fn on_cap(self, on_cap: OnCap) -> Self {
        self.with(|inner| inner.on_cap = on_cap)
    }

    /// Sets the name of the cookie. Defaults to `__Host-session` where browsers allow that prefix.
    ///
    /// They allow it for a `Secure` cookie with the path `/` and no domain. Any other `Secure` cookie is named
    /// `__Secure-session`, and a cookie without `Secure` is named `session`.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).cookie_name("__Host-shop").build()?;
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let committed = sessions.commit(session)?;
    /// assert!(committed.headers().any(|(_, value)| value.starts_with("__Host-shop=")));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn cookie_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|inner| inner.cookie.name = Some(name))
    }

    /// Sets the path of the cookie: browsers send the cookie with requests below it. Defaults to `/`. (Ring's `:root`.)
    pub fn cookie_path(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.with(|inner| inner.cookie.path = path)
    }

    /// Sets the domain of the cookie, whose subdomains then get the cookie as well. Defaults to none: this host only.
    pub fn cookie_domain(self, domain: impl Into<String>) -> Self {
        let domain = domain.into();
        self.with(|inner| inner.cookie.domain = Some(domain))
    }

    /// Sets whether browsers send the cookie over HTTPS only. Defaults to `true`.
    ///
    /// Set `false` for development over plain HTTP from another host than `localhost`, or with Safari, because browsers drop a
    /// `Secure` cookie there. Behind a proxy that speaks HTTPS to the visitors, keep the default.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).secure(false).build()?;
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let committed = sessions.commit(session)?;
    /// assert!(committed.headers().all(|(_, value)| !value.contains("Secure")));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn secure(self, secure: bool) -> Self {
        self.with(|inner| inner.cookie.secure = secure)
    }

    /// Sets whether the cookie is hidden from scripts in the page. Defaults to `true`.
    pub fn http_only(self, http_only: bool) -> Self {
        self.with(|inner| inner.cookie.http_only = http_only)
    }

    /// Sets whether browsers send the cookie with requests from other sites. Defaults to [`SameSite::Lax`].
    ///
    /// With `Lax`, a request from another site carries the cookie only if the visitor follows a link. `SameSite::None` needs
    /// [`secure`](Self::secure).
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.with(|inner| inner.cookie.same_site = same_site)
    }

    /// Sets whether browsers keep a separate cookie for each site that embeds this one. Defaults to `false`.
    ///
    /// The attribute is `Partitioned` (CHIPS). With it, two embedding sites never see the same session. Use it for pages in
    /// frames of other sites, together with `SameSite::None`. It needs [`secure`](Self::secure).
    pub fn partitioned(self, partitioned: bool) -> Self {
        self.with(|inner| inner.cookie.partitioned = partitioned)
    }

    /// Sets whether the adapters reject requests from other origins. Defaults to `true`.
    ///
    /// [`check_cross_origin`](SessionManager::check_cross_origin) has the rules. `false` leaves protection from forged requests to
    /// the application.
    #[doc(alias = "csrf")]
    pub fn cross_origin_protection(self, is_on: bool) -> Self {
        self.with(|inner| inner.cross_origin.is_on = is_on)
    }

    /// Sets a further origin whose pages may send requests, such as `https://admin.example.com`. Defaults to none.
    ///
    /// Call it once for each origin. An origin is a scheme and a host, and a port if it is not the default one of the scheme.
    /// There are no wildcards. All pages of the origin can then act for a visitor whose cookie the browser sends.
    ///
    /// If a proxy changes `Host`, name the origin that visitors see, or configure the proxy to pass `Host`.
    pub fn trusted_origin(self, origin: impl AsRef<str>) -> Self {
        self.with(|inner| inner.cross_origin.trust(origin.as_ref()))
    }

    /// Sets a further path that accepts requests from every origin. Defaults to none.
    ///
    /// Call it once for each path. It is for sign-in by `POST` from another site (OpenID Connect with `form_post`, SAML), whose
    /// handler has to verify the request by other means. The whole path is compared, undecoded and without the query; after
    /// rouille's `remove_prefix` that is the path without the prefix.
    pub fn exempt_path(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.with(|inner| inner.cross_origin.exempt(path))
    }

    /// Sets the function that makes the response to a request that failed. Defaults to a line of text.
    ///
    /// The adapters call it if a handler returns an error, if the session cannot be opened or committed, if the change of a
    /// handler was lost, and if a request comes from another origin. It runs in the thread of the request. The response also
    /// gets `Cache-Control: no-store`, `Retry-After` with status 503, and the headers of the session. If the function panics,
    /// the response is the default one.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorPage, MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .error_page(|failure| match failure.wants_json() {
    ///         true => ErrorPage::json(format!(r#"{{"status": {}}}"#, failure.status())),
    ///         false => ErrorPage::html("<h1>Sorry</h1><p>Please try again in a moment."),
    ///     })
    ///     .build()?;
    /// # let _ = sessions;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub fn error_page(self, page: impl Fn(&Failure) -> ErrorPage + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.error_pages.page = Some(Arc::new(page)))
    }

    /// Sets the function that names the route of a path in the log. Defaults to the path itself.
    ///
    /// The adapters log failed requests with method and path, without the query. Set it if a path can hold a secret, such as
    /// the token for a new password. It gets the path undecoded. If the function panics, the log shows `?`.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .route_name(|path| match path.strip_prefix("/reset/") {
    ///         Some(_) => "/reset/{token}".to_owned(),
    ///         None => path.to_owned(),
    ///     })
    ///     .build()?;
    /// # let _ = sessions;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub fn route_name(self, name: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.error_pages.route_name = Some(Arc::new(name)))
    }

    /// Sets the clock for creation times and lifetimes. Defaults to the system's.
    ///
    /// The store has a separate clock. A test that moves the time passes the same clock to
    /// [`MemorySessionStore::with_clock`](crate::MemorySessionStore::with_clock).
    pub fn clock(self, clock: Clock) -> Self {
        self.with(|inner| inner.clock = clock)
    }

    /// Adds an observer, for metrics and traces. Defaults to none.
    ///
    /// Call it once for each observer. The observer gets the operations of the store, the sessions that begin and end, conflicts,
    /// and events of the connections to Redis. Several managers may share an observer. Without an observer, nothing is measured.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use threaded_sessions::observer::PrometheusText;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let metrics = Arc::new(PrometheusText::new());
    /// let sessions =
    ///     SessionManager::<u32>::builder(MemorySessionStore::new()).observer(metrics.clone()).build()?;
    /// # let _ = sessions;
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        self.with(|inner| inner.observers.add(observer))
    }

    /// Builds the manager.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured), with the rule as its source, if
    ///
    /// - the name, the path or the domain of the cookie is invalid, or browsers would reject the combination of its attributes;
    /// - `idle_timeout`, `anonymous_idle_timeout`, `lifetime` or `remember_for` is shorter than 1 ms;
    /// - `anonymous_idle_timeout` is longer than `idle_timeout`, or is set and the store has no index;
    /// - `remember_for` is not longer than `idle_timeout`, or is longer than `lifetime`;
    /// - `touch_every` is shorter than 1 ms or longer than the shortest idle timeout, or there is no idle timeout, or `touch_on_read`
    ///   is off;
    /// - `renew_every` is shorter than 1 ms or not shorter than `lifetime`, or `touch_on_read` is off;
    /// - `max_payload` or `max_per_principal` is 0;
    /// - `max_per_principal` is set and the store has no index, or is not set and `on_cap` is `Refuse`;
    /// - a `trusted_origin` is not a whole origin, or an `exempt_path` is not a whole path.
    pub fn build(self) -> Result<SessionManager<T>> {
        let mut inner = self.0;
        inner.validate()?;
        inner.cross_origin.validate()?;
        inner.cookie = inner.cookie.validate()?;
        // Stores return the time left, and none of it is longer than `MAX_TTL`.
        let Inner { idle_timeout, anonymous_idle_timeout, remember_for, lifetime, .. } = &mut inner;
        for time in [idle_timeout, anonymous_idle_timeout, remember_for, lifetime] {
            *time = time.map(|time| time.min(MAX_TTL));
        }
        if !inner.observers.is_empty() {
            inner.store = Arc::new(ObservedStore::new(inner.store, inner.observers.clone()));
        }
        Ok(SessionManager(Arc::new(inner)))
    }
}

impl<T> fmt::Debug for SessionManagerBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
