//! The sessions of a principal, and all sessions of a store: list, end, count and verify them.
//!
//! Applications use it for "where you are signed in" and "sign out everywhere", operators for the rest. It needs a store with
//! an index. A session that was ended stays ended, even if a request still holds it.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Inner, SessionManager};
use crate::observer::EndCause;
use crate::store::{Belonging, Ending, Verified, VerifyOptions, index_of};
use crate::{AllSessions, Handle, Result, Session, operation, serialize};

/// A session that belongs to a principal, in a form that you can show to the principal; from [`SessionManager::list`].
///
/// It serializes the fields under their names: the handle as its text, `expires_in` in milliseconds, and the other times in
/// milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoundSession {
    /// The handle of the session. It is safe to show, and to accept from a form, because it does not give access to the
    /// session.
    pub handle: Handle,
    /// The label that [`bind`](Session::bind) set.
    pub label: String,
    /// The time when the session [began](Session::created).
    #[serde(serialize_with = "serialize::moment")]
    pub created: SystemTime,
    /// The time when the session was last used: opened, or changed if opening does not count as use. `None` if it is unknown.
    ///
    /// It is exact to within a 64th of [`remember_for`](crate::SessionManagerBuilder::remember_for) if the session is
    /// remembered, or of the idle timeout if [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout)
    /// is set, and to within [`touch_every`](crate::SessionManagerBuilder::touch_every). It follows from the idle timeout that
    /// the session was stored with, whatever the settings of the manager that lists. It is unknown if the session does not
    /// expire by idling, if its lifetime ends before its idle timeout, or if a manager with another idle timeout used it.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub last_used: Option<SystemTime>,
    /// The time left if the session is not used. `None`: it does not expire.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub expires_in: Option<Duration>,
}

impl BoundSession {
    /// Returns `true` if this entry is the given session, for example to mark the current device in a list.
    pub fn is<T: 'static>(&self, session: &Session<T>) -> bool {
        session.handle() == Some(self.handle)
    }
}

/// The sessions of a principal: "where you are signed in".
///
/// All methods but `all` and `end_everybody` need a store with an index, and fail with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on another store. After the call returned, every new request finds an
/// ended session absent. A request that still holds the session cannot store it again.
///
/// # Examples
///
/// ```
/// use threaded_sessions::{MemorySessionStore, SessionManager};
///
/// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).max_per_principal(5).build()?;
/// let mut session = sessions.open(None)?;
/// session.renew();
/// session.bind("ada", "laptop");
/// let _ = sessions.commit(session)?;
///
/// assert_eq!(sessions.list("ada")?[0].label, "laptop");
/// assert_eq!(sessions.end_all("ada")?, 1);
/// assert!(sessions.list("ada")?.is_empty());
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
impl<T: 'static> SessionManager<T> {
    /// Returns the live sessions of a principal, the newest first.
    ///
    /// The list has at most 1000 sessions of each partition, and leaves out a session that cannot be decoded.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// for device in ["laptop", "phone"] {
    ///     let mut session = sessions.fresh();
    ///     session.bind("ada", device);
    ///     sessions.commit(session)?;
    /// }
    /// let labels: Vec<String> = sessions.list("ada")?.into_iter().map(|session| session.label).collect();
    /// assert_eq!(labels, ["phone", "laptop"]);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias = "find_by_principal_name")]
    pub fn list(&self, principal: &str) -> Result<Vec<BoundSession>> {
        let (inner, now) = (&*self.0, self.0.clock.now());
        let stored = index_of(self.store(), operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?;
        let shown = stored.into_iter().filter_map(|belonging| inner.bound_session(belonging, now));
        Ok(shown.map(|(session, _)| session).collect())
    }

    /// Returns the live sessions of a principal with their values, the newest first.
    ///
    /// It has the limits of [`list`](Self::list), and does not count as use.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # use threaded_sessions::{MemorySessionStore, SessionManager};
    /// # let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// # let mut session = sessions.open(None)?;
    /// # *session = 7;
    /// # session.bind("ada", "laptop");
    /// # let _ = sessions.commit(session)?;
    /// for (session, count) in sessions.list_with_data("ada")? {
    ///     println!("{}: {count}", session.label);
    /// #   assert_eq!((&*session.label, count), ("laptop", 7));
    /// }
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn list_with_data(&self, principal: &str) -> Result<Vec<(BoundSession, T)>> {
        let (inner, now) = (&*self.0, self.0.clock.now());
        let stored = index_of(self.store(), operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?;
        Ok(stored.into_iter().filter_map(|belonging| inner.bound_session(belonging, now)).collect())
    }

    /// Ends all sessions of a principal, and returns how many there were.
    ///
    /// Use it for "sign out everywhere", and after a change of the password.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails. Some sessions may have ended by then; you can safely call `end_all` again.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.fresh();
    /// session.bind("ada", "laptop");
    /// sessions.commit(session)?;
    /// assert_eq!(sessions.end_all("ada")?, 1);
    /// assert_eq!(sessions.end_all("ada")?, 0);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn end_all(&self, principal: &str) -> Result<u64> {
        self.end_for(principal, Ending::All, EndCause::EndAll)
    }

    /// Ends all other sessions of the principal of this session, and returns how many there were.
    ///
    /// It ends none if the session has no principal. If the session gets its principal only with its commit, it ends all
    /// sessions that the principal has so far.
    ///
    /// # Errors
    ///
    /// - Returns the same errors as [`end_all`](Self::end_all).
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if another request renewed or ended the session, or bound
    ///   it to another principal. Then no session has ended, because the session, under its new id, might be among them.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut ids = Vec::new();
    /// for device in ["laptop", "phone"] {
    ///     let mut session = sessions.fresh();
    ///     session.bind("ada", device);
    ///     ids.extend(sessions.commit(session)?.id().copied());
    /// }
    /// let phone = sessions.open_id(&ids[1])?.expect("the session is live");
    /// assert_eq!(sessions.end_others(&phone)?, 1);
    /// assert!(sessions.open_id(&ids[0])?.is_none());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn end_others(&self, session: &Session<T>) -> Result<u64> {
        match (session.principal(), session.id()) {
            (Some(principal), Some(id)) if session.stored_principal.as_deref() == Some(principal) => {
                self.end_for(principal, Ending::AllExcept(id), EndCause::EndOthers)
            }
            (Some(principal), _) => self.end_for(principal, Ending::All, EndCause::EndOthers),
            (None, _) => Ok(0),
        }
    }

    /// Ends the session with this handle if it belongs to this principal, and returns `true` if there was one.
    ///
    /// Because the principal must match, no visitor can end the session of another with a forged form. The method is for the
    /// list of a principal's sessions. Within a request [`Session::destroy`] ends the visitor's session and clears the cookie,
    /// and [`SessionStore::delete`](crate::SessionStore::delete) ends a session by its id.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`end_all`](Self::end_all).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.fresh();
    /// session.bind("ada", "laptop");
    /// sessions.commit(session)?;
    ///
    /// let handle = sessions.list("ada")?[0].handle;
    /// assert!(!sessions.end("eve", handle)?);
    /// assert!(sessions.end("ada", handle)?);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn end(&self, principal: &str, handle: Handle) -> Result<bool> {
        Ok(self.end_for(principal, Ending::Only(handle), EndCause::End)? > 0)
    }

    /// Ends all sessions of the store, with or without a principal, and returns how many there were.
    ///
    /// It is for an administrator, for example after a breach. If you call it within a request, the session of that request
    /// ends too. When it returns, all sessions that began before the call have ended, including those that were renewed during
    /// the call. Sessions that begin during the call may live.
    ///
    /// Sessions that a Redis store lost from its index are not found: call [`verify`](crate::store::SessionIndex::verify) first.
    /// [`on_expired`](crate::ReaperBuilder::on_expired) is called for none of them.
    ///
    /// On a plain Redis store it walks all keys of the database. To see how far it is, or to stop it, call
    /// [`AllSessions::end_everybody`], which also has the limits of the plain store.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has neither an index nor a walk, or is
    ///   a plain Redis store with a custom key mapper.
    /// - Returns an error if a store operation fails. Some sessions may have ended by then; you can safely call it again.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, Outcome, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session += 1;
    /// let id = *sessions.commit(session)?.id().expect("the session is stored");
    /// let mut late = sessions.open_id(&id)?.expect("the session is live");
    ///
    /// assert_eq!(sessions.end_everybody()?, 1);
    /// *late += 1;
    /// assert_eq!(sessions.commit(late)?.outcome(), Outcome::Dropped);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn end_everybody(&self) -> Result<u64> {
        Ok(self.all().end_everybody(|_| ControlFlow::Continue(()))?.ended)
    }

    /// Counts the live sessions, by the [index](crate::store::SessionIndex::count).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session += 1;
    /// sessions.commit(session)?;
    /// assert_eq!(sessions.count()?, 1);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn count(&self) -> Result<u64> {
        index_of(self.store(), operation::COUNT)?.count()
    }

    /// Corrects the index of the store, and returns the findings; see [`SessionIndex::verify`](crate::store::SessionIndex::verify).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails. You can safely call `verify` again.
    pub fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        index_of(self.store(), operation::VERIFY)?.verify(options)
    }

    /// Ends sessions of a principal, and reports how many.
    fn end_for(&self, principal: &str, which: Ending<'_>, reason: EndCause) -> Result<u64> {
        let ended = index_of(self.store(), operation::END)?.end(principal, which)?;
        self.0.report_all_ended(ended, reason);
        Ok(ended)
    }

    /// Returns all sessions of the store, with or without a principal: to list them, to count them, and to end one by its handle.
    ///
    /// It also works on a plain Redis store, where it walks all keys. Payloads that are neither JSON nor MessagePack are read by
    /// the codec of the manager.
    #[doc(alias = "Iterate")]
    pub fn all(&self) -> AllSessions<'_> {
        let inner = &*self.0;
        AllSessions::new(&*inner.store)
            .with_clock(inner.clock.clone())
            .with_touch_every(inner.touch_every.unwrap_or_default())
            .with_decoder(|payload| inner.decode(payload).ok().map(|envelope| envelope.head()))
    }
}

impl<T: 'static> Inner<T> {
    /// Describes a session of a principal, and returns its value too. Returns `None` if the session cannot be decoded or its
    /// lifetime is over.
    fn bound_session(&self, belonging: Belonging, now: SystemTime) -> Option<(BoundSession, T)> {
        let mut envelope = self.decode(&belonging.payload).ok()?;
        envelope.limit_times(now);
        let lifetime_left = self.lifetime_left(&envelope, now);
        if lifetime_left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        let additional = self.touch_every.unwrap_or_default();
        let session = BoundSession {
            handle: belonging.handle,
            last_used: envelope.last_used(belonging.expires_in, additional, lifetime_left, now),
            created: envelope.created,
            expires_in: self.timeouts().promise(belonging.expires_in, &envelope, now),
            label: envelope.bound.map(|bound| bound.label).unwrap_or_default(),
        };
        Some((session, envelope.data))
    }
}
