//! The senders of streams: what a program keeps to send messages, and the queue that the stream's thread empties.
//!
//! [`EventSender`] and [`MessageSender`] are public as `threaded_sessions::rouille::*`. Invariant: sending never blocks, and no
//! message of a stream is left out: a stream whose queue is full ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::wire::Wire;

/// The number of messages that wait for a slow browser.
const QUEUED_MESSAGES: usize = 256;

/// The end of a stream's queue at which messages go in.
#[derive(Clone)]
pub(super) struct Outbox {
    wire: Wire,
    messages: Sender<Vec<u8>>,
    is_closed: Arc<AtomicBool>,
}

/// The end of a stream's queue at which messages come out. Dropping it closes the outbox.
pub(super) struct Queue {
    pub(super) wire: Wire,
    pub(super) messages: Receiver<Vec<u8>>,
    is_closed: Arc<AtomicBool>,
}

pub(super) fn outbox(wire: Wire) -> (Outbox, Queue) {
    let (sender, receiver) = bounded(QUEUED_MESSAGES);
    let is_closed = Arc::new(AtomicBool::new(false));
    let queue = Queue { wire, messages: receiver, is_closed: is_closed.clone() };
    (Outbox { wire, messages: sender, is_closed }, queue)
}

impl Outbox {
    /// Queues a message that is framed already. Returns `false` if the stream is over.
    fn send(&self, message: Vec<u8>) -> bool {
        if !self.is_open() {
            return false;
        }
        let queued = self.messages.try_send(message).is_ok();
        if !queued {
            self.close();
        }
        queued
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // An empty message wakes the thread. A full queue has messages that do.
        let _ = self.messages.try_send(Vec::new());
    }
}

impl Queue {
    /// Returns `true` if the program has closed the stream, or its queue was full, and no message is left.
    pub(super) fn is_drained(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) && self.messages.is_empty()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Release);
    }
}

/// The sender of an event stream, from [`events`](super::events).
///
/// Clones send on the same stream. The stream stays open if all of them are dropped.
#[derive(Clone)]
pub struct EventSender(pub(super) Outbox);

impl EventSender {
    /// Sends an event of this type. Returns `false` if the stream is over.
    ///
    /// The page gets it with `addEventListener(event, …)`, or with `onmessage` if the type is `message`. Never blocks: if 256 events
    /// wait because the browser is slow, the new event is dropped and the sender is closed. The stream ends once the browser has
    /// read the events that wait, and the browser then opens another stream.
    pub fn send(&self, event: &str, data: &str) -> bool {
        self.0.send(self.0.wire.event(event, data))
    }

    /// Ends the stream. An `EventSource` opens it again after a second, unless the page has closed it.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns `true` until the stream is over.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSender").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// The sender of a WebSocket, from [`websocket`](super::websocket).
///
/// Clones send on the same socket. The socket stays open if all of them are dropped.
#[derive(Clone)]
pub struct MessageSender(pub(super) Outbox);

impl MessageSender {
    /// Sends a text message. Returns `false` if the socket is closed.
    ///
    /// Never blocks: if 256 messages wait because the browser is slow, the new message is dropped and the sender is closed. The
    /// socket closes once the browser has read the messages that wait.
    pub fn send(&self, text: &str) -> bool {
        self.0.send(self.0.wire.text(text))
    }

    /// Closes the socket with the code 1001.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns `true` until the socket is closed.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }
}

impl fmt::Debug for MessageSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSender").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}
