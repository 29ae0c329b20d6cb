//! [`MigratingStore`], a store that moves the sessions of another store into its own at their first use.
//!
//! Applications put it around two stores while they change the layout of their sessions. Invariant: a session that has ended
//! through this store is in neither of the two stores, whichever processes move it at that moment.

mod index;
mod mark;
mod route;
#[cfg(test)]
mod tests;
mod transfer;

use std::fmt;
use std::sync::Arc;

use self::transfer::{LOOKS, contended};
use super::{
    Bytes, Created, EndFeed, Found, Health, KeyPages, Saved, SessionIndex, SessionKey, SessionStore, Snapshot, Stored,
    Touch, Version, Write,
};
use crate::{Error, ErrorKind, Handle, Observer, RedisWarning, Result, SessionId, codec, fence, operation};

/// A store that moves sessions from an old store to a new one at their first use, so that a change of the layout signs no visitor
/// out.
///
/// Use it to change the prefix, the partitions or the hashing of keys, to go from a plain to an expiring store, to another Redis,
/// or to encrypted payloads. The [guide](crate::migrating#change-the-layout-without-signing-visitors-out) lists the steps of a
/// deploy, and the time after which you can remove it.
///
/// - **New sessions** are created in the new store.
/// - **A session of the old store** moves when it is used: with its id, its payload, its owner, its companions and the time it
///   has left. The move takes about nine round trips, once.
/// - **A session that has moved** costs one round trip for a read, a save and a renewal, as without this store.
/// - **An id without a session** costs reads of both stores, and fails if the old store is unreachable.
/// - **The end of a session**, of all sessions of a principal, or of all sessions, ends them in both stores.
/// - **Lists, counts and walks** combine both stores. The partitions of the old store come first.
///
/// The two stores must not share keys: use another prefix, another database or another server. Put steps that encrypt into the
/// stores, each with its own, and all other [steps](crate::step) around this store.
///
/// # Weaker guarantees
///
/// No operation is atomic over two stores. A move is a sequence of atomic steps, and any process can finish the move of another
/// one. These rules hold if all processes use the sessions through this store:
///
/// - A process that stops during a move loses no session.
/// - A session that was ended does not come back. The exception is [`end_keys`](SessionStore::end_keys), an operator's end by
///   handle: it can miss a session in the moment of its move.
/// - Of several processes that move one session, each continues with the same copy, and no change is lost.
/// - Handles depend on the key, so a session has another handle after its move, as after a renewal.
/// - The time at which a principal got a session is that of the move. A session moves at its first use, so the order of a list,
///   and the oldest session that a cap ends, can differ from the order of the logins. With simultaneous logins a cap is not exact.
/// - A change of [all sessions of a principal](crate::SessionManager::update_all) can miss a session that moves at that moment.
///   Call it again after a minute.
/// - A renewal looks for a session with the new id only in the new store. Ids are random, so no other session has the new id.
/// - A [listener](crate::Listener) gets the ends of the new store only, and [`health`](SessionStore::health) is that of the new
///   store.
/// - A plain old store has no index, so its sessions are not counted or listed by principal. They have no owners.
///
/// A process that knows only the old store finds no session that has moved. If it changes, renews or ends a session at the moment
/// of the move, within two round trips, its change is lost. The guide shows how a rolling deploy avoids this.
///
/// # Examples
///
/// ```
/// use threaded_sessions::{MemorySessionStore, MigratingStore, SessionManager, SessionStore};
///
/// # let (old, new) = (MemorySessionStore::new(), MemorySessionStore::new());
/// let mut session = SessionManager::<u32>::new(old.clone()).fresh();
/// *session = 7;
/// let committed = SessionManager::new(old.clone()).commit(session)?;
/// let id = committed.id().expect("the session is stored");
///
/// let sessions = SessionManager::<u32>::new(MigratingStore::new(new.clone(), old.clone()));
/// let session = sessions.open_id(id)?.expect("the session is still live");
/// assert_eq!(*session, 7);
/// assert!(!old.delete(id)?, "it has left the old store");
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct MigratingStore {
    new: Box<dyn SessionStore>,
    old: Box<dyn SessionStore>,
    /// The suffixes of the companions that move along.
    companions: Vec<String>,
    principal: Box<PrincipalOf>,
}

/// Finds the principal of a session in its payload.
type PrincipalOf = dyn Fn(&[u8]) -> Option<String> + Send + Sync;

/// The version of a session that could not be moved. No stored session has it.
const UNMOVED: &[u8] = b"\0threaded-sessions unmoved\0";

impl MigratingStore {
    /// Creates a store that keeps sessions in `new`, and moves those of `old` there at their first use.
    pub fn new(new: impl SessionStore, old: impl SessionStore) -> Self {
        let principal = |payload: &[u8]| Some(codec::read_head(payload).ok()?.bound?.principal);
        Self { new: Box::new(new), old: Box::new(old), companions: Vec::new(), principal: Box::new(principal) }
    }

    /// Sets how to find the principal of a session in its payload. Defaults to reading the JSON and the MessagePack of this crate.
    ///
    /// Set it if the manager has a custom [codec](crate::Codec) and sessions are [bound](crate::Session::bind). Otherwise a session
    /// that moves has no owner in the new store until it is renewed.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{Codec, Json, MemorySessionStore, MigratingStore};
    ///
    /// # let (old, new) = (MemorySessionStore::new(), MemorySessionStore::new());
    /// let codec = Json::<u32>::new(); // in place of a custom codec
    /// let store = MigratingStore::new(new, old)
    ///     .with_principal_of(move |payload| Some(codec.decode(payload).ok()?.bound?.principal));
    /// # let _ = store;
    /// ```
    pub fn with_principal_of(self, find: impl Fn(&[u8]) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { principal: Box::new(find), ..self }
    }

    fn principal_of(&self, payload: &Bytes) -> Result<Option<String>> {
        fence::call(|| (self.principal)(payload)).ok_or_else(|| {
            Error::new(ErrorKind::Payload, operation::READ).with_source("the function for the principal panicked")
        })
    }

    /// Changes a session, after moving it if necessary. `change` gets the version to expect.
    ///
    /// Without an expected version, it takes the version that is stored, and again if another request changes it. A write that
    /// expects no version could replace the mark of a move.
    fn change(
        &self,
        operation: &'static str,
        id: &SessionId,
        expected: Option<&Version>,
        change: impl Fn(&Version) -> Result<Saved>,
    ) -> Result<Saved> {
        let mut version = match expected {
            Some(version) => version.clone(),
            None => version_of(self.settle(id)?),
        };
        let mut was_missing = false;
        for _ in 0..LOOKS {
            let saved = change(&version)?;
            let is_final = match &saved {
                Saved::Missing => was_missing,
                Saved::Conflict(theirs) => expected.is_some() && mark::Mark::of(&theirs.payload).is_none(),
                Saved::Stored(_) | Saved::OverCap => true,
            };
            if is_final {
                return Ok(saved);
            }
            was_missing = matches!(saved, Saved::Missing);
            match self.settle(id)? {
                Found::Live(stored) if expected.is_none() => version = stored.version,
                Found::Live(_) => (),
                Found::Renewed | Found::Ended(_) | Found::Absent => return Ok(Saved::Missing),
            }
        }
        Err(contended(operation))
    }

    /// Reads a session from the old store because it could not be moved, for example while the new store accepts no writes.
    fn read_unmoved(&self, id: &SessionId, touch: Touch, error: Error) -> Result<Found> {
        let found = self.old.read(id, touch);
        match found {
            Ok(Found::Live(Stored { payload, expires_in, .. })) if mark::Mark::of(&payload).is_none() => {
                Ok(Found::Live(Stored::new(payload, Version::new(UNMOVED), expires_in)))
            }
            _ => Err(error),
        }
    }
}

fn version_of(found: Found) -> Version {
    match found {
        Found::Live(stored) => stored.version,
        Found::Renewed | Found::Ended(_) | Found::Absent => Version::new(UNMOVED),
    }
}

impl SessionStore for MigratingStore {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.new.fresh_id(beside)
    }

    /// Returns the handle that the session has in the new store.
    fn handle(&self, id: &SessionId) -> Handle {
        self.new.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let Some(allowed) = self.within_cap(id, write)? else { return Ok(Created::OverCap) };
        let created = self.new.create(id, allowed)?;
        if let Created::Stored(_) = created {
            self.enforce_cap_in_old(write.bind);
        }
        Ok(created)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        for _ in 0..LOOKS {
            let found = self.new.read(id, touch)?;
            if let Found::Live(stored) = &found
                && mark::Mark::of(&stored.payload).is_none()
            {
                return Ok(found);
            }
            match self.settle_from(id, found) {
                Ok(Found::Live(stored)) if matches!(touch, Touch::No | Touch::Peek) => return Ok(Found::Live(stored)),
                Ok(Found::Live(_)) => (),
                Ok(dead) => return Ok(dead),
                Err(error) => return self.read_unmoved(id, touch, error),
            }
        }
        Err(contended(operation::READ))
    }

    fn forget(&self, ids: &[SessionId]) {
        self.new.forget(ids);
        self.old.forget(ids);
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let Some(allowed) = self.within_cap(id, write)? else { return Ok(Saved::OverCap) };
        let save = |version: &Version| self.new.save(id, allowed, Some(version));
        let saved = self.change(operation::SAVE, id, expected, save)?;
        if let Saved::Stored(_) = saved {
            self.enforce_cap_in_old(write.bind);
        }
        Ok(saved)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let Some(allowed) = self.within_cap(old, write)? else { return Ok(Saved::OverCap) };
        let rotate = |version: &Version| self.new.rotate(old, new, allowed, Some(version));
        let saved = self.change(operation::ROTATE, old, expected, rotate)?;
        if let Saved::Stored(_) = saved {
            self.enforce_cap_in_old(write.bind);
        }
        Ok(saved)
    }

    /// Declares companions in both stores. A companion that the old store does not keep is new, so there is none to move.
    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        self.new.keep_companions(suffixes)?;
        match self.old.keep_companions(suffixes) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            kept => kept.map(|()| self.companions.extend_from_slice(suffixes)),
        }
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        match self.new.companion(id, suffix)? {
            None if matches!(self.settle(id)?, Found::Live(_)) => self.new.companion(id, suffix),
            companion => Ok(companion),
        }
    }

    /// Ends the session in the old store first. Then a process that moves it at this moment makes no copy, or one that ends here.
    /// The second deletion in the old store is for processes that move sessions back.
    fn delete(&self, id: &SessionId) -> Result<bool> {
        // If the old store cannot be reached, a session that has moved still ends.
        let (was_unmoved, was_moved) = (self.old.delete(id), self.new.delete(id));
        let is_gone = was_unmoved? | was_moved?;
        Ok(self.old.delete(id)? || is_gone)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.new.index().map(|_| self as _)
    }

    /// Returns the number of partitions of both stores.
    fn partition_count(&self) -> u32 {
        self.old.partition_count() + self.new.partition_count()
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        route::pages(self)
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        route::snapshots(self, keys)
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        let [old, new] = route::split(self, keys);
        let ended = if old.is_empty() { 0 } else { self.old.end_keys(&old)? };
        Ok(ended + if new.is_empty() { 0 } else { self.new.end_keys(&new)? })
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        let (store, key) = route::inner(self, key);
        store.save_key(&key, write, expected)
    }

    fn check(&self) -> Result<Vec<RedisWarning>> {
        let mut warnings = self.old.check()?;
        warnings.extend(self.new.check()?);
        Ok(warnings)
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        self.new.end_feed()
    }

    fn health(&self) -> Health {
        self.new.health()
    }

    fn observe(&self, observer: &Arc<dyn Observer>) {
        self.new.observe(observer);
        self.old.observe(observer);
    }
}

impl fmt::Debug for MigratingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigratingStore")
            .field("new", &self.new)
            .field("old", &self.old)
            .field("companions", &self.companions)
            .finish_non_exhaustive()
    }
}
