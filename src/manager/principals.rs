//! The sessions of a principal: list them and end them.
//!
//! Applications use it for "where you are signed in" and "sign out everywhere". It needs a store with an index. A session that
//! was ended stays ended, even if a request still holds it.

use std::time::{Duration, SystemTime};

use super::SessionManager;
use crate::store::{Ending, SessionIndex};
use crate::{Error, Handle, Result, Session, operation};

/// A session that belongs to a principal, as one would show it to them; from [`SessionManager::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoundSession {
    /// Names the session without giving it away; safe to show, and to take back from a form.
    pub handle: Handle,
    /// What [`bind`](Session::bind) called it.
    pub label: String,
    /// When it [began](Session::created).
    pub created: SystemTime,
    /// When it was last used: opened, or changed if opening does not count. To within a 64th of
    /// [`remember_for`](crate::SessionManagerBuilder::remember_for) if the session is remembered. `None` if nothing tells: if it
    /// does not expire, or since its use ends with its lifetime, not with its idle timeout.
    pub last_used: Option<SystemTime>,
    /// How long it lives if it is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

/// Sessions that belong to somebody: "where you are signed in".
///
/// All of it takes a store with an index, and answers [`ErrorKind::Unsupported`] with another. What ended is absent for
/// every request that begins after the call returned, and no request that still holds it brings it back.
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
    /// The sessions of a principal that live, the newest first; 1000 of each partition at most. One that cannot
    /// be decoded is left out.
    ///
    /// # Errors
    ///
    /// That the store could not be asked.
    #[doc(alias = "find_by_principal_name")]
    pub fn list(&self, principal: &str) -> Result<Vec<BoundSession>> {
        let (inner, now) = (&*self.0, self.0.clock.now());
        let sessions = self.index(operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?.into_iter().filter_map(
            |belonging| {
                let envelope = inner.decode(&belonging.payload).ok()?;
                let lifetime_left = inner.lifetime_left(&envelope, now);
                if lifetime_left.is_some_and(|left| left.is_zero()) {
                    return None;
                }
                // Stored shortly before the end of its lifetime it lives until then, whenever that was.
                let to_its_end =
                    |left: Duration| lifetime_left.is_some_and(|end| left.abs_diff(end) < Duration::from_secs(1));
                let left = belonging.expires_in.filter(|left| !to_its_end(*left));
                let unused = left.and_then(|left| inner.idle_timeout(&envelope)?.checked_sub(left));
                Some(BoundSession {
                    handle: belonging.handle,
                    label: envelope.bound.map(|bound| bound.label).unwrap_or_default(),
                    created: envelope.created,
                    last_used: unused.and_then(|unused| now.checked_sub(unused)),
                    expires_in: [belonging.expires_in, lifetime_left].into_iter().flatten().min(),
                })
            },
        );
        Ok(sessions.collect())
    }

    /// Ends all sessions of a principal: "sign out everywhere", and after a change of password. Answers how many there
    /// were.
    ///
    /// # Errors
    ///
    /// That the store could not be asked. Some may have ended then; call it again.
    pub fn end_all(&self, principal: &str) -> Result<u64> {
        self.index(operation::END)?.end(principal, Ending::All)
    }

    /// Ends all sessions of the principal of this session but this one. Answers how many there were; none if it belongs to
    /// nobody. If it will be theirs only with its commit, all that they have so far end.
    ///
    /// # Errors
    ///
    /// As for [`end_all`](Self::end_all). [`ErrorKind::Conflict`] if the session was renewed, ended or bound to another
    /// meanwhile: nothing has ended then, or this session might have, under its new id.
    pub fn end_others(&self, session: &Session<T>) -> Result<u64> {
        match (session.principal(), session.id()) {
            (Some(principal), Some(id)) if session.stored_principal.as_deref() == Some(principal) => {
                self.index(operation::END)?.end(principal, Ending::AllExcept(id))
            }
            (Some(principal), _) => self.end_all(principal),
            (None, _) => Ok(0),
        }
    }

    /// Ends the session with this handle, if it belongs to this principal, so that nobody can end another's session with a
    /// form of their own making. Answers whether there was one.
    ///
    /// This is for the list of a principal's sessions; within a request [`Session::destroy`] ends the visitor's own and
    /// clears the cookie, and [`SessionStore::delete`](crate::SessionStore::delete) ends one by its id.
    ///
    /// # Errors
    ///
    /// As for [`end_all`](Self::end_all).
    pub fn end(&self, principal: &str, handle: Handle) -> Result<bool> {
        Ok(self.index(operation::END)?.end(principal, Ending::Only(handle))? > 0)
    }

    /// Ends everybody's sessions, whether they belong to anybody or not: for an administrator, after a breach say. Answers how
    /// many there were. Who calls it within a request may lose the session at hand as well.
    ///
    /// All that began before the call have ended when it returns, also those that were renewed meanwhile; those that begin
    /// while it runs may live or not. Sessions that a Redis store lost from its index are not found:
    /// [`verify`](SessionIndex::verify) first. [`on_expired`](crate::ReaperBuilder::on_expired) is told of none of them.
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
    /// As for [`end_all`](Self::end_all).
    pub fn end_everybody(&self) -> Result<u64> {
        self.index(operation::END)?.end_everybody()
    }

    fn index(&self, operation: &'static str) -> Result<&dyn SessionIndex> {
        self.0.store.index().ok_or_else(|| {
            let why = "the store has no index: use an expiring Redis store or a memory store";
            Error::unsupported(operation, why)
        })
    }
}
