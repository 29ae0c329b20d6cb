//! The sessions of a principal, and all sessions of a store: list, end, count and verify them.
//!
//! Applications use it for "where you are signed in" and "sign out everywhere", operators for the rest. It needs a store with
//! an index. A session that was ended stays ended, even if a request still holds it.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Inner, SessionManager};
use crate::observer::EndCause;
use crate::store::{Belonging, Ending, SessionIndex, Verified, VerifyOptions};
use crate::{AllSessions, Error, Handle, Result, Session, operation, serialize};

/// A session that belongs to a principal, as one would show it to them; from [`SessionManager::list`].
///
/// It serializes the fields under their names: the handle as its text, `expires_in` in milliseconds, and the other times in
/// milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BoundSession {
    /// Names the session without giving it away; safe to show, and to take back from a form.
    pub handle: Handle,
    /// What [`bind`](Session::bind) called it.
    pub label: String,
    /// When it [began](Session::created).
    #[serde(serialize_with = "serialize::moment")]
    pub created: SystemTime,
    /// When it was last used: opened, or changed if opening does not count. To within a 64th of
    /// [`remember_for`](crate::SessionManagerBuilder::remember_for) if the session is remembered, or of the idle timeout if
    /// [`anonymous_idle_timeout`](crate::SessionManagerBuilder::anonymous_idle_timeout) is set, and to within
    /// [`touch_every`](crate::SessionManagerBuilder::touch_every). It follows from the idle timeout
    /// that the session was stored with, whatever the settings of the manager that lists. `None` if it is unknown: if the session
    /// does not expire by idling, if its lifetime ends before its idle timeout, or if a manager with another idle timeout used it.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub last_used: Option<SystemTime>,
    /// How long it lives if it is not used. `None`: it does not expire.
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
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on another store. A session that was ended is absent for every
/// request that begins after the call returned, and no request that still holds it stores it again.
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
    /// Returns an error if a store operation fails.
    #[doc(alias = "find_by_principal_name")]
    pub fn list(&self, principal: &str) -> Result<Vec<BoundSession>> {
        let (inner, now) = (&*self.0, self.0.clock.now());
        let stored = self.index(operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?;
        let shown = stored.into_iter().filter_map(|belonging| inner.bound_session(belonging, now));
        Ok(shown.map(|(session, _)| session).collect())
    }

    /// Returns the live sessions of a principal with their values, the newest first. It has the limits of [`list`](Self::list),
    /// and does not count as use.
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
    ///
    /// # Errors
    ///
    /// Returns an error if a store operation fails.
    pub fn list_with_data(&self, principal: &str) -> Result<Vec<(BoundSession, T)>> {
        let (inner, now) = (&*self.0, self.0.clock.now());
        let stored = self.index(operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?;
        Ok(stored.into_iter().filter_map(|belonging| inner.bound_session(belonging, now)).collect())
    }

    /// Ends all sessions of a principal, and returns how many there were. For "sign out everywhere", and after a change of
    /// password.
    ///
    /// # Errors
    ///
    /// Returns an error if a store operation fails. Some sessions may have ended by then; you can safely call `end_all` again.
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
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the session was renewed, ended or bound to another
    ///   principal by another request. Then no session has ended, because this one, under its new id, might be among them.
    pub fn end_others(&self, session: &Session<T>) -> Result<u64> {
        match (session.principal(), session.id()) {
            (Some(principal), Some(id)) if session.stored_principal.as_deref() == Some(principal) => {
                self.end_for(principal, Ending::AllExcept(id), EndCause::EndOthers)
            }
            (Some(principal), _) => self.end_for(principal, Ending::All, EndCause::EndOthers),
            (None, _) => Ok(0),
        }
    }

    /// Ends the session with this handle if it belongs to this principal, and returns whether there was one.
    ///
    /// Because the principal must match, no visitor can end the session of another with a forged form. The method is for the
    /// list of a principal's sessions. Within a request [`Session::destroy`] ends the visitor's session and clears the cookie,
    /// and [`SessionStore::delete`](crate::SessionStore::delete) ends a session by its id.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`end_all`](Self::end_all).
    pub fn end(&self, principal: &str, handle: Handle) -> Result<bool> {
        Ok(self.end_for(principal, Ending::Only(handle), EndCause::End)? > 0)
    }

    /// Ends all sessions of the store, with or without a principal, and returns how many there were. For an administrator, for
    /// example after a breach.
    ///
    /// If you call it within a request, the session of that request ends too. When it returns, all sessions that began before
    /// the call have ended, including those that were renewed during the call; sessions that begin during the call may live.
    /// Sessions that a Redis store lost from its index are not found: call [`verify`](SessionIndex::verify) first.
    /// [`on_expired`](crate::ReaperBuilder::on_expired) is called for none of them.
    ///
    /// On a plain Redis store it walks all keys of the database. To see how far it is, or to stop it, call
    /// [`AllSessions::end_everybody`], which also has the limits of the plain store.
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, Outcome, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session += 1;
    /// let id = *sessions.commit(session)?.id().expect("it is stored");
    /// let mut late = sessions.open_id(&id)?.expect("it lives");
    ///
    /// assert_eq!(sessions.end_everybody()?, 1);
    /// *late += 1;
    /// assert_eq!(sessions.commit(late)?.outcome(), Outcome::Dropped);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has neither an index nor a walk, or is a
    ///   plain Redis store with a custom key mapper.
    /// - Returns an error if a store operation fails. Some sessions may have ended by then; you can safely call it again.
    pub fn end_everybody(&self) -> Result<u64> {
        Ok(self.all().end_everybody(|_| ControlFlow::Continue(()))?.ended)
    }

    /// Returns how many sessions live, as the [index](SessionIndex::count) has it.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails.
    pub fn count(&self) -> Result<u64> {
        self.index(operation::COUNT)?.count()
    }

    /// Corrects the index of the store, and returns the findings; see [`SessionIndex::verify`].
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index.
    /// - Returns an error if a store operation fails. You can safely call `verify` again.
    pub fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        self.index(operation::VERIFY)?.verify(options)
    }

    /// Ends sessions of a principal, and reports how many.
    fn end_for(&self, principal: &str, which: Ending<'_>, reason: EndCause) -> Result<u64> {
        let ended = self.index(operation::END)?.end(principal, which)?;
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

    pub(super) fn index(&self, operation: &'static str) -> Result<&dyn SessionIndex> {
        self.0.store.index().ok_or_else(|| {
            let why = "the store has no index: use an expiring Redis store or a memory store";
            Error::unsupported(operation, why)
        })
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
