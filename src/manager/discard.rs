//! Discarding sessions that cannot be decoded, on the request of their visitor.
//!
//! Applications and adapters call it from the page that a visitor sees instead of the site. Nothing else deletes a session that
//! cannot be decoded, except a sign-in, a sign-out and the end of all sessions of a principal.

use super::{Committed, Inner, Outcome, SessionManager};
use crate::observer::EndCause;
use crate::store::{Found, Touch};
use crate::{ErrorKind, Result, SessionId, fence};

impl<T: 'static> SessionManager<T> {
    /// Ends the sessions of a request that cannot be decoded, and returns the headers that clear the cookie.
    ///
    /// [`open`](Self::open) fails with [`ErrorKind::Payload`] for such a session, so its visitor cannot even sign out. Offer a
    /// form on the error page, and call this for it. The adapters have a function for the route. Only a session that neither
    /// the codec nor a migration can read ends; a session that can be read stays. The cookie stays too if another id of the
    /// request has a session that can be read.
    ///
    /// The [outcome](Committed::outcome) is [`Destroyed`](Outcome::Destroyed) if a session ended, and otherwise
    /// [`Unchanged`](Outcome::Unchanged).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorKind, MemorySessionStore, Outcome, SessionManager};
    ///
    /// let store = MemorySessionStore::new();
    /// let before = SessionManager::<String>::new(store.clone());
    /// let mut session = before.fresh();
    /// *session = "a cart".to_owned();
    /// let id = *before.commit(session)?.id().expect("it is stored");
    ///
    /// let after_deploy = SessionManager::<u32>::new(store);
    /// let cookie = format!("__Host-session={}", id.expose());
    /// assert_eq!(after_deploy.open([&*cookie]).unwrap_err().kind(), ErrorKind::Payload);
    /// let discarded = after_deploy.discard_unreadable([&*cookie])?;
    /// assert_eq!(discarded.outcome(), Outcome::Destroyed);
    /// assert!(after_deploy.open([&*cookie])?.is_new());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of the store if a store operation fails.
    pub fn discard_unreadable<'h>(&self, cookie_headers: impl IntoIterator<Item = &'h str>) -> Result<Committed> {
        let inner = &*self.0;
        let (mut discarded, mut is_readable) = (false, false);
        for id in inner.cookie.candidates(cookie_headers) {
            match inner.readability(&id)? {
                Readability::Readable => is_readable = true,
                Readability::Unreadable => discarded |= inner.delete_for(&id, EndCause::Discarded)?,
                Readability::Absent => (),
            }
        }
        let outcome = if discarded { Outcome::Destroyed } else { Outcome::Unchanged };
        let cookie = (discarded && !is_readable).then(|| inner.cookie.take());
        Ok(Committed::new(outcome, None, inner.store.clone(), cookie))
    }
}

/// The outcome of decoding the session of an id.
enum Readability {
    Readable,
    Unreadable,
    Absent,
}

impl<T: 'static> Inner<T> {
    fn readability(&self, id: &SessionId) -> Result<Readability> {
        let decoded = match self.store.read(id, Touch::No) {
            Ok(Found::Live(stored)) => self.decode(&stored.payload).map(drop),
            Ok(Found::Renewed | Found::Ended(_) | Found::Absent) => return Ok(Readability::Absent),
            Err(error) => Err(error),
        };
        match decoded {
            Ok(()) => Ok(Readability::Readable),
            Err(error) if error.kind() == ErrorKind::Payload => {
                let handle = self.store.handle(id);
                fence::log!(Warn, session:% = handle; "session {handle} is discarded: {error:#}");
                Ok(Readability::Unreadable)
            }
            Err(error) => Err(error),
        }
    }
}
