//! The loop of the listener's thread: announcements, watched sessions, and the log.
//!
//! [`ListenerBuilder::start`](super::ListenerBuilder::start) runs it in a thread. Invariants: no error or panic of the store or
//! the callback ends the thread, and each watched session is read once in the store itself after the feed may have missed its end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::{OnEnded, Order, State};
use crate::store::{EndFeed, EndNews, Found, SessionStore, Touch};
use crate::{EndReason, Ended, Error, ErrorKind, Handle, Result, SessionId, fence, operation};

/// How long the thread waits for announcements before it looks at its orders.
const FEED_TICK: Duration = Duration::from_millis(25);

/// The pause after a watched session could not be read.
const RECHECK_PAUSE: Duration = Duration::from_millis(500);

/// How long an end that a read has found is remembered, so that a late announcement does not report it again.
const LATEST_ANNOUNCEMENT: Duration = Duration::from_secs(30);

/// While announcements arrive without a pause, watched sessions are still read so often.
const LONGEST_CHECK_DELAY: Duration = Duration::from_millis(200);

/// The number of sessions that are read before the thread looks at the announcements again.
const RECHECKS_AT_ONCE: usize = 50;

/// The state of the listener's thread.
pub(super) struct Rounds {
    store: Arc<dyn SessionStore>,
    feed: Box<dyn EndFeed>,
    on_ended: Option<OnEnded>,
    inbox: Receiver<Order>,
    state: Arc<State>,
    watched: HashMap<Handle, Watched>,
    /// The sessions of the watches, by their numbers.
    numbers: BTreeMap<u64, Handle>,
    /// The watched sessions that must be read.
    unchecked: BTreeSet<Handle>,
    /// The sessions that a read did not find. The next read decides, because the announcement may be on its way.
    suspects: BTreeSet<Handle>,
    /// Ends that a read has found, with the time.
    found: HashMap<Handle, Instant>,
    next_check: Instant,
    /// When some sessions were read last.
    checked: Instant,
    is_failing: bool,
    panicked: bool,
}

/// A session and its watches.
struct Watched {
    id: SessionId,
    /// `true` if a read has found the session since the watch began.
    was_live: bool,
    watches: Vec<(u64, Sender<Ended>)>,
}

impl Rounds {
    pub(super) fn new(
        store: Arc<dyn SessionStore>,
        feed: Box<dyn EndFeed>,
        on_ended: Option<OnEnded>,
        inbox: Receiver<Order>,
        state: Arc<State>,
    ) -> Self {
        Self {
            store,
            feed,
            on_ended,
            inbox,
            state,
            watched: HashMap::new(),
            numbers: BTreeMap::new(),
            unchecked: BTreeSet::new(),
            suspects: BTreeSet::new(),
            found: HashMap::new(),
            next_check: Instant::now(),
            checked: Instant::now(),
            is_failing: false,
            panicked: false,
        }
    }

    pub(super) fn run(mut self) {
        while self.take_orders() {
            let feed = &mut self.feed;
            let panicked = || Error::new(ErrorKind::Other, operation::LISTEN_FOR_ENDS).with_source("the feed panicked");
            match fence::call(|| feed.next(FEED_TICK)).unwrap_or_else(|| Err(panicked())) {
                Ok(EndNews::Ended(ended)) => {
                    // A watch that began before the end must get its reason.
                    if !self.take_orders() {
                        return;
                    }
                    self.announced(ended);
                    if self.checked.elapsed() > LONGEST_CHECK_DELAY {
                        self.check_some();
                    }
                }
                Ok(EndNews::Ready) => self.on_ready(),
                Ok(EndNews::Quiet) => self.check_some(),
                Err(error) => self.on_failure(&error),
            }
        }
    }

    /// Takes all orders. Returns `false` if the listener was stopped.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Watch { number, id, handle, ended } => {
                    let watched = self.watched.entry(handle).or_insert_with(|| Watched {
                        id,
                        was_live: false,
                        watches: Vec::new(),
                    });
                    watched.watches.push((number, ended));
                    self.numbers.insert(number, handle);
                    self.unchecked.insert(handle);
                }
                Order::Unwatch(number) => self.unwatch(number),
                Order::Stop => return false,
            }
        }
        !self.state.is_stopped.load(Ordering::Acquire)
    }

    fn unwatch(&mut self, number: u64) {
        let Some(handle) = self.numbers.remove(&number) else { return };
        let Some(watched) = self.watched.get_mut(&handle) else { return };
        watched.watches.retain(|(of, _)| *of != number);
        if watched.watches.is_empty() {
            self.forget(&handle);
        }
    }

    fn forget(&mut self, handle: &Handle) -> Option<Watched> {
        self.unchecked.remove(handle);
        self.suspects.remove(handle);
        self.watched.remove(handle)
    }

    /// From now on nothing is missed, so each watched session is read once.
    fn on_ready(&mut self) {
        self.state.is_listening.store(true, Ordering::Release);
        self.unchecked.extend(self.watched.keys());
        if self.is_failing {
            self.is_failing = false;
            fence::log!(Info, "listening for ended sessions works again");
        }
    }

    fn on_failure(&mut self, error: &Error) {
        self.state.is_listening.store(false, Ordering::Release);
        if !self.is_failing {
            self.is_failing = true;
            fence::log!(Warn, error = error.kind().name(); "listening for ended sessions failed, will retry: {error:#}");
        }
        thread::sleep(FEED_TICK);
    }

    fn announced(&mut self, ended: Ended) {
        if self.found.remove(&ended.handle).is_none() {
            self.report_to_watches(ended);
            self.report_to_callback(ended);
        }
    }

    /// Reports an end to the watches of the session. Returns `true` if one of them has known the session live.
    fn report_to_watches(&mut self, ended: Ended) -> bool {
        let Some(watched) = self.forget(&ended.handle) else { return false };
        for (number, watch) in watched.watches {
            self.numbers.remove(&number);
            // The receiver has room for one end, and gets one.
            let _ = watch.try_send(ended);
        }
        watched.was_live
    }

    fn report_to_callback(&mut self, ended: Ended) {
        let Some(on_ended) = &mut self.on_ended else { return };
        if self.state.is_stopped.load(Ordering::Acquire) {
            return;
        }
        if fence::call(|| on_ended(ended)).is_none() && !self.panicked {
            self.panicked = true;
            fence::log!(
                Error,
                "the callback for ended sessions panicked; it will be called again, and this is not repeated"
            );
        }
    }

    /// Reads some of the sessions that must be read. Announcements come first, because they know the reason.
    fn check_some(&mut self) {
        self.checked = Instant::now();
        if self.unchecked.is_empty() || Instant::now() < self.next_check {
            return;
        }
        let handles: Vec<Handle> = self.unchecked.iter().take(RECHECKS_AT_ONCE).copied().collect();
        for handle in handles {
            let Some(id) = self.watched.get(&handle).map(|watched| watched.id) else { continue };
            match self.reason_of(&id) {
                Ok(None) => {
                    self.unchecked.remove(&handle);
                    self.suspects.remove(&handle);
                    self.watched.entry(handle).and_modify(|watched| watched.was_live = true);
                }
                Ok(Some(_)) if self.suspects.insert(handle) => {}
                Ok(Some(reason)) => {
                    self.found.retain(|_, found| found.elapsed() < LATEST_ANNOUNCEMENT);
                    self.found.insert(handle, Instant::now());
                    let ended = Ended::new(handle, reason);
                    // The end of a session that was over before its watch may have been reported already.
                    if self.report_to_watches(ended) {
                        self.report_to_callback(ended);
                    }
                }
                // The session stays unchecked. The pool logs the outage.
                Err(_) => {
                    self.next_check = Instant::now() + RECHECK_PAUSE;
                    return;
                }
            }
        }
    }

    /// Reads a session past the near cache, and returns why it is over, or `None` if it is live. The announcement of the end may
    /// be lost, and a near cache serves the session until its own connection has announced the change.
    fn reason_of(&self, id: &SessionId) -> Result<Option<EndReason>> {
        let panicked = || Error::new(ErrorKind::Other, operation::READ).with_source("the store panicked");
        let read = || {
            self.store.forget(slice::from_ref(id));
            self.store.read(id, Touch::No)
        };
        match fence::call(read).unwrap_or_else(|| Err(panicked())) {
            Ok(Found::Live(_)) => Ok(None),
            Ok(Found::Renewed) => Ok(Some(EndReason::Renewed)),
            Ok(Found::Ended(reason)) => Ok(Some(reason)),
            Ok(Found::Absent) => Ok(Some(EndReason::Unknown)),
            // A session that cannot be read back is live.
            Err(error) if error.kind() == ErrorKind::Payload => Ok(None),
            Err(error) => Err(error),
        }
    }
}
