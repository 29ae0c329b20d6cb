//! The reaper: its settings, its handle and its statistics.
//!
//! Programs start it through [`SessionManager::reaper`] if their store has an index; `rounds` has the loop of its thread.
//! Invariant: stopping or dropping a [`Reaper`] ends the thread after its current batch, and waits at most `STOP_TIMEOUT`.

mod rounds;

use std::fmt;
use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde::Serialize;

use self::rounds::Rounds;
use crate::codec::Envelope;
use crate::process::Origin;
use crate::store::{MAX_TTL, SessionIndex};
use crate::{Error, ErrorKind, Handle, Result, SessionManager, fence, operation, serialize, sync};

/// The default time between two rounds, as in rrss (`:resolution`).
const DEFAULT_RESOLUTION: Duration = Duration::from_secs(600);

/// The default number of sessions in a batch. Its script occupies Redis for about 0.1 ms.
const DEFAULT_BATCH_SESSIONS: usize = 50;

/// The allowed numbers of sessions in a batch. A script passes a whole batch to one command, which bounds its arguments.
const ALLOWED_BATCH_SESSIONS: RangeInclusive<usize> = 1..=1000;

const NO_INDEX: &str =
    "the store has no index: a plain Redis store needs no reaper, for Redis drops what has expired by itself";

/// The longest time that [`Reaper::stop`] waits for a script or a callback that still runs.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

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
    /// The handle it had, by which logs and pages knew it.
    pub handle: Handle,
    /// When it [began](crate::Session::created).
    pub created: SystemTime,
    /// Whom it belonged to, if anybody.
    pub principal: Option<String>,
    /// What [`bind`](crate::Session::bind) called it, if it belonged to anybody.
    pub label: Option<String>,
    /// Its value, as it was stored last.
    pub data: T,
}

impl<T> ExpiredSession<T> {
    fn new(handle: Handle, envelope: Envelope<T>) -> Self {
        let (principal, label) = envelope.bound.map(|bound| (bound.principal, bound.label)).unzip();
        Self { handle, created: envelope.created, principal, label, data: envelope.data }
    }
}

/// Shows neither the value nor whom it belonged to.
impl<T> fmt::Debug for ExpiredSession<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiredSession")
            .field("handle", &self.handle)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> SessionManager<T> {
    /// A background thread that deletes sessions which were idle for too long; see [`Reaper`].
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
    /// How often the reaper comes by (rrss `:resolution`). Defaults to 600 seconds, as in rrss; at least a millisecond, and
    /// what is over 100 years counts as 100 years. It is how late an expired session is removed, and its callback called;
    /// nobody can read it in between.
    pub fn resolution(self, resolution: Duration) -> Self {
        Self { resolution: resolution.min(MAX_TTL), ..self }
    }

    /// How many sessions one atomic batch looks at, from 1 to 1000. Defaults to 50; Redis serves nobody else for about 2 µs
    /// a session.
    pub fn batch(self, sessions: usize) -> Self {
        Self { batch: sessions, ..self }
    }

    /// Whether to pause between batches, so that traffic goes on beside a large backlog. Defaults to true. With `false` two
    /// batches are under way at a time, over two connections.
    pub fn gentle(self, gentle: bool) -> Self {
        Self { gentle, ..self }
    }

    /// What to call with each session that expired, after it was removed, so that the application can release what the
    /// session held, or tell whose it was. It is called on the reaper's thread; if it panics, that is logged and the reaper
    /// goes on.
    ///
    /// At most one reaper gets each session, however many processes run one, so give all of them the callback. It is at
    /// most once: a session is lost to the callback if the process ends, or the answer of Redis gets lost, between the
    /// removal and the call; if its payload cannot be decoded; if no reaper came by for 24 hours, or Redis lost the index
    /// and neither traffic nor [`verify`](crate::store::SessionIndex::verify) had put the session back. Only a Redis that
    /// forgets the removal, in a crash or a failover, has a session told twice. A session that was destroyed did not
    /// expire, nor did one that a visitor came back to after its [lifetime](crate::SessionManagerBuilder::lifetime).
    pub fn on_expired(self, callback: impl FnMut(ExpiredSession<T>) + Send + 'static) -> Self {
        Self { on_expired: Some(Box::new(callback)), ..self }
    }

    /// Starts the thread. Its first round comes after a random part of the resolution, so that processes that start
    /// together do not reap together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`], with the reason as its source, for a resolution or a batch out of range;
    /// [`ErrorKind::Unsupported`] if the store has no index, as the plain Redis store, which needs no reaper; and if the
    /// system has no thread to give.
    pub fn start(self) -> Result<Reaper> {
        let refuse = |why: &'static str| Err(Error::misconfigured(operation::START_REAPER, why));
        if self.resolution < Duration::from_millis(1) {
            return refuse("the resolution is at least a millisecond");
        }
        if !ALLOWED_BATCH_SESSIONS.contains(&self.batch) {
            return refuse("a batch is from 1 to 1000 sessions");
        }
        let Some(index) = self.sessions.store().index() else {
            return Err(Error::unsupported(operation::START_REAPER, NO_INDEX));
        };
        let partitions = index.partitions().max(1);
        index.keep_expired();
        let keeping = Keeping(self.sessions.clone());
        let (orders, inbox) = unbounded();
        let (ending, ended) = bounded(0);
        let stats = Arc::new(Mutex::new(ReaperStats::default()));
        let rounds = Rounds::new(self, partitions, inbox, stats.clone());
        let thread = thread::Builder::new()
            .name("session-reaper".to_owned())
            .spawn(move || {
                // The thread drops the sender when it ends, even by a panic, and so wakes `stop`.
                let _ending: Sender<()> = ending;
                let _keeping = keeping;
                rounds.run();
            })
            .map_err(|error| Error::new(ErrorKind::Other, operation::START_REAPER).with_source(error))?;
        Ok(Reaper { orders, ended, stats, thread: thread.thread().id(), origin: Origin::here() })
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

/// The thread that deletes sessions whose idle timeout has passed (rrss `expiring-redis-store`), for as long as this
/// handle lives.
///
/// It needs a store with an index. Any number of processes can run one beside each other; one is enough. It is not what
/// makes sessions expire: a session whose time has passed is absent at once. It frees the memory, and tells the
/// application.
///
/// It survives whatever fails: Redis, the callback, a store of one's own. After a failure it tries again in a second, then
/// in two, in four and so on, but never less than once a resolution. It says so in the log once, and once more when all
/// works again.
#[derive(Debug)]
#[must_use = "the reaper stops when it is dropped"]
pub struct Reaper {
    orders: Sender<Order>,
    ended: Receiver<()>,
    stats: Arc<Mutex<ReaperStats>>,
    thread: ThreadId,
    origin: Origin,
}

/// What a [`Reaper`] has done so far.
///
/// It serializes the fields under their names, with `last_round` in milliseconds since 1970 and `last_duration` in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReaperStats {
    /// Rounds that were completed. With partitions each has its rounds.
    pub rounds: u64,
    /// Sessions that were removed.
    pub removed: u64,
    /// Rounds that failed.
    pub errors: u64,
    /// When the last round began.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub last_round: Option<SystemTime>,
    /// How long the last round took.
    #[serde(serialize_with = "serialize::duration")]
    pub last_duration: Duration,
    /// Entries of the index that were due and not looked at yet, when that was last known, of the partition it was at.
    pub backlog: u64,
}

enum Order {
    Reap(Sender<Result<u64>>),
    Stop,
}

impl Reaper {
    /// Reaps everything that is due now, and answers how many sessions that were.
    ///
    /// # Errors
    ///
    /// That the store could not be asked. [`ErrorKind::Unsupported`] when called by the callback, which would wait for
    /// itself.
    pub fn reap_now(&self) -> Result<u64> {
        self.origin.check(operation::REAP)?;
        let refuse = |why: &'static str| Error::unsupported(operation::REAP, why);
        if thread::current().id() == self.thread {
            return Err(refuse("the callback of a reaper cannot wait for the reaper"));
        }
        let (answer, answered) = bounded(1);
        let ended = || refuse("the reaper has ended");
        self.orders.send(Order::Reap(answer)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }

    /// What it has done so far.
    pub fn stats(&self) -> ReaperStats {
        // The lock of the parent may be held for ever.
        if !self.origin.is_here() {
            return ReaperStats::default();
        }
        lock(&self.stats).clone()
    }

    /// Stops the thread: at once while it waits or has a backlog. A script that is in flight and a callback that runs get
    /// 50 ms; after that the thread is left to finish by itself, with the callbacks for what is removed already. Dropping
    /// the reaper does the same.
    pub fn stop(self) {}
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // `fork` copies no thread, and a lock of the channels may be held for ever. So a child of the process keeps both ends,
        // by references that are never dropped.
        if !self.origin.is_here() {
            mem::forget((self.orders.clone(), self.ended.clone()));
            return;
        }
        // Sending fails if the thread has ended. Then there is nothing to stop.
        let _ = self.orders.send(Order::Stop);
        let _ = self.ended.recv_timeout(STOP_TIMEOUT);
    }
}

fn lock(stats: &Mutex<ReaperStats>) -> MutexGuard<'_, ReaperStats> {
    sync::lock(stats)
}
