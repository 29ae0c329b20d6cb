//! A background thread that takes orders, and its handle.
//!
//! The reaper and the listener are such threads. Invariant: the handle asks the thread to end when it stops the thread, and waits
//! no longer than `STOP_TIMEOUT`. In a child of the process, which has no such thread, it takes no lock.

use std::fmt;
use std::mem;
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::process::Origin;
use crate::{Error, ErrorKind, Result};

/// The longest wait for a script or a callback that still runs.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

/// The handle of a background thread that takes orders of this type.
pub(crate) struct Worker<O> {
    orders: Sender<O>,
    ended: Receiver<()>,
    thread: ThreadId,
    origin: Origin,
}

impl<O: Send + 'static> Worker<O> {
    /// Starts a thread of this name. `run` gets the orders, and the thread ends when it returns.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Other`] if the system cannot create a thread.
    pub(crate) fn start(
        name: &str,
        operation: &'static str,
        run: impl FnOnce(Receiver<O>) + Send + 'static,
    ) -> Result<Self> {
        let (orders, inbox) = unbounded();
        let (ending, ended) = bounded(0);
        let work = move || {
            // The thread drops the sender when it ends, even by a panic, and so wakes `stop`.
            let _ending: Sender<()> = ending;
            run(inbox);
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = started.map_err(|error| Error::new(ErrorKind::Other, operation).with_source(error))?;
        Ok(Self { orders, ended, thread: thread.thread().id(), origin: Origin::here() })
    }

    /// Returns the channel of the orders. Sending fails if the thread has ended.
    pub(crate) fn orders(&self) -> &Sender<O> {
        &self.orders
    }

    /// Returns the process that has the thread.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns `true` in the thread itself.
    pub(crate) fn is_current(&self) -> bool {
        thread::current().id() == self.thread
    }

    /// Stops the thread by this order, and waits a moment for its end.
    pub(crate) fn stop(&self, order: O) {
        // `fork` copies no thread, and a lock of the channels may be held for ever. So a child of the process keeps both ends,
        // by references that are never dropped.
        if !self.origin.is_here() {
            mem::forget((self.orders.clone(), self.ended.clone()));
            return;
        }
        // Sending fails if the thread has ended. Then there is nothing to stop.
        let _ = self.orders.send(order);
        let _ = self.ended.recv_timeout(STOP_TIMEOUT);
    }
}

/// Shows no order, which can hold an id.
impl<O> fmt::Debug for Worker<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("thread", &self.thread).finish_non_exhaustive()
    }
}
