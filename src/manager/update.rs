//! Updating: changes that are retried until they apply to the latest version, so that no update is lost.
//!
//! Applications call it for counters and lists, within a handler and outside. If nothing is stored, the caller's session is
//! what it was before.

use std::mem;

use super::load::Loaded;
use super::save::{Changes, Save, SaveOutcome, conflict, not_encodable};
use super::{Inner, SessionManager};
use crate::codec::Envelope;
use crate::session::{Change, Origin};
use crate::{Result, Session, SessionId};

impl<T: 'static> SessionManager<T> {
    /// Changes a session so that no update is lost, and returns what `change` returned.
    ///
    /// It reads the session, changes it, and saves it on top of the version that it read. If another request stored a version
    /// in between, it starts again from that one. Counters and lists come out exact.
    ///
    /// It sends two commands if no other request interferes. `change` may be called several times, so it must do nothing but
    /// change its argument. Returns `None`, and stores nothing, if no live session has the id.
    ///
    /// ```
    /// # use threaded_sessions::{MemorySessionStore, SessionManager};
    /// # let sessions = SessionManager::<Vec<String>>::new(MemorySessionStore::new());
    /// # let mut session = sessions.fresh();
    /// # session.push("milk".into());
    /// # let id = *sessions.commit(session)?.id().unwrap();
    /// let items = sessions.update(&id, |cart| {
    ///     cart.push("tea".to_owned());
    ///     cart.len()
    /// })?;
    /// assert_eq!(items, Some(2));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns the same errors as [`open_id`](Self::open_id) and [`commit`](Self::commit).
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if other requests kept changing the session for 1 second
    ///   and 128 attempts.
    /// - After [`ErrorKind::MayHaveHappened`](crate::ErrorKind::MayHaveHappened) the change is stored once or not at all.
    pub fn update<R>(&self, id: &SessionId, change: impl FnMut(&mut T) -> R) -> Result<Option<R>> {
        match self.0.load(id)? {
            Loaded::Live(mut session) => self.0.apply(&mut session, None, change),
            Loaded::Renewed | Loaded::Ended(_) | Loaded::Absent => Ok(None),
        }
    }

    /// Changes an open session so that no update is lost, and stores it at once.
    ///
    /// For use within a handler. Earlier changes of the request in this session are stored with it, and the session then has
    /// the value that was stored. A new session gets its id now, and so does a session with a pending
    /// [renewal](Session::renew) or [reset](Session::reset), whose old id is dead when the call returns. The visitor gets the cookie at the commit. It sends
    /// one command if no other request interferes.
    ///
    /// Returns `None`, and stores nothing, if the session was destroyed or renewed by another request, is
    /// [detached](Session::is_detached), or is to be discarded or destroyed, or if its lifetime is over. In these cases, after an
    /// error, and if `change` panics, the session keeps the value that it had. Otherwise it has the value as it is decoded: a part of `T` that is not stored, for example
    /// with `#[serde(skip)]`, starts from its default.
    ///
    /// If another request changed the session, the earlier changes of this request are merged, or rejected with
    /// [`OnConflict::Fail`](crate::OnConflict::Fail).
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u64>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// let count = sessions.update_in(&mut session, |count| {
    ///     *count += 1;
    ///     *count
    /// })?;
    /// assert_eq!(count, Some(1));
    /// assert!(sessions.commit(session)?.headers().any(|(name, _)| name == "Set-Cookie"));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`update`](Self::update).
    pub fn update_in<R>(&self, session: &mut Session<T>, change: impl FnMut(&mut T) -> R) -> Result<Option<R>> {
        let inner = &*self.0;
        let can_store = match session.change {
            Change::None | Change::Value | Change::Reset => !session.is_detached(),
            Change::Renew => true,
            Change::Discard | Change::Destroy => false,
        };
        if !can_store {
            return Ok(None);
        }
        let encoded = session.encode().map_err(not_encodable)?;
        let changes = session.changes(&encoded);
        // Work on a copy, and keep the value: decoded after a failure, a `HashMap` would look changed to the next merge.
        let copy = inner.decode(&encoded)?;
        let mut attempt = Attempt::begin(session, copy);
        let result = inner.apply(attempt.session, changes, change);
        if matches!(result, Ok(Some(_))) {
            attempt.succeed();
        }
        result
    }
}

/// A change of an open session under way. Unless it succeeds, the session has its earlier value when the attempt is dropped,
/// also if the closure of the application panics.
struct Attempt<'s, T: 'static> {
    session: &'s mut Session<T>,
    kept: Option<(Envelope<T>, Option<String>)>,
}

impl<'s, T: 'static> Attempt<'s, T> {
    fn begin(session: &'s mut Session<T>, copy: Envelope<T>) -> Self {
        let kept = (mem::replace(&mut session.envelope, copy), session.stored_principal.clone());
        Self { session, kept: Some(kept) }
    }

    fn succeed(&mut self) {
        self.kept = None;
        self.session.forget_changes();
    }
}

impl<T: 'static> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            (self.session.envelope, self.session.stored_principal) = kept;
            self.session.forget_attempt();
        }
    }
}

impl<T: 'static> Inner<T> {
    /// Changes the session and saves it, until the change is stored, under a new id if a renewal is pending. `changes` is what
    /// the request changed before, if anything. Returns `None` if the session is missing.
    fn apply<R>(
        &self,
        session: &mut Session<T>,
        changes: Option<Changes<'_>>,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<Option<R>> {
        let is_renewed = session.change == Change::Renew;
        let cookie_sent = session.envelope.remembered.filter(|_| is_renewed).map(|_| session.now);
        session.envelope.remembered = cookie_sent.or(session.envelope.remembered);
        let mut returned = None;
        let mut changed_payload = |session: &mut Session<T>| {
            returned = Some(change(&mut session.envelope.data));
            self.encode_revised(session)
        };
        let payload = changed_payload(session)?;
        let outcome = match session.id().copied() {
            Some(id) if session.change == Change::Reset => self.replace(session, &id, &payload)?,
            Some(id) => {
                let save = Save { cookie_sent, ..Save::new(id, session, payload, changes) };
                let save = if is_renewed { save.with_next_id(session) } else { save };
                self.save_until_stored(session, save, changed_payload)?
            }
            None => match self.create(session, &payload)? {
                Some((id, version)) => SaveOutcome::Stored(id, version),
                None => SaveOutcome::Ended,
            },
        };
        match outcome {
            SaveOutcome::Stored(id, version) => {
                session.origin = Origin::Stored { id, version };
                Ok(returned)
            }
            SaveOutcome::Missing | SaveOutcome::Ended => Ok(None),
            SaveOutcome::Conflict => Err(conflict()),
        }
    }
}
