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
use crate::{ErrorKind, Result, Session, SessionId};

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
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if other requests kept changing the session for at
    ///   least 1 second and at least 128 attempts.
    /// - After [`ErrorKind::MayHaveHappened`](crate::ErrorKind::MayHaveHappened) the change is stored once or not at all.
    pub fn update<R>(&self, id: &SessionId, change: impl FnMut(&mut T) -> R) -> Result<Option<R>> {
        match self.0.load(id)? {
            Loaded::Live(mut session) => Ok(self.0.apply(&mut session, None, change)?.stored()),
            Loaded::Renewed | Loaded::Ended(_) | Loaded::Absent => Ok(None),
        }
    }

    /// Changes an open session so that no update is lost, and stores it at once.
    ///
    /// For use within a handler. Earlier changes of the request in this session are stored with it, and the session then has
    /// the value that was stored. A new session gets its id now, and so does a session with a pending [renewal](Session::renew)
    /// or [reset](Session::reset), whose old id is dead when the call returns. The visitor gets the cookie at the commit. It
    /// sends one command if no other request interferes.
    ///
    /// Returns `None`, and stores nothing, if the session was destroyed or renewed by another request, is
    /// [detached](Session::is_detached), or is to be discarded or destroyed, if its lifetime is over, or if
    /// [`OnCap::Refuse`](crate::OnCap::Refuse) rejects a pending [`bind`](Session::bind). In these cases, after an error, and
    /// if `change` panics, the session keeps the value that it had. Otherwise it has the value as it is decoded: a part of `T`
    /// that is not stored, for example with `#[serde(skip)]`, starts from its default.
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
        Ok(self.0.apply_in(session, change)?.stored())
    }

    /// Signs a visitor in at once, so that the handler knows the result before it renders the page.
    ///
    /// It [renews](Session::renew) the session, [restarts its lifetime](Session::restart_lifetime), [binds](Session::bind) it,
    /// and stores it with the earlier changes of the request, as [`update_in`](Self::update_in) does. The visitor gets the
    /// cookie at the commit. Without it, a `bind` is stored with the commit, when the page is rendered already.
    ///
    /// Unless the result is [`SignIn::Done`], and also after an error, nothing is stored, and the session is as it was before the
    /// call. With [`OnCap::Refuse`](crate::OnCap::Refuse) a login that would be one too many is
    /// [`Refused`](SignIn::Refused).
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, OnCap, SessionManager, SignIn};
    ///
    /// let store = MemorySessionStore::new();
    /// let sessions = SessionManager::<u32>::builder(store).max_per_principal(1).on_cap(OnCap::Refuse).build()?;
    /// let mut laptop = sessions.open(None)?;
    /// assert_eq!(sessions.sign_in(&mut laptop, "ada", "laptop")?, SignIn::Done);
    ///
    /// let mut phone = sessions.open(None)?;
    /// assert_eq!(sessions.sign_in(&mut phone, "ada", "phone")?, SignIn::Refused);
    /// assert_eq!(phone.principal(), None);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns the same errors as [`update`](Self::update).
    /// - After [`ErrorKind::MayHaveHappened`](crate::ErrorKind::MayHaveHappened) a session that no visitor has may be stored.
    pub fn sign_in(
        &self,
        session: &mut Session<T>,
        principal: impl Into<String>,
        label: impl Into<String>,
    ) -> Result<SignIn> {
        let pending = session.pending();
        session.renew();
        session.restart_lifetime();
        session.bind(principal, label);
        let applied = self.0.apply_in(session, |_| ());
        if !matches!(applied, Ok(Applied::Stored(()))) {
            session.restore(pending);
        }
        Ok(match applied? {
            Applied::Stored(()) => SignIn::Done,
            Applied::OverCap => SignIn::Refused,
            Applied::Missing => SignIn::Lost,
        })
    }
}

/// The result of [`SessionManager::sign_in`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a visitor is signed in only if it is `Done`"]
#[non_exhaustive]
pub enum SignIn {
    /// The visitor is signed in, and the session is stored under a new id.
    Done,
    /// The principal has as many sessions as [`OnCap::Refuse`](crate::OnCap::Refuse) allows.
    Refused,
    /// Another request renewed or ended the session in the meantime, or this request is to discard or destroy it. The visitor
    /// should try again.
    Lost,
}

/// The outcome of a change of an open session.
enum Applied<R> {
    Stored(R),
    Missing,
    OverCap,
}

impl<R> Applied<R> {
    fn stored(self) -> Option<R> {
        match self {
            Self::Stored(returned) => Some(returned),
            Self::Missing | Self::OverCap => None,
        }
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
    /// Changes an open session and stores it. Unless that succeeds, the session has the value that it had.
    fn apply_in<R>(&self, session: &mut Session<T>, change: impl FnMut(&mut T) -> R) -> Result<Applied<R>> {
        let can_store = match session.change {
            Change::None | Change::Value | Change::Reset => !session.is_detached(),
            Change::Renew => true,
            Change::Discard | Change::Destroy => false,
        };
        if !can_store {
            return Ok(Applied::Missing);
        }
        let encoded = session.encode().map_err(not_encodable)?;
        let changes = session.changes(&encoded);
        // Work on a copy, and keep the value: decoded after a failure, a `HashMap` would look changed to the next merge.
        let copy = self.decode(&encoded)?;
        let mut attempt = Attempt::begin(session, copy);
        let result = self.apply(attempt.session, changes, change);
        match &result {
            Ok(Applied::Stored(_)) => attempt.succeed(),
            Err(error) => attempt.session.is_in_doubt |= error.kind() == ErrorKind::MayHaveHappened,
            Ok(_) => (),
        }
        result
    }

    /// Changes the session and saves it, until the change is stored, under a new id if a renewal is pending. `changes` is what
    /// the request changed before, if anything.
    fn apply<R>(
        &self,
        session: &mut Session<T>,
        changes: Option<Changes<'_>>,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<Applied<R>> {
        let is_renewed = session.is_to_be_renewed();
        let cookie_sent = session.envelope.remembered.filter(|_| is_renewed).map(|_| session.now);
        session.envelope.remembered = cookie_sent.or(session.envelope.remembered);
        if is_renewed {
            self.note_renewal(session);
        }
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
            None => self.create(session, &payload)?,
        };
        match outcome {
            SaveOutcome::Stored(id, version) => {
                session.origin = Origin::Stored { id, version };
                Ok(returned.map_or(Applied::Missing, Applied::Stored))
            }
            SaveOutcome::Missing | SaveOutcome::Ended => Ok(Applied::Missing),
            SaveOutcome::OverCap => Ok(Applied::OverCap),
            SaveOutcome::Conflict => Err(conflict()),
        }
    }
}
