//! [`MemorySessionStore`], a store in the memory of the process.
//!
//! Development, tests and programs of one process use it. One lock guards all sessions, so every operation is atomic, and every
//! operation removes expired sessions before it looks at one.

mod sessions;

use std::fmt;
use std::iter;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::Receiver;

use self::sessions::{Entry, Extras, Sessions};
use super::{
    Belonging, Bytes, Created, EndFeed, EndNews, Ending, Found, KeyPage, KeyPages, Owned, OwnedPage, Progress,
    RENEWED_FOR, Reaped, Saved, SessionIndex, SessionKey, SessionStore, Snapshot, Stored, Touch, Verified,
    VerifyOptions, Version, Write, companion, index, rotated_onto_another, ttl_millis,
};
use crate::{Clock, EndReason, Ended, Error, ErrorKind, Handle, Result, SessionId, operation, sync};

/// A store that keeps sessions in the memory of this process.
///
/// It is the default for development and tests. It is enough for a program that is one process and may lose its sessions when
/// it exits.
///
/// Clones share the sessions. Each operation first removes expired sessions. While a [reaper](crate::Reaper) runs, their payloads
/// wait for the reaper for up to a day. The ids of renewed sessions stay for [`RENEWED_FOR`](crate::store::RENEWED_FOR), and
/// with [`remember_ends`](Self::remember_ends) those of ended sessions for the time that you set.
///
/// # Examples
///
/// ```
/// use threaded_sessions::{MemorySessionStore, SessionManager};
///
/// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
/// # let _ = sessions;
/// ```
#[derive(Clone, Default)]
pub struct MemorySessionStore {
    clock: Clock,
    capacity: Option<usize>,
    companions: Vec<String>,
    sessions: Arc<Mutex<Sessions>>,
}

impl MemorySessionStore {
    /// Creates an empty store on the system's clock, without a bound.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock. Defaults to the system's.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{Clock, MemorySessionStore, SessionManager};
    ///
    /// let clock = Clock::manual();
    /// let store = MemorySessionStore::new().with_clock(clock.clone());
    /// let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).build()?;
    ///
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// let committed = sessions.commit(session)?;
    /// let id = committed.id().expect("the session is stored");
    /// clock.advance(Duration::from_secs(8 * 86_400)); // longer than the idle timeout of a week
    /// assert!(sessions.open_id(id)?.is_none());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets the maximum number of sessions. Defaults to no bound.
    ///
    /// If the store has that many live sessions, [`create`](SessionStore::create) fails with [`ErrorKind::OutOfMemory`], and no
    /// session ends. Expired sessions that wait for a [reaper](crate::Reaper) count too, but the store drops the longest
    /// overdue ones to make room, and the reaper does not report them. The store also remembers at most that many renewed ids.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{ErrorKind, MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new().with_max_sessions(1));
    /// for expected in [None, Some(ErrorKind::OutOfMemory)] {
    ///     let mut session = sessions.open(None)?;
    ///     *session += 1;
    ///     assert_eq!(sessions.commit(session).err().map(|error| error.kind()), expected);
    /// }
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn with_max_sessions(self, sessions: usize) -> Self {
        sync::lock(&self.sessions).capacity = Some(sessions);
        Self { capacity: Some(sessions), ..self }
    }

    /// Sets for how long the store remembers why each session ended, for [`Session::ended`](crate::Session::ended). Defaults to
    /// no reasons.
    ///
    /// The setting holds for all clones of the store. A bounded store remembers at most as many ends as it may have sessions.
    pub fn remember_ends(self, time: Duration) -> Self {
        sync::lock(&self.sessions).remember = Some(ttl_millis(time));
        self
    }

    /// Locks the live sessions and returns the time in milliseconds since 1970.
    fn open(&self) -> (MutexGuard<'_, Sessions>, u64) {
        let (mut sessions, now) = self.lock();
        sessions.evict(now);
        (sessions, now)
    }

    /// Ends a session, and returns whether it was live.
    fn end_one(&self, id: &SessionId, reason: EndReason) -> bool {
        let (mut sessions, now) = self.open();
        let lives = matches!(sessions.entries.get(id), Some((_, Entry::Session { .. })));
        if lives {
            sessions.end(id, reason, now);
        }
        lives
    }

    /// Locks all sessions, including expired ones that are not removed yet.
    fn lock(&self) -> (MutexGuard<'_, Sessions>, u64) {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        (sync::lock(&self.sessions), now)
    }
}

impl fmt::Debug for MemorySessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySessionStore")
            .field("sessions", &self.open().0.count())
            .field("capacity", &self.capacity)
            .field("clock", &self.clock)
            .finish()
    }
}

impl SessionStore for MemorySessionStore {
    fn handle(&self, id: &SessionId) -> Handle {
        handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        companion::check_kept(&self.companions, write.companions)?;
        let (mut sessions, now) = self.open();
        if let Some(Entry::Session { payload, .. }) = sessions.entries.get(id).map(|(_, entry)| entry) {
            let own = **payload == *write.payload;
            return Ok(if own { Created::Stored(Version(payload.clone())) } else { Created::Taken });
        }
        if sessions.is_over_cap(id, write.bind) {
            return Ok(Created::OverCap);
        }
        if !sessions.make_room(self.capacity) {
            return Err(Error::new(ErrorKind::OutOfMemory, operation::CREATE));
        }
        Ok(Created::Stored(sessions.put_session(*id, write, Extras::default(), now)))
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        let (mut sessions, now) = self.open();
        let (deadline, payload) = match sessions.entries.get(id) {
            None => return Ok(Found::Absent),
            Some((_, Entry::Over(EndReason::Renewed))) => return Ok(Found::Renewed),
            Some((_, Entry::Over(reason))) => return Ok(Found::Ended(*reason)),
            Some((deadline, Entry::Session { payload, .. })) => (*deadline, payload.clone()),
        };
        let touched = match touch {
            Touch::No | Touch::Peek => deadline,
            Touch::Set(ttl) => Some(now + ttl_millis(ttl)),
            Touch::Extend(ttl) => deadline.map(|deadline| deadline.max(now + ttl_millis(ttl))),
            Touch::SetIfDue { ttl, enough } => {
                let [enough, ttl] = [enough, ttl].map(|time| now + ttl_millis(time));
                deadline.filter(|deadline| *deadline > enough && *deadline <= ttl).or(Some(ttl))
            }
            Touch::ExtendIfDue { ttl, enough } => {
                let [enough, ttl] = [enough, ttl].map(|time| now + ttl_millis(time));
                deadline.map(|deadline| if deadline > enough { deadline } else { deadline.max(ttl) })
            }
        };
        if touched != deadline {
            sessions.touch(id, touched);
        }
        Ok(Found::Live(stored(payload, touched, now)))
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        companion::check_kept(&self.companions, write.companions)?;
        let (mut sessions, now) = self.open();
        Ok(match sessions.outcome_without_write(id, write, expected, now) {
            Some(outcome) => outcome,
            None if sessions.is_over_cap(id, write.bind) => Saved::OverCap,
            None => {
                let extras = sessions.extras_of(id);
                Saved::Stored(sessions.put_session(*id, write, extras, now))
            }
        })
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        companion::check_kept(&self.companions, write.companions)?;
        let (mut sessions, now) = self.open();
        if let Some((_, Entry::Session { payload, .. })) = sessions.entries.get(new) {
            return match **payload == *write.payload {
                true => Ok(Saved::Stored(Version(payload.clone()))),
                false => Err(rotated_onto_another()),
            };
        }
        Ok(match sessions.outcome_without_write(old, write, expected, now) {
            Some(outcome) => outcome,
            None if sessions.is_over_cap(old, write.bind) => Saved::OverCap,
            None => {
                let extras = sessions.extras_of(old);
                sessions.announce_renewal(old, new);
                sessions.bury(*old, EndReason::Renewed, now + ttl_millis(RENEWED_FOR));
                Saved::Stored(sessions.put_session(*new, write, extras, now))
            }
        })
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        Ok(self.end_one(id, EndReason::Destroyed))
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        companion::keep(&mut self.companions, suffixes)
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let companions = self.open().0.extras_of(id).companions;
        Ok(companions.into_iter().find(|companion| companion.suffix == suffix).map(|companion| companion.value))
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        Some(self)
    }

    /// Copies the names of all live sessions at the beginning.
    fn walk(&self) -> Result<KeyPages<'_>> {
        let mut ids = self.open().0.live().into_iter();
        let mut progress = Progress::new(0, ids.len() as u64);
        Ok(Box::new(iter::from_fn(move || {
            let ids = ids.by_ref().take(WALK_PAGE);
            let keys: Vec<_> = ids.map(|id| SessionKey::new(handle(&id), 0, id.expose())).collect();
            progress = progress.after(keys.len() as u64);
            (!keys.is_empty()).then(|| Ok(KeyPage::new(keys, progress)))
        })))
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        let (sessions, now) = self.open();
        let snapshot = |key: &SessionKey| match sessions.entries.get(&id_of(key)?)? {
            (deadline, Entry::Session { payload, .. }) => {
                Some(Snapshot::new(key.clone(), payload.clone(), stored(payload.clone(), *deadline, now).expires_in))
            }
            (_, Entry::Over(_)) => None,
        };
        Ok(keys.iter().filter_map(snapshot).collect())
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        Ok(keys.iter().filter_map(id_of).map(|id| u64::from(self.end_one(&id, EndReason::Ended))).sum())
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        let ends = self.lock().0.feed();
        Ok(Box::new(Feed { store: self.clone(), ends, is_ready: false }))
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        companion::check_kept(&self.companions, write.companions)?;
        let Some(id) = id_of(key) else { return Ok(Saved::Missing) };
        let (mut sessions, now) = self.open();
        let outcome = sessions.outcome_without_write(&id, write, Some(expected), now);
        Ok(outcome.unwrap_or_else(|| Saved::Stored(sessions.replace_payload(id, write))))
    }
}

impl SessionIndex for MemorySessionStore {
    /// Keeps sessions that expire from now on until they are reaped, for 24 hours at most. They are absent for all operations. A
    /// bounded store drops the longest overdue ones if it needs their room.
    fn keep_expired(&self) {
        // Do not call `open`, because it drops sessions that have expired by now.
        self.lock().0.keep_expired();
    }

    fn stop_keeping_expired(&self) {
        self.lock().0.stop_keeping_expired();
    }

    fn reap(&self, _partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        let (mut sessions, now) = self.lock();
        Ok(sessions.reap(now, limit, payloads))
    }

    fn count(&self) -> Result<u64> {
        Ok(self.open().0.count() as u64)
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<index::Entry>> {
        let (sessions, now) = self.open();
        let live = sessions.entries.iter().filter(|(_, (_, entry))| matches!(entry, Entry::Session { .. }));
        let mut deadlines: Vec<_> = live.map(|(id, (deadline, _))| (deadline.unwrap_or(u64::MAX), *id)).collect();
        deadlines.sort_unstable_by_key(|&deadline| std::cmp::Reverse(deadline));
        let page = deadlines.into_iter().skip(offset).take(limit);
        let left = |deadline| (deadline != u64::MAX).then(|| Duration::from_millis(deadline - now));
        Ok(page.map(|(deadline, id)| index::Entry::new(self.handle(&id), left(deadline))).collect())
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let (sessions, now) = self.open();
        let of = |&(since, id): &(u64, SessionId)| {
            let stored = match sessions.entries.get(&id)? {
                (deadline, Entry::Session { payload, .. }) => stored(payload.clone(), *deadline, now),
                (_, Entry::Over(_)) => return None,
            };
            Some(Belonging::new(handle(&id), stored.payload, stored.expires_in, since))
        };
        Ok(sessions.owned.get(principal).into_iter().flatten().rev().filter_map(of).collect())
    }

    fn owned_after(&self, principal: &str, _partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let (sessions, now) = self.open();
        let is_later = |&&(since, _): &&(u64, SessionId)| after.is_none_or(|after| since > after);
        let owned = sessions.owned.get(principal).into_iter().flatten().filter(is_later).take(WALK_PAGE);
        let ids: Vec<(u64, SessionId)> = owned.copied().collect();
        let found = ids.iter().filter_map(|(since, id)| match sessions.entries.get(id)? {
            (deadline, Entry::Session { payload, .. }) => {
                let stored = stored(payload.clone(), *deadline, now);
                let key = SessionKey::new(handle(id), 0, id.expose());
                Some(Owned::new(key, stored.payload, stored.version, stored.expires_in, *since))
            }
            (_, Entry::Over(_)) => None,
        });
        Ok(OwnedPage::new(found.collect(), ids.last().map(|(since, _)| *since)))
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        let (mut sessions, now) = self.open();
        let ends = |id: &SessionId| match which {
            Ending::All => true,
            Ending::AllExcept(kept) => id != kept,
            Ending::Only(wanted) => handle(id) == wanted,
        };
        let ids: Vec<SessionId> = sessions.owned.get(principal).into_iter().flatten().map(|(_, id)| *id).collect();
        if let Ending::AllExcept(kept) = which
            && !ids.contains(kept)
        {
            return Err(Ending::not_theirs(operation::END));
        }
        let ended: Vec<SessionId> = ids.into_iter().filter(ends).collect();
        for id in &ended {
            sessions.end(id, EndReason::Ended, now);
        }
        Ok(ended.len() as u64)
    }

    fn end_everybody(&self) -> Result<u64> {
        let (mut sessions, now) = self.open();
        let ids = sessions.live();
        for id in &ids {
            sessions.end(id, EndReason::Ended, now);
        }
        Ok(ids.len() as u64)
    }

    /// Finds nothing, because the index and the sessions share one table.
    fn verify(&self, _options: VerifyOptions<'_>) -> Result<Verified> {
        Ok(Verified::default())
    }
}

/// The feed of a listener. It removes expired sessions while it waits, so their ends arrive without any other operation.
struct Feed {
    store: MemorySessionStore,
    ends: Receiver<Ended>,
    is_ready: bool,
}

impl EndFeed for Feed {
    fn next(&mut self, wait: Duration) -> Result<EndNews> {
        if !mem::replace(&mut self.is_ready, true) {
            return Ok(EndNews::Ready);
        }
        if let Ok(ended) = self.ends.try_recv() {
            return Ok(EndNews::Ended(ended));
        }
        drop(self.store.open());
        Ok(self.ends.recv_timeout(wait).map_or(EndNews::Quiet, EndNews::Ended))
    }
}

/// The number of sessions on a page of a walk.
const WALK_PAGE: usize = 250;

/// Reads back the name that a walk gave a session.
fn id_of(key: &SessionKey) -> Option<SessionId> {
    str::from_utf8(key.name()).ok()?.parse().ok()
}

fn handle(id: &SessionId) -> Handle {
    Handle::of_key(id.expose().as_bytes())
}

fn stored(payload: Bytes, deadline: Option<u64>, now: u64) -> Stored {
    let version = Version(payload.clone());
    Stored::new(payload, version, deadline.map(|deadline| Duration::from_millis(deadline - now)))
}
