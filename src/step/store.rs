//! [`StepStore`], a store that runs a chain of steps around another store.
//!
//! Managers, reapers and adapters use it as any other store. Every operation on a single session and every payload that the inner
//! store returns passes through all steps.

use std::sync::Arc;

use super::Step;
use super::fenced::FencedStep;
use super::operation::{DeleteOperation, Next, ReadOperation, Subject, WriteKind, WriteOperation, Written};
use crate::store::{
    Belonging, Bytes, Created, EndFeed, EndedAll, Ending, Entry, Expired, Found, Health, KeyPages, OnProgress, Owned,
    OwnedPage, Reaped, Saved, SessionIndex, SessionKey, SessionStore, Snapshot, Touch, Verified, VerifyOptions,
    Version, Write, index_of,
};
use crate::{Error, ErrorKind, Handle, Observer, Reason, RedisWarning, Result, SessionId, fence, operation};

/// A store with steps around it; the [module](crate::step) describes how they work.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::{WrittenAt, on_read};
/// use threaded_sessions::{MemorySessionStore, SessionManager, StepStore};
///
/// let store = StepStore::builder(MemorySessionStore::new())
///     .step(WrittenAt::new())
///     .step(on_read(|operation, next| {
///         println!("reading {}", operation.handle());
///         next.read(operation)
///     }))
///     .build()?;
/// let sessions = SessionManager::<u32>::new(store);
/// # let _ = sessions;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Debug)]
pub struct StepStore<S> {
    store: S,
    /// The outermost step is the last.
    steps: Vec<FencedStep>,
}

/// The steps of a [`StepStore`], from the innermost to the outermost.
#[derive(Debug)]
#[must_use]
pub struct StepStoreBuilder<S>(StepStore<S>);

impl<S: SessionStore> StepStore<S> {
    /// Returns a builder for steps around this store.
    pub fn builder(store: S) -> StepStoreBuilder<S> {
        StepStoreBuilder(Self { store, steps: Vec::new() })
    }

    /// Returns the inner store.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn chain(&self) -> Next<'_> {
        Next::new(&self.store, &self.steps)
    }
}

impl<S: SessionStore> StepStoreBuilder<S> {
    /// Adds a step around the store and the steps before it.
    pub fn step(mut self, step: impl Step) -> Self {
        self.0.steps.push(FencedStep::new(step));
        self
    }

    /// Builds the store.
    ///
    /// # Errors
    ///
    /// Both errors concern steps with [companions](Step::companions):
    ///
    /// - Returns [`ErrorKind::Unsupported`] if the store keeps no companions.
    /// - Returns [`ErrorKind::Misconfigured`] if the store is already shared, or if a suffix is invalid or was declared before.
    pub fn build(self) -> Result<StepStore<S>> {
        let mut built = self.0;
        let companions: Vec<String> = built.steps.iter().flat_map(|step| step.companions()).collect();
        built.store.keep_companions(&companions)?;
        Ok(built)
    }
}

impl<S: SessionStore> SessionStore for StepStore<S> {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.store.fresh_id(beside)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        self.store.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let mut operation = WriteOperation::new(&self.store, WriteKind::Create, id, write, None);
        match self.chain().write(&mut operation)? {
            Written::Stored(version) => Ok(Created::Stored(version)),
            Written::Taken => Ok(Created::Taken),
            Written::OverCap => Ok(Created::OverCap),
            Written::Missing | Written::Conflict(_) => Err(misfit(operation::CREATE)),
        }
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        self.chain().read(&mut ReadOperation::new(&self.store, id, touch))
    }

    fn forget(&self, ids: &[SessionId]) {
        self.store.forget(ids);
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let mut operation = WriteOperation::new(&self.store, WriteKind::Save, id, write, expected);
        saved(operation::SAVE, self.chain().write(&mut operation)?)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let kind = WriteKind::Rotate { from: *old };
        let mut operation = WriteOperation::new(&self.store, kind, new, write, expected);
        saved(operation::ROTATE, self.chain().write(&mut operation)?)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        let mut operation = DeleteOperation::new(&self.store, id);
        self.chain().delete(&mut operation).map(|deleted| deleted.existed)
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        self.store.keep_companions(suffixes)
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        self.store.companion(id, suffix)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.store.index().map(|_| self as _)
    }

    fn partition_count(&self) -> u32 {
        self.store.partition_count()
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        self.store.walk()
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        let snapshots = self.store.snapshots(keys)?.into_iter();
        let restored = |snapshot: Snapshot| {
            let payload = snapshot.payload.and_then(|payload| self.restore(snapshot.key.handle(), payload));
            Snapshot { payload, ..snapshot }
        };
        Ok(snapshots.map(restored).collect())
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        self.store.end_keys(keys)
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        let mut operation = WriteOperation::change(&self.store, key, write, expected);
        saved(operation::UPDATE_ALL, self.chain().write(&mut operation)?)
    }

    fn check(&self) -> Result<Vec<RedisWarning>> {
        self.store.check()
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        self.store.end_feed()
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn observe(&self, observer: &Arc<dyn Observer>) {
        self.store.observe(observer);
    }
}

impl<S: SessionStore> SessionIndex for StepStore<S> {
    fn partitions(&self) -> u32 {
        self.store.index().map_or(1, |index| index.partitions())
    }

    fn keep_expired(&self) {
        if let Some(index) = self.store.index() {
            index.keep_expired();
        }
    }

    fn stop_keeping_expired(&self) {
        if let Some(index) = self.store.index() {
            index.stop_keeping_expired();
        }
    }

    /// Asks for payloads even if the caller wants none, because the steps see each removed session.
    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        let reaped =
            index_of(&self.store, operation::REAP)?.reap(partition, limit, payloads || !self.steps.is_empty())?;
        let tell = |expired: Expired| {
            let mut operation = DeleteOperation::reaped(&self.store, expired.handle, expired.payload);
            match self.chain().delete(&mut operation) {
                Ok(deleted) => deleted.payload.map(|payload| Expired::new(expired.handle, payload)),
                Err(error) => {
                    warn(expired.handle, "expired, and a step rejected the report", &error);
                    None
                }
            }
        };
        let sessions: Vec<Expired> = reaped.sessions.into_iter().filter_map(tell).collect();
        Ok(Reaped { sessions: if payloads { sessions } else { Vec::new() }, ..reaped })
    }

    fn count(&self) -> Result<u64> {
        index_of(&self.store, operation::COUNT)?.count()
    }

    fn count_by_partition(&self) -> Result<Vec<u64>> {
        index_of(&self.store, operation::COUNT)?.count_by_partition()
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        index_of(&self.store, operation::PAGE)?.page(offset, limit)
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let theirs = index_of(&self.store, operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?;
        Ok(theirs.into_iter().filter_map(|belonging| self.restored(belonging)).collect())
    }

    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let page = index_of(&self.store, operation::UPDATE_ALL)?.owned_after(principal, partition, after)?;
        let restored = |owned: Owned| {
            let payload = owned.payload.and_then(|payload| self.restore(owned.key.handle(), payload));
            Owned { payload, ..owned }
        };
        Ok(OwnedPage { sessions: page.sessions.into_iter().map(restored).collect(), ..page })
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        index_of(&self.store, operation::END)?.end(principal, which)
    }

    fn end_everybody(&self) -> Result<u64> {
        index_of(&self.store, operation::END_ALL_SESSIONS)?.end_everybody()
    }

    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        index_of(&self.store, operation::END_ALL_SESSIONS)?.end_everybody_with(on_progress)
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        index_of(&self.store, operation::VERIFY)?.verify(options)
    }
}

impl<S: SessionStore> StepStore<S> {
    /// Restores a payload outside an operation.
    fn restore(&self, handle: Handle, payload: Bytes) -> Result<Bytes> {
        let session = Subject::shown(&self.store, handle);
        self.steps.iter().try_fold(payload, |payload, step| step.restore(&session, payload))
    }

    /// Returns the session of a list with its payload restored, or `None` if a step cannot restore it. One unreadable session
    /// must not hide the others.
    fn restored(&self, belonging: Belonging) -> Option<Belonging> {
        match self.restore(belonging.handle, belonging.payload.clone()) {
            Ok(payload) => Some(Belonging { payload, ..belonging }),
            Err(error) => {
                warn(belonging.handle, "is left out of a list", &error);
                None
            }
        }
    }
}

fn saved(operation: &'static str, written: Written) -> Result<Saved> {
    match written {
        Written::Stored(version) => Ok(Saved::Stored(version)),
        Written::Missing => Ok(Saved::Missing),
        Written::Conflict(theirs) => Ok(Saved::Conflict(theirs)),
        Written::OverCap => Ok(Saved::OverCap),
        Written::Taken => Err(misfit(operation)),
    }
}

fn misfit(operation: &'static str) -> Error {
    Error::new(ErrorKind::Other, operation).with_source(Reason::new("a step returned an outcome of another operation"))
}

fn warn(handle: Handle, what: &str, error: &Error) {
    fence::log!(Warn, session:% = handle; "session {handle} {what}: {error:#}");
}
