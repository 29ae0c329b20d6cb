//! The reaper: its settings, its handle and its statistics.
//!
//! Programs start it through [`SessionManager::reaper`] if their store has an index; `rounds` has the loop of its thread.
//! Invariant: stopping or dropping a [`Reaper`] ends the thread after its current batch, and waits no longer than
//! a [`Worker`] does.

mod rounds;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Sender, bounded};
use serde::Serialize;

use self::rounds::Rounds;
use crate::codec::Envelope;
use crate::store::{MAX_TTL, SessionIndex};
use crate::worker::Worker;
use crate::{Error, Handle, Result, SessionManager, fence, operation, serialize, sync};

/// The default time between two rounds, as in rrss (`:resolution`).
const DEFAULT_RESOLUTION: Duration = Duration::from_secs(600);

/// The default number of sessions in a batch. Its script occupies Redis for about 0.1 ms.
const DEFAULT_BATCH_SESSIONS: usize = 50;

/// The allowed numbers of sessions in a batch. A script passes a whole batch to one command, which bounds its arguments.
const ALLOWED_BATCH_SESSIONS: RangeInclusive<usize> = 1..=1000;

const NO_INDEX: &str =
    "the store has no index: a plain Redis store needs no reaper, because Redis removes expired sessions by itself";

/// A builder for a [`Reaper`], created by [`SessionManager::reaper`].
#[must_use]
pub struct ReaperBuilder<T> {
    sessions: SessionManager<T>,
    resolution: Duration,
    batch: usize,
    gentle: bool,
    on_expired: Option<OnExpired<T>>,
}

type OnExpired<T> = Box<dyn FnMut(ExpiredSession<T>) + Send>;

/// A session that expired and was removed, for [`ReaperBuilder::on_expired`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ExpiredSession<T> {
    /// The handle of the session, as in logs and on pages.
    pub handle: Handle,
    /// The time when the session [began](crate::Session::created).
    pub created: SystemTime,
    /// The principal that owned the session; `None` if it had no owner.
    pub principal: Option<String>,
    /// The label that [`bind`](crate::Session::bind) set; `None` if the session had no owner.
    pub label: Option<String>,
    /// The value, as it was stored last.
    pub data: T,
}

impl<T> ExpiredSession<T> {
    fn new(handle: Handle, envelope: Envelope<T>) -> Self {
        let (principal, label) = envelope.bound.map(|bound| (bound.principal, bound.label)).unzip();
        Self { handle, created: envelope.created, principal, label, data: envelope.data }
    }
}

/// Hides the value, the principal and the label.
impl<T> fmt::Debug for ExpiredSession<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiredSession")
            .field("handle", &self.handle)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> SessionManager<T> {
    /// Returns a builder for a background thread that deletes expired sessions; see [`Reaper`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new())
    ///     .idle_timeout(Duration::from_secs(3600))
    ///     .build()?;
    /// let reaper = sessions
    ///     .reaper()
    ///     .resolution(Duration::from_secs(60))
    ///     .on_expired(|session| println!("{} expired after {} visits", session.handle, session.data))
    ///     .start()?;
    /// # drop(reaper);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn reaper(&self) -> ReaperBuilder<T> {
        ReaperBuilder {
            sessions: self.clone(),
            resolution: DEFAULT_RESOLUTION,
            batch: DEFAULT_BATCH_SESSIONS,
            gentle: true,
            on_expired: None,
        }
    }
}

impl<T: 'static> ReaperBuilder<T> {
    /// Sets the time between two rounds of the reaper. Defaults to 600 seconds, as in rrss.
    ///
    /// It is at least 1 ms; more than 100 years count as 100 years. The reaper removes an expired session, and calls the
    /// callback, up to this time after the session expired. No caller can read the session in between. (rrss `:resolution`.)
    pub fn resolution(self, resolution: Duration) -> Self {
        Self { resolution: resolution.min(MAX_TTL), ..self }
    }

    /// Sets how many sessions one atomic batch looks at, from 1 to 1000. Defaults to 50.
    ///
    /// A batch blocks Redis for a few microseconds for each session.
    pub fn batch(self, sessions: usize) -> Self {
        Self { batch: sessions, ..self }
    }

    /// Sets whether the reaper pauses between batches, so that it does not slow down other traffic. Defaults to `true`.
    ///
    /// With `false`, two batches run at a time over two connections, which removes a large backlog faster. If the system has no
    /// thread for them, the reaper works as with `true`.
    pub fn gentle(self, gentle: bool) -> Self {
        Self { gentle, ..self }
    }

    /// Sets a function that is called with each session that expired, after it was removed. Defaults to none.
    ///
    /// Use it to release what the session held, or to notify its owner. The function runs on the reaper's thread. If it panics,
    /// the panic is logged and the reaper continues.
    ///
    /// At most one reaper gets each session, however many processes run one, so set the callback in all of them. The callback
    /// is called at most once for each session. It misses a session if
    ///
    /// - the process ends, or the reply of Redis is lost, between the removal and the call;
    /// - the payload cannot be decoded;
    /// - no reaper ran for 24 hours;
    /// - Redis lost the index, and neither traffic nor [`verify`](crate::store::SessionIndex::verify) restored the session
    ///   there.
    ///
    /// It gets a session twice only if Redis loses the removal, in a crash or a failover. A session that was destroyed did not
    /// expire. Neither did a session that a visitor opened after the end of its
    /// [lifetime](crate::SessionManagerBuilder::lifetime).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use threaded_sessions::{Clock, MemorySessionStore, SessionManager};
    ///
    /// let clock = Clock::manual();
    /// let store = MemorySessionStore::new().with_clock(clock.clone());
    /// let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).build()?;
    /// let (expired, inbox) = mpsc::channel();
    /// let reaper = sessions.reaper().on_expired(move |session| expired.send(session.data).unwrap()).start()?;
    ///
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// sessions.commit(session)?;
    /// clock.advance(Duration::from_secs(8 * 86_400)); // longer than the idle timeout of a week
    /// assert_eq!(reaper.reap_now()?, 1);
    /// assert_eq!(inbox.recv(), Ok(7));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn on_expired(self, callback: impl FnMut(ExpiredSession<T>) + Send + 'static) -> Self {
        Self { on_expired: Some(Box::new(callback)), ..self }
    }

    /// Starts the thread.
    ///
    /// Its first round begins after a random part of the resolution, so that processes that start together do not reap
    /// together.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured), with the rule as its source, if the resolution or
    ///   the batch is out of range.
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index. The plain Redis store has
    ///   none, and needs no reaper.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the system cannot create a thread.
    pub fn start(self) -> Result<Reaper> {
        let rules = [
            (self.resolution < Duration::from_millis(1), "`resolution` must be at least 1 ms"),
            (!ALLOWED_BATCH_SESSIONS.contains(&self.batch), "`batch` must be between 1 and 1000"),
        ];
        Error::first_broken(operation::START_REAPER, rules)?;
        let Some(index) = self.sessions.store().index() else {
            return Err(Error::unsupported(operation::START_REAPER, NO_INDEX));
        };
        let partitions = index.partitions().max(1);
        index.keep_expired();
        let keeping = Keeping(self.sessions.clone());
        let stats = Arc::new(Mutex::new(ReaperStats::default()));
        let shared = stats.clone();
        let worker = Worker::start("session-reaper", operation::START_REAPER, move |inbox| {
            let _keeping = keeping;
            Rounds::new(self, partitions, inbox, shared).run();
        })?;
        Ok(Reaper { worker, stats })
    }
}

/// A store that keeps expired sessions for a reaper, until the reaper ends or does not start.
struct Keeping<T: 'static>(SessionManager<T>);

impl<T: 'static> Drop for Keeping<T> {
    fn drop(&mut self) {
        fence::call(|| self.0.store().index().map(SessionIndex::stop_keeping_expired));
    }
}

impl<T> fmt::Debug for ReaperBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaperBuilder")
            .field("resolution", &self.resolution)
            .field("batch", &self.batch)
            .field("gentle", &self.gentle)
            .finish_non_exhaustive()
    }
}

/// A thread that deletes expired sessions, for as long as this handle lives (rrss `expiring-redis-store`).
///
/// It needs a store with an index. Any number of processes can run a reaper at the same time; one is enough. The reaper does
/// not make sessions expire: an expired session is absent at once. The reaper frees the memory, and notifies the application.
///
/// It survives failures of Redis, of the callback and of a custom store. After a failure the next round begins in 1 second, then
/// in 2, 4 and so on, but at least once in each resolution. With several partitions, that round covers the next partition, and
/// the failed one has its turn again later. The reaper logs the first failure once, and its recovery once.
#[derive(Debug)]
#[must_use = "the reaper stops when it is dropped"]
pub struct Reaper {
    worker: Worker<Order>,
    stats: Arc<Mutex<ReaperStats>>,
}

/// The counters of a [`Reaper`].
///
/// It serializes the fields under their names, with `last_round` in milliseconds since 1970 and `last_duration` in
/// milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReaperStats {
    /// The number of completed rounds. In a store with partitions, each partition has its own rounds.
    pub rounds: u64,
    /// The number of sessions that were removed.
    pub removed: u64,
    /// The number of rounds that failed.
    pub errors: u64,
    /// The time when the last round began.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub last_round: Option<SystemTime>,
    /// The duration of the last round, which covers one partition.
    #[serde(serialize_with = "serialize::duration")]
    pub last_duration: Duration,
    /// The number of index entries that were due and not yet processed in the partition of the last batch, when it was last
    /// known.
    pub backlog: u64,
}

enum Order {
    Reap(Sender<Result<u64>>),
    Stop,
}

impl Reaper {
    /// Reaps all sessions that are due now, and returns how many there were.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the callback calls it, because it would wait for
    ///   itself, or if the reaper has ended.
    /// - Returns another error if a store operation fails.
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
    /// let reaper = sessions.reaper().start()?;
    ///
    /// let mut session = sessions.open(None)?;
    /// *session = 7;
    /// sessions.commit(session)?;
    /// clock.advance(Duration::from_secs(8 * 86_400)); // longer than the idle timeout of a week
    /// assert_eq!(reaper.reap_now()?, 1);
    /// assert_eq!(reaper.stats().removed, 1);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn reap_now(&self) -> Result<u64> {
        self.worker.origin().check(operation::REAP)?;
        let refuse = |why: &'static str| Error::unsupported(operation::REAP, why);
        if self.worker.is_current() {
            return Err(refuse("the callback of a reaper cannot wait for the reaper"));
        }
        let (answer, answered) = bounded(1);
        let ended = || refuse("the reaper has ended");
        self.worker.orders().send(Order::Reap(answer)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }

    /// Returns the counters of the reaper.
    pub fn stats(&self) -> ReaperStats {
        // The lock of the parent may be held for ever.
        if !self.worker.origin().is_here() {
            return ReaperStats::default();
        }
        lock(&self.stats).clone()
    }

    /// Stops the thread, immediately if it waits or has a backlog.
    ///
    /// A script or a callback that runs gets 50 ms. After that, the thread finishes by itself, and still calls the callback for
    /// the sessions that are already removed. Dropping the reaper does the same.
    pub fn stop(self) {}
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.worker.stop(Order::Stop);
    }
}

fn lock(stats: &Mutex<ReaperStats>) -> MutexGuard<'_, ReaperStats> {
    sync::lock(stats)
}
