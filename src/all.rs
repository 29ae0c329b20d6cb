//! All sessions of a store: list, find, count and end them, without the type of their values.
//!
//! Operators' tools and [`SessionManager::all`](crate::SessionManager::all) use it. The invariant: reading touches no session, and
//! what a tool shows of a session never includes its id.

mod info;
mod prefix;
mod walk;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

pub use self::info::SessionInfo;
pub use self::prefix::HandlePrefix;
pub use self::walk::Walk;
use crate::codec::Head;
use crate::store::{EndedAll, KeyPage, Progress, SessionKey};
use crate::{Clock, Handle, Result, SessionStore};

/// The largest number of walks in which `end_everybody` looks for sessions that were renewed during the walk before.
const MAX_END_WALKS: usize = 8;

/// All sessions of a store, whoever they belong to. For operators and administrators; from [`SessionManager::all`] or [`new`].
///
/// It works with every store of this crate and needs no type of a session's value. With an index (the expiring Redis store, the
/// memory store) it walks the index; on a plain Redis store it walks all keys of the database. Custom stores implement
/// [`walk`](SessionStore::walk), [`snapshots`](SessionStore::snapshots) and [`end_keys`](SessionStore::end_keys); without them,
/// each method fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
///
/// [`new`]: Self::new
/// [`SessionManager::all`]: crate::SessionManager::all
///
/// # Examples
///
/// ```
/// use std::ops::ControlFlow;
///
/// use threaded_sessions::{AllSessions, EndedByHandle, MemorySessionStore, SessionManager};
///
/// let store = MemorySessionStore::new();
/// let sessions = SessionManager::<u32>::new(store.clone());
/// let mut session = sessions.open(None)?;
/// session.bind("ada", "laptop");
/// let _ = sessions.commit(session)?;
///
/// let all = AllSessions::new(&store);
/// for session in all.iter() {
///     let session = session?;
///     println!("{} {:?} {:?}", session.handle, session.owner, session.last_used);
/// }
/// let handle = all.iter().next().expect("one session")?.handle;
/// let on_progress = |_| ControlFlow::Continue(());
/// assert_eq!(all.end_by_handle(handle, on_progress)?, EndedByHandle::Ended(handle));
/// assert_eq!(all.end_by_handle(handle, on_progress)?, EndedByHandle::AlreadyGone(handle));
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct AllSessions<'a> {
    store: &'a dyn SessionStore,
    clock: Clock,
    decoder: Option<Box<Decoder<'a>>>,
    touch_every: Duration,
}

/// Reads payloads that are neither JSON nor MessagePack.
pub(crate) type Decoder<'a> = dyn Fn(&[u8]) -> Option<Head> + Send + Sync + 'a;

/// The result of [`find`](AllSessions::find).
#[derive(Clone, Debug)]
#[must_use]
pub enum FoundByHandle {
    /// One live session has the prefix.
    One(Box<SessionInfo>),
    /// No live session has it.
    NoMatch,
    /// Several live sessions have it.
    Ambiguous(Vec<SessionInfo>),
    /// The callback stopped the search.
    Interrupted,
}

/// The result of [`end_by_handle`](AllSessions::end_by_handle).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum EndedByHandle {
    /// This session has ended.
    Ended(Handle),
    /// No live session has this handle: it ended or expired before, or never was.
    AlreadyGone(Handle),
    /// No live session has this prefix, which is not a whole handle.
    NoMatch,
    /// Several live sessions have this prefix. None has ended.
    Ambiguous(Vec<SessionInfo>),
    /// The callback stopped the search. No session has ended.
    Interrupted,
}

impl FoundByHandle {
    fn of(mut sessions: Vec<SessionInfo>) -> Self {
        match (sessions.len(), sessions.pop()) {
            (1, Some(only)) => Self::One(Box::new(only)),
            (_, Some(last)) => {
                sessions.push(last);
                Self::Ambiguous(sessions)
            }
            (_, None) => Self::NoMatch,
        }
    }
}

impl<'a> AllSessions<'a> {
    /// Returns all sessions of this store.
    pub fn new(store: &'a dyn SessionStore) -> Self {
        Self { store, clock: Clock::system(), decoder: None, touch_every: Duration::ZERO }
    }

    /// Sets the clock, for tests. Defaults to the system's.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets a decoder for payloads that are neither JSON nor MessagePack.
    pub(crate) fn with_decoder(self, decoder: impl Fn(&[u8]) -> Option<Head> + Send + Sync + 'a) -> Self {
        Self { decoder: Some(Box::new(decoder)), ..self }
    }

    /// Sets by how much a touch makes sessions live longer than their idle timeout.
    pub(crate) fn with_touch_every(self, touch_every: Duration) -> Self {
        Self { touch_every, ..self }
    }

    /// Walks all live sessions, in no order. It reads page after page, so the first session comes at once.
    ///
    /// A session that lives during the whole walk under one id comes exactly once; one that begins, ends or is renewed during the
    /// walk may come or not. To know which sessions came before, the walk keeps 16 bytes of each. It touches no session.
    ///
    /// An item is an error if a store operation fails. It is the last item then.
    #[doc(alias = "Iterate")]
    pub fn iter(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// Counts the live sessions: by the [index](crate::store::SessionIndex::count) if there is one, otherwise by a walk over
    /// all keys.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index and cannot walk its sessions.
    /// - Returns an error if a store operation fails.
    pub fn count(&self) -> Result<u64> {
        match self.store.index() {
            Some(index) => index.count(),
            None => Ok(self.count_by_partition()?.iter().sum()),
        }
    }

    /// Counts the live sessions of each partition.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`count`](Self::count).
    pub fn count_by_partition(&self) -> Result<Vec<u64>> {
        if let Some(index) = self.store.index() {
            return index.count_by_partition();
        }
        let mut counts = vec![0; self.store.partition_count() as usize];
        let _ = self.each_page(|page| {
            for key in &page.keys {
                if let Some(count) = counts.get_mut(key.partition() as usize) {
                    *count += 1;
                }
            }
            ControlFlow::<()>::Continue(())
        })?;
        Ok(counts)
    }

    /// Finds the session with this handle, or the only one whose handle begins with this prefix.
    ///
    /// A handle does not reveal the name of its session, so this walks over all sessions. `on_progress` is called after each
    /// page. It stops the search if it returns [`ControlFlow::Break`].
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk its sessions.
    /// - Returns an error if a store operation fails.
    pub fn find(
        &self,
        handle: impl Into<HandlePrefix>,
        on_progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<FoundByHandle> {
        let found = self.find_each(&[handle.into()], on_progress)?;
        Ok(found.and_then(|mut each| each.pop()).unwrap_or(FoundByHandle::Interrupted))
    }

    /// Finds several sessions in one walk. Returns one result for each handle or prefix, in their order, or `None` if the callback
    /// stopped the search.
    pub(crate) fn find_each(
        &self,
        prefixes: &[HandlePrefix],
        mut on_progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Vec<FoundByHandle>>> {
        let mut matching: Vec<Vec<SessionKey>> = vec![Vec::new(); prefixes.len()];
        let stopped = self.each_page(|page| {
            for key in &page.keys {
                let digits = prefix::digits(key.handle());
                let meant = prefixes.iter().zip(&mut matching).filter(|(prefix, _)| prefix.begins(&digits));
                meant.for_each(|(_, matching)| matching.push(key.clone()));
            }
            let mut each = prefixes.iter().zip(&matching);
            match on_progress(page.progress) {
                ControlFlow::Break(()) => ControlFlow::Break(true),
                ControlFlow::Continue(()) if each.all(|(prefix, found)| prefix.is_whole() && !found.is_empty()) => {
                    ControlFlow::Break(false)
                }
                ControlFlow::Continue(()) => ControlFlow::Continue(()),
            }
        })?;
        if stopped == ControlFlow::Break(true) {
            return Ok(None);
        }
        let found = matching.iter().map(|keys| Ok(FoundByHandle::of(self.infos(keys)?)));
        found.collect::<Result<_>>().map(Some)
    }

    /// Ends a session that a walk or [`find`](Self::find) returned. Returns `false` if it has ended before.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk its sessions.
    /// - Returns an error if the store operation fails.
    pub fn end(&self, session: &SessionInfo) -> Result<bool> {
        Ok(self.store.end_keys(std::slice::from_ref(session.key()))? > 0)
    }

    /// Ends the session with this handle, or the only one whose handle begins with this prefix.
    ///
    /// It [finds](Self::find) the session, and ends only that. A session that is renewed between the two lives under its new id.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk its sessions.
    /// - Returns an error if a store operation fails.
    pub fn end_by_handle(
        &self,
        handle: impl Into<HandlePrefix>,
        on_progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<EndedByHandle> {
        let prefix = handle.into();
        Ok(match self.find(prefix.clone(), on_progress)? {
            FoundByHandle::One(session) if self.end(&session)? => EndedByHandle::Ended(session.handle),
            FoundByHandle::One(session) => EndedByHandle::AlreadyGone(session.handle),
            FoundByHandle::NoMatch => prefix.to_handle().map_or(EndedByHandle::NoMatch, EndedByHandle::AlreadyGone),
            FoundByHandle::Ambiguous(sessions) => EndedByHandle::Ambiguous(sessions),
            FoundByHandle::Interrupted => EndedByHandle::Interrupted,
        })
    }

    /// Ends all sessions, and returns how many there were.
    ///
    /// With an index, all sessions that began before the call have ended when it returns, whatever id they were renewed to. On a
    /// plain Redis store it walks all keys until a walk finds no session, at most eight times, and each walk begins the progress
    /// anew. A session lives on there only if it is renewed during each of the walks. Sessions that begin during the call may end
    /// or live.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index and cannot walk its sessions.
    /// - Returns an error if a store operation fails. Some sessions may have ended by then; you can safely call it again.
    pub fn end_everybody(&self, mut on_progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<EndedAll> {
        if let Some(index) = self.store.index() {
            return index.end_everybody_with(&mut on_progress);
        }
        let mut all = EndedAll::default();
        for _ in 0..MAX_END_WALKS {
            let before = all.ended;
            for page in self.store.walk()? {
                let page = page?;
                all.ended += self.store.end_keys(&page.keys)?;
                if on_progress(page.progress).is_break() {
                    return Ok(EndedAll::new(all.ended, true));
                }
            }
            if all.ended == before {
                break;
            }
        }
        Ok(all)
    }

    /// Calls `look` with each page of a walk, until it breaks. No session is on two pages.
    pub(crate) fn each_page<B>(&self, mut look: impl FnMut(KeyPage) -> ControlFlow<B>) -> Result<ControlFlow<B>> {
        let mut pages = walk::DistinctPages::new(self.store);
        while let Some(page) = pages.next().transpose()? {
            if let ControlFlow::Break(why) = look(page) {
                return Ok(ControlFlow::Break(why));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Describes the live sessions under these names.
    fn infos(&self, keys: &[SessionKey]) -> Result<Vec<SessionInfo>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (snapshots, now) = (self.store.snapshots(keys)?, self.clock.now());
        let info = |snapshot| SessionInfo::of(snapshot, self.decoder.as_deref(), self.touch_every, now);
        Ok(snapshots.into_iter().map(info).collect())
    }
}

impl<'a> IntoIterator for &'a AllSessions<'_> {
    type Item = Result<SessionInfo>;
    type IntoIter = Walk<'a>;

    fn into_iter(self) -> Walk<'a> {
        self.iter()
    }
}

impl fmt::Debug for AllSessions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllSessions").field("store", &self.store).finish_non_exhaustive()
    }
}
