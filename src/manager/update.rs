use std::mem;

use super::backoff::Backoff;
use super::load::Loaded;
use super::{Inner, OnConflict, SessionManager};
use crate::session::{Change, Origin};
use crate::store::{Created, Saved, Write};
use crate::{Error, ErrorKind, Result, Session, SessionId, operation};

impl<T: 'static> SessionManager<T> {
    /// Changes a session so that no change is lost, whatever others do to it at the same time: reads it, changes it, saves
    /// it if nobody else did, and otherwise starts again with what is there then. Counters and lists come out exact.
    ///
    /// Two commands if nobody interferes. `change` may be called several times, and is to do nothing but change its
    /// argument. `None` if there is no such session; then nothing is stored.
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
    /// As for [`open_id`](Self::open_id) and [`commit`](Self::commit); [`ErrorKind::Conflict`] if others kept changing the
    /// session for a second and 128 times. After [`ErrorKind::MayHaveHappened`] the change is there once or not at all.
    pub fn update<R>(&self, id: &SessionId, change: impl FnMut(&mut T) -> R) -> Result<Option<R>> {
        match self.0.load(id)? {
            Loaded::Live(mut session) => self.0.contend(&mut session, None, change),
            Loaded::Renewed | Loaded::Absent => Ok(None),
        }
    }

    /// The same for a session that is open, as within a handler: the change is stored at once, together with what was
    /// changed in this session before, and the session has the value that was stored. A session that is new gets its id
    /// now, and the visitor the cookie when it is committed. One command if nobody interferes.
    ///
    /// `None`, and nothing stored, if the session was destroyed or renewed meanwhile, is [detached](Session::is_detached),
    /// or was told to be discarded or destroyed. Then, and if it fails, the session has the value it had before. Otherwise it
    /// has the value as it is read back: what `T` does not store, as with `#[serde(skip)]`, starts anew.
    ///
    /// What this session changed before is merged if another request changed the session, or refused with
    /// [`OnConflict::Fail`].
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
    /// As for [`update`](Self::update).
    pub fn update_in<R>(&self, session: &mut Session<T>, change: impl FnMut(&mut T) -> R) -> Result<Option<R>> {
        let inner = &*self.0;
        if session.change >= Change::Discard || (session.is_detached() && session.change != Change::Renew) {
            return Ok(None);
        }
        let before = session.encode();
        let modified = session.differs(&before);
        let before = before.map_err(|error| Error::new(ErrorKind::Payload, operation::ENCODE).with_source(error))?;
        let mine = modified.then_some(&*before);
        // Works on a copy. Decoded anew after a failure, a `HashMap` would look changed to the next merge.
        let value = mem::replace(&mut session.envelope, inner.decode(&before)?);
        let (version_before, owner) = (session.version().cloned(), session.stored_principal.clone());
        let result = inner.contend(session, mine, change);
        if let Ok(Some(_)) = result {
            session.forget_changes();
        } else {
            (session.envelope, session.stored_principal) = (value, owner);
            if let (Origin::Stored { version, .. }, Some(before)) = (&mut session.origin, version_before) {
                *version = before;
            }
        }
        result
    }
}

impl<T: 'static> Inner<T> {
    /// Changes the session and saves it, until it holds. `mine` is what the request changed before, if anything.
    fn contend<R>(
        &self,
        session: &mut Session<T>,
        mine: Option<&[u8]>,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<Option<R>> {
        let mut backoff = Backoff::new();
        loop {
            let answer = change(&mut session.envelope.data);
            let payload = self.encode_revised(session)?;
            let write = self.write(session, &payload, false);
            let Origin::Stored { id, version } = &session.origin else {
                let (id, version) = self.create(write)?;
                session.origin = Origin::Stored { id, version };
                return Ok(Some(answer));
            };
            let id = *id;
            let theirs = match self.store.save(&id, write, Some(version))? {
                Saved::Stored(version) => {
                    session.origin = Origin::Stored { id, version };
                    return Ok(Some(answer));
                }
                Saved::Missing => return Ok(None),
                Saved::Conflict(_) if mine.is_some() && session.on_conflict == OnConflict::Fail => {
                    return Err(Error::new(ErrorKind::Conflict, operation::SAVE));
                }
                Saved::Conflict(theirs) => theirs,
            };
            backoff.wait()?;
            self.merge_with(session, mine, &theirs.payload)?;
            session.origin = Origin::Stored { id, version: theirs.version };
        }
    }

    /// Stores a session that is stored nowhere yet.
    pub(super) fn create(&self, write: Write<'_>) -> Result<(SessionId, crate::store::Version)> {
        let id = self.store.fresh_id(None);
        match self.store.create(&id, write)? {
            Created::Stored(version) => Ok((id, version)),
            // No two ids of 128 random bits are equal.
            Created::Taken => Err(Error::misconfigured(
                operation::CREATE,
                "the key of a fresh id is taken: does the key mapper give every id its own?",
            )),
        }
    }
}
