//! The listener: its settings, its handle, and the sessions that it watches.
//!
//! Programs start it through [`SessionManager::listener`]; `rounds` has the loop of its thread. Invariant: after
//! a [`Listener`] is stopped or dropped, no callback begins.

mod rounds;

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use self::rounds::Rounds;
use crate::process::Origin;
use crate::store::SessionStore;
use crate::worker::Worker;
use crate::{Ended, Handle, Result, SessionId, SessionManager, operation};

/// A builder for a [`Listener`], created by [`SessionManager::listener`].
#[must_use]
pub struct ListenerBuilder {
    store: Arc<dyn SessionStore>,
    on_ended: Option<OnEnded>,
}

type OnEnded = Box<dyn FnMut(Ended) + Send>;

impl<T: 'static> SessionManager<T> {
    /// Returns a builder for a background thread that notices when sessions end, in this process or in another; see [`Listener`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::{EndReason, MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let listener = sessions.listener().on_ended(|ended| println!("{} is over: {}", ended.handle, ended.reason)).start()?;
    /// let mut session = sessions.fresh();
    /// *session = 1;
    /// let id = *sessions.commit(session)?.id().expect("it is stored");
    ///
    /// let watch = listener.watch(&id);
    /// sessions.store().delete(&id)?;
    /// let ended = watch.wait(Duration::from_secs(5)).expect("it has ended");
    /// assert_eq!(ended.reason, EndReason::Destroyed);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn listener(&self) -> ListenerBuilder {
        ListenerBuilder { store: self.shared_store(), on_ended: None }
    }
}

impl ListenerBuilder {
    /// Sets a function that is called with each session that ends or gets a new id. Defaults to none.
    ///
    /// The function is called in the thread of the listener, so it should return soon. If it panics, the panic is logged once and
    /// the listener continues.
    ///
    /// An end is announced at most once: the function misses the ends of sessions while the listener is not connected, unless
    /// the session is [watched](Listener::watch). Each process with a listener gets each end.
    pub fn on_ended(self, callback: impl FnMut(Ended) + Send + 'static) -> Self {
        Self { on_ended: Some(Box::new(callback)), ..self }
    }

    /// Starts the thread. Returns immediately: the thread connects in the background, and again whenever it loses a connection.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store does not announce ends. In Redis, set
    ///   [`announce_ends`](crate::RedisSessionStoreBuilder::announce_ends).
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the store was created before `fork`.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the system cannot start a thread.
    pub fn start(self) -> Result<Listener> {
        let feed = self.store.end_feed()?;
        let state = Arc::new(State::default());
        let (shared, store) = (state.clone(), self.store.clone());
        let worker = Worker::start("session-listener", operation::LISTEN_FOR_ENDS, move |inbox| {
            Rounds::new(self.store, feed, self.on_ended, inbox, shared).run();
        })?;
        Ok(Listener { worker, store, state, next_watch: AtomicU64::new(0) })
    }
}

impl fmt::Debug for ListenerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerBuilder").finish_non_exhaustive()
    }
}

/// A thread that notices when sessions end, in this process or in another, for as long as this handle lives.
///
/// It works with a [`MemorySessionStore`](crate::MemorySessionStore), and with a Redis store that
/// [announces ends](crate::RedisSessionStoreBuilder::announce_ends). In Redis it opens separate connections, one to each
/// server with channels of the store, outside the pool.
///
/// The listener reconnects by itself. While it is not connected, announcements are lost. After it has connected, it reads each
/// [watched](Self::watch) session once, so no end of a watched session stays unnoticed. The log has one line when the listener
/// fails, and another one when it works again.
#[derive(Debug)]
#[must_use = "the listener stops when it is dropped"]
pub struct Listener {
    worker: Worker<Order>,
    store: Arc<dyn SessionStore>,
    state: Arc<State>,
    next_watch: AtomicU64,
}

/// The state that the thread and its handle share.
#[derive(Debug, Default)]
struct State {
    is_stopped: AtomicBool,
    is_listening: AtomicBool,
}

enum Order {
    Watch { number: u64, id: SessionId, handle: Handle, ended: Sender<Ended> },
    Unwatch(u64),
    Stop,
}

impl Listener {
    /// Watches a session until the returned [`Watch`] is dropped.
    ///
    /// If the session is over already, the watch reports it as well. Watching never counts as use of the session.
    pub fn watch(&self, id: &SessionId) -> Watch {
        let (ended, end) = bounded(1);
        let number = self.next_watch.fetch_add(1, Ordering::Relaxed);
        let (orders, origin) = (self.worker.orders().clone(), self.worker.origin());
        if origin.is_here() {
            // Sending fails if the thread has ended. Then the watch reports nothing.
            let _ = orders.send(Order::Watch { number, id: *id, handle: self.store.handle(id), ended });
        }
        Watch { number, end, ended: OnceLock::new(), orders, origin }
    }

    /// Returns `true` if the listener receives all announcements now.
    pub fn is_listening(&self) -> bool {
        self.worker.origin().is_here() && self.state.is_listening.load(Ordering::Acquire)
    }

    /// Stops the thread. Waits up to 50 ms for a callback that runs; after that the thread ends by itself. Dropping the listener
    /// does the same.
    pub fn stop(self) {}
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.state.is_stopped.store(true, Ordering::Release);
        self.worker.stop(Order::Stop);
    }
}

/// A session that a [`Listener`] watches, from [`Listener::watch`].
///
/// It reports each end, whether or not the listener was connected at that moment. A renewal is an end too, because the session
/// continues under an id that its visitor has and the watch has not.
#[must_use = "the session is watched until this is dropped"]
pub struct Watch {
    number: u64,
    end: Receiver<Ended>,
    ended: OnceLock<Ended>,
    orders: Sender<Order>,
    origin: Origin,
}

impl Watch {
    /// Returns the end of the session if it is known to be over.
    pub fn ended(&self) -> Option<Ended> {
        if self.ended.get().is_none()
            && self.origin.is_here()
            && let Ok(ended) = self.end.try_recv()
        {
            return Some(*self.ended.get_or_init(|| ended));
        }
        self.ended.get().copied()
    }

    /// Waits until the session is over, but no longer than `timeout`. Returns `None` if it is not known to be over by then.
    pub fn wait(&self, timeout: Duration) -> Option<Ended> {
        if let Some(ended) = self.ended() {
            return Some(ended);
        }
        // In a child of the process, another thread may have held a lock of the channel at the fork.
        let received = match self.origin.is_here() {
            true => self.end.recv_timeout(timeout),
            false => Err(RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(ended) => Some(*self.ended.get_or_init(|| ended)),
            Err(RecvTimeoutError::Timeout) => None,
            // No listener reports the end. Callers that wait in a loop must not spin.
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(timeout);
                None
            }
        }
    }

    /// Returns the channel of the end, for threads that wait for other events as well. [`ended`](Self::ended) takes the end from it.
    #[cfg(feature = "rouille")]
    pub(crate) fn receiver(&self) -> &Receiver<Ended> {
        &self.end
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            mem::forget((self.orders.clone(), self.end.clone()));
            return;
        }
        let _ = self.orders.send(Order::Unwatch(self.number));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("ended", &self.ended.get()).finish_non_exhaustive()
    }
}
