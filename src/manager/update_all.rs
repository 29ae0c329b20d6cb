//! Changing the sessions of a principal from outside their requests.
//!
//! Applications call it when a role or a plan changes. The invariant: each session that belongs to the principal during the whole
//! call is changed once, under whatever id it has then, and no session that has ended comes back.

use std::collections::HashSet;

use super::backoff::Backoff;
use super::{Inner, SessionManager};
use crate::store::{Owned, Saved, SessionIndex, Write, index_of};
use crate::{Error, ErrorKind, Handle, Result, operation};

/// The result of [`SessionManager::update_all`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "sessions that could not be read do not have the change"]
#[non_exhaustive]
pub struct UpdatedAll {
    /// How many sessions have the change.
    pub changed: u64,
    /// How many live sessions could not be decoded. They do not have the change.
    pub unreadable: u64,
}

/// The outcome for one session.
enum Changed {
    Stored,
    Unreadable,
    /// The session ended, or belongs to another principal.
    NotTheirs,
    /// The session is not live under this id any more. It ended, or has another id.
    Missing,
}

/// The sessions of one partition that need no second change. A session that was renewed has another handle and the same time.
#[derive(Default)]
struct Seen {
    handles: HashSet<Handle>,
    times: HashSet<u64>,
}

impl Seen {
    fn insert(&mut self, owned: &Owned) {
        self.handles.insert(owned.key.handle());
        self.times.insert(owned.since);
    }

    fn contains(&self, owned: &Owned) -> bool {
        self.handles.contains(&owned.key.handle()) || self.times.contains(&owned.since)
    }
}

impl<T: 'static> SessionManager<T> {
    /// Changes all sessions of a principal from outside their requests: a role, a plan, a flag.
    ///
    /// When it returns, every session that belonged to the principal when the call began has the change, under whatever id it has
    /// then. The exceptions are sessions that ended or belong to another principal by then, and those that cannot be decoded. A
    /// session that was bound during the call may or may not have the change; in a store with one partition it has it. No session
    /// that has ended comes back. There is no limit to the number of sessions.
    ///
    /// Each session is changed as [`update`](Self::update) does it: if another request stored a version in between, the change is
    /// applied to that one. So `change` may be called several times for one session, and must do nothing but change its argument.
    /// It does not count as use: every session keeps its deadline.
    ///
    /// It sends two commands for each partition, one for each page of sessions and one for each session.
    ///
    /// A later save can overwrite the change: one with [`LastWriteWins`](crate::OnConflict::LastWriteWins) that was under way, or
    /// one by a version of the program that does not know a field.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// #[derive(Default, Deserialize, Serialize)]
    /// #[serde(default)]
    /// struct Visit {
    ///     is_editor: bool,
    /// }
    ///
    /// let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
    /// let mut visit = sessions.open(None)?;
    /// visit.bind("ada", "laptop");
    /// let id = *sessions.commit(visit)?.id().expect("it is stored");
    ///
    /// let updated = sessions.update_all("ada", |visit| visit.is_editor = true)?;
    /// assert_eq!((updated.changed, updated.unreadable), (1, 0));
    /// assert!(sessions.open_id(&id)?.expect("it lives").is_editor);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns an error if a store operation fails. Some sessions have the change by then, and another call changes them again.
    /// - Returns [`ErrorKind::Payload`] or [`ErrorKind::Conflict`] if a session could not be stored with the change: because it is
    ///   over the size limit, for example, or because other requests kept changing it. The other sessions have the change.
    /// - Returns [`ErrorKind::Unsupported`] if the store has no index.
    pub fn update_all(&self, principal: &str, mut change: impl FnMut(&mut T)) -> Result<UpdatedAll> {
        let (inner, index) = (&*self.0, index_of(self.store(), operation::UPDATE_ALL)?);
        let mut sweep = Sweep { principal, change: &mut change, updated: UpdatedAll::default(), failed: None };
        for partition in 0..index.partitions() {
            inner.update_partition(index, partition, &mut sweep)?;
        }
        match sweep.failed {
            Some(error) => Err(error),
            None => Ok(sweep.updated),
        }
    }
}

/// A call of `update_all` under way.
struct Sweep<'a, T> {
    principal: &'a str,
    change: &'a mut dyn FnMut(&mut T),
    updated: UpdatedAll,
    /// The first failure that concerns one session only.
    failed: Option<Error>,
}

impl<T> Sweep<'_, T> {
    fn count(&mut self, changed: Result<Changed>) -> Result<()> {
        match changed {
            Ok(Changed::Stored) => self.updated.changed += 1,
            Ok(Changed::Unreadable) => self.updated.unreadable += 1,
            Ok(Changed::NotTheirs | Changed::Missing) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Payload | ErrorKind::Conflict) => {
                self.failed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<T: 'static> Inner<T> {
    /// Changes the sessions of one partition, until a page has none that the principal got later.
    fn update_partition(&self, index: &dyn SessionIndex, partition: u32, sweep: &mut Sweep<'_, T>) -> Result<()> {
        let (mut seen, mut after) = (Seen::default(), None);
        let (mut waited_for, mut backoff) = (None, Backoff::new());
        loop {
            let page = index.owned_after(sweep.principal, partition, after)?;
            let Some(next) = page.next else { return Ok(()) };
            // A custom store may return a time that is no later.
            after = Some(next.max(after.map_or(0, |after: u64| after.saturating_add(1))));
            let Some(since) = self.update_page(&page.sessions, &mut seen, sweep)? else { continue };
            // The session has perhaps a new id, under which the next page has it in the same place.
            after = since.checked_sub(1);
            if waited_for.replace(since) != Some(since) {
                backoff = Backoff::new();
            }
            backoff.wait()?;
        }
    }

    /// Changes the sessions of a page that are not seen yet. Returns the time of the first one that is not live any more under the
    /// id that the page has.
    fn update_page(&self, page: &[Owned], seen: &mut Seen, sweep: &mut Sweep<'_, T>) -> Result<Option<u64>> {
        let mut missing = None;
        for owned in page {
            if seen.contains(owned) {
                // Either of handle and time can be new, and the other one can change next.
                seen.insert(owned);
                continue;
            }
            match self.update_owned(owned, sweep) {
                Ok(Changed::Missing) => missing = missing.or(Some(owned.since)),
                changed => {
                    seen.insert(owned);
                    sweep.count(changed)?;
                }
            }
        }
        Ok(missing)
    }

    /// Changes one session until the change is stored.
    fn update_owned(&self, owned: &Owned, sweep: &mut Sweep<'_, T>) -> Result<Changed> {
        let Ok(payload) = &owned.payload else { return Ok(Changed::Unreadable) };
        let (mut payload, mut version, mut backoff) = (payload.clone(), owned.version.clone(), Backoff::new());
        loop {
            let Ok(mut envelope) = self.decode_limited(&payload) else { return Ok(Changed::Unreadable) };
            let is_theirs = envelope.bound.as_ref().is_some_and(|bound| bound.principal == sweep.principal);
            let is_over = self.lifetime_left(&envelope, self.clock.now()).is_some_and(|left| left.is_zero());
            if !is_theirs || is_over {
                return Ok(Changed::NotTheirs);
            }
            (sweep.change)(&mut envelope.data);
            envelope.revise();
            let changed = self.storable(self.codec.encode(&envelope.by_ref()))?;
            let write = Write::new(&changed, None).with_read_back(self);
            match self.store.save_key(&owned.key, write, &version)? {
                Saved::Stored(_) => return Ok(Changed::Stored),
                Saved::Missing => return Ok(Changed::Missing),
                // No owner is written, so no store of this crate reports it.
                Saved::OverCap => return Ok(Changed::NotTheirs),
                Saved::Conflict(theirs) => (payload, version) = (theirs.payload, theirs.version),
            }
            backoff.wait()?;
        }
    }
}
