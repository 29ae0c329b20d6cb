use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::store::Expired;
use crate::{Error, ErrorKind, Handle, Result, SessionManager};

/// 600 seconds, as rrss has it (`:resolution`).
const RESOLUTION: Duration = Duration::from_secs(600);

/// How many sessions one script looks at: it holds Redis for about 0.1 ms.
const BATCH: usize = 50;

/// How long traffic has Redis to itself between two batches.
const PAUSE: Duration = Duration::from_micros(500);

/// The first wait after a failure; it doubles up to the resolution.
const BACKOFF: Duration = Duration::from_secs(1);

/// How long [`Reaper::stop`] waits for what is in flight.
const FAREWELL: Duration = Duration::from_millis(50);

/// Settings of a [`Reaper`]; from [`SessionManager::reaper`].
#[must_use]
pub struct ReaperBuilder<T> {
    sessions: SessionManager<T>,
    resolution: Duration,
    batch: usize,
    gentle: bool,
    on_expired: Option<OnExpired<T>>,
}

type OnExpired<T> = Box<dyn FnMut(Handle, T) + Send>;

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
    ///     .on_expired(|session, visits| println!("{session} expired after {visits} visits"))
    ///     .start()?;
    /// # drop(reaper);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn reaper(&self) -> ReaperBuilder<T> {
        ReaperBuilder { sessions: self.clone(), resolution: RESOLUTION, batch: BATCH, gentle: true, on_expired: None }
    }
}

impl<T: 'static> ReaperBuilder<T> {
    /// How often the reaper comes by (rrss `:resolution`). Defaults to 600 seconds, as in rrss; at least a millisecond. It
    /// is how late an expired session is removed, and its callback called; nobody can read it in between.
    pub fn resolution(self, resolution: Duration) -> Self {
        Self { resolution: resolution.max(Duration::from_millis(1)), ..self }
    }

    /// How many sessions one atomic batch looks at, from 1 to 1000. Defaults to 50; Redis serves nobody else for about 2 µs
    /// a session.
    pub fn batch(self, sessions: usize) -> Self {
        Self { batch: sessions.clamp(1, 1000), ..self }
    }

    /// Whether to pause between batches, so that traffic goes on beside a large backlog. Defaults to true.
    pub fn gentle(self, gentle: bool) -> Self {
        Self { gentle, ..self }
    }

    /// What to call with each session that expired, after it was removed, so that the application can release what the
    /// session held. It is called on the reaper's thread; if it panics, that is logged and the reaper goes on.
    ///
    /// At most one reaper gets each session, however many processes run one. It is at most once: a session is lost to the
    /// callback if the process ends, or the answer of Redis gets lost, between the removal and the call, and if no reaper
    /// came by for 24 hours. A session that was destroyed did not expire.
    pub fn on_expired(self, callback: impl FnMut(Handle, T) + Send + 'static) -> Self {
        Self { on_expired: Some(Box::new(callback)), ..self }
    }

    /// Starts the thread. Its first round comes after a random part of the resolution, so that processes that start
    /// together do not reap together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the store has no index, as the plain Redis store, which needs no reaper; and if the
    /// system has no thread to give.
    pub fn start(self) -> Result<Reaper> {
        const DOING: &str = "starting a reaper";
        let Some(index) = self.sessions.store().index() else {
            return Err(Error::new(ErrorKind::Unsupported, DOING).with_source("the store has no index"));
        };
        let partitions = index.partitions();
        let (orders, inbox) = unbounded();
        let (ending, ended) = bounded(0);
        let stats = Arc::new(Mutex::new(ReaperStats::default()));
        let rounds = Rounds { settings: self, partitions, inbox, stats: stats.clone(), silent: false, panicked: false };
        thread::Builder::new()
            .name("session-reaper".to_owned())
            .spawn(move || {
                // Dropped with the thread, however it ends.
                let _ending: Sender<()> = ending;
                rounds.run();
            })
            .map_err(|error| Error::new(ErrorKind::Other, DOING).with_source(error))?;
        Ok(Reaper { orders, ended, stats })
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
/// It survives whatever fails. While it fails it comes by less often, but never less than once a resolution, and it says so
/// in the log once.
#[derive(Debug)]
#[must_use = "the reaper stops when it is dropped"]
pub struct Reaper {
    orders: Sender<Order>,
    ended: Receiver<()>,
    stats: Arc<Mutex<ReaperStats>>,
}

/// What a [`Reaper`] has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaperStats {
    /// Rounds that were completed. With partitions each has its rounds.
    pub rounds: u64,
    /// Sessions that were removed.
    pub removed: u64,
    /// Rounds that failed.
    pub errors: u64,
    /// When the last round began.
    pub last_round: Option<SystemTime>,
    /// How long the last round took.
    pub last_duration: Duration,
    /// Entries of the index that were due and not looked at yet, when that was last known.
    pub backlog: u64,
}

enum Order {
    Reap(Sender<Result<u64>>),
    Stop,
}

impl Reaper {
    /// Reaps everything that is due now, and answers how many sessions that were. Not to be called by the callback.
    ///
    /// # Errors
    ///
    /// That the store could not be asked; [`ErrorKind::Unsupported`] after the reaper was stopped.
    pub fn reap_now(&self) -> Result<u64> {
        let (answer, answered) = bounded(1);
        let stopped = || Error::new(ErrorKind::Unsupported, "reaping sessions").with_source("the reaper was stopped");
        self.orders.send(Order::Reap(answer)).map_err(|_| stopped())?;
        answered.recv().map_err(|_| stopped())?
    }

    /// What it has done so far.
    pub fn stats(&self) -> ReaperStats {
        lock(&self.stats).clone()
    }

    /// Stops the thread: at once while it waits or has a backlog. A script that is in flight and a callback that runs get
    /// 50 ms; after that the thread is left to finish them by itself. Dropping the reaper does the same.
    pub fn stop(self) {}
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // A thread that has ended takes no orders.
        let _ = self.orders.send(Order::Stop);
        let _ = self.ended.recv_timeout(FAREWELL);
    }
}

/// What the thread works with.
struct Rounds<T> {
    settings: ReaperBuilder<T>,
    partitions: u32,
    inbox: Receiver<Order>,
    stats: Arc<Mutex<ReaperStats>>,
    /// The failure that goes on was logged.
    silent: bool,
    /// A panic of the callback was logged.
    panicked: bool,
}

/// The reaper was stopped.
struct Stopped;

impl<T: 'static> Rounds<T> {
    fn run(mut self) {
        // The partitions take turns, so that each has one round in a resolution.
        let turn = self.settings.resolution / self.partitions;
        let mut next = Instant::now() + random_part(turn);
        let mut backoff = BACKOFF;
        for partition in (0..self.partitions).cycle() {
            let Ok(()) = self.wait(next) else { return };
            let Ok(result) = self.round(partition) else { return };
            let pause = match result {
                Ok(_) => {
                    backoff = BACKOFF;
                    turn
                }
                Err(_) => {
                    let pause = backoff.min(turn);
                    backoff = (backoff * 2).min(self.settings.resolution);
                    pause
                }
            };
            // Rounds keep their distance even if one took long.
            next = (next + pause).max(Instant::now());
        }
    }

    /// Waits, and carries out orders meanwhile.
    fn wait(&mut self, until: Instant) -> Result<(), Stopped> {
        loop {
            match self.inbox.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(order) => self.obey(order)?,
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Stopped> {
        let Order::Reap(answer) = order else { return Err(Stopped) };
        let mut all = Ok(0);
        for partition in 0..self.partitions {
            all = self.round(partition)?.and_then(|removed| all.map(|sum| sum + removed));
            if all.is_err() {
                break;
            }
        }
        // Who asked may have gone.
        let _ = answer.send(all);
        Ok(())
    }

    /// Reaps one partition, batch by batch, until nothing is due.
    fn round(&mut self, partition: u32) -> Result<Result<u64>, Stopped> {
        let began = Instant::now();
        lock(&self.stats).last_round = Some(SystemTime::now());
        let mut removed = 0;
        let result = loop {
            match self.batch(partition) {
                Ok((some, backlog)) => {
                    removed += some;
                    if backlog == 0 {
                        break Ok(removed);
                    }
                }
                Err(error) => break Err(error),
            }
            let pause = if self.settings.gentle { PAUSE } else { Duration::ZERO };
            self.wait(Instant::now() + pause)?;
        };
        self.report(&result);
        let mut stats = lock(&self.stats);
        stats.last_duration = began.elapsed();
        match result {
            Ok(_) => stats.rounds += 1,
            Err(_) => stats.errors += 1,
        }
        drop(stats);
        Ok(result)
    }

    fn batch(&mut self, partition: u32) -> Result<(u64, u64)> {
        let store = self.settings.sessions.store();
        let index = store.index().ok_or_else(|| Error::new(ErrorKind::Unsupported, "reaping sessions"))?;
        let reaped = index.reap(partition, self.settings.batch, self.settings.on_expired.is_some())?;
        let mut stats = lock(&self.stats);
        stats.removed += reaped.removed;
        stats.backlog = reaped.backlog;
        drop(stats);
        for expired in reaped.sessions {
            self.tell(&expired);
        }
        Ok((reaped.removed, reaped.backlog))
    }

    fn tell(&mut self, expired: &Expired) {
        let Some(on_expired) = &mut self.settings.on_expired else { return };
        let handle = expired.handle;
        let data = match self.settings.sessions.codec().decode(&expired.payload) {
            Ok(envelope) => envelope.data,
            Err(error) => return log::warn!("session {handle} expired and cannot be decoded: {error}"),
        };
        // The callback is not called with what it left behind, but for what it captured itself.
        let panicked = catch_unwind(AssertUnwindSafe(|| on_expired(handle, data))).is_err();
        if panicked && !self.panicked {
            log::error!("the callback for expired sessions panicked; the reaper goes on, and will not say so again");
        }
        self.panicked |= panicked;
    }

    fn report(&mut self, result: &Result<u64>) {
        match result {
            Err(error) if !self.silent => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
                log::warn!("the reaper goes on trying: {error}{cause}");
            }
            Ok(_) if self.silent => log::info!("the reaper works again"),
            _ => {}
        }
        self.silent = result.is_err();
    }
}

fn lock(stats: &Mutex<ReaperStats>) -> MutexGuard<'_, ReaperStats> {
    stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn random_part(whole: Duration) -> Duration {
    whole.mul_f64(f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX))
}
