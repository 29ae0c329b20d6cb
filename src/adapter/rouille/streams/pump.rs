//! The thread of a stream: it sends messages and heartbeats, and ends the stream with its session.
//!
//! rouille hands the socket to [`Start`] after the head of the response. Invariant: before each message, the thread looks whether
//! the session is over. It never reads from the socket, because a read could not be interrupted.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ::rouille::{ReadWrite, Upgrade};
use crossbeam_channel::{at, never, select};

use super::Shared;
use super::limit::Permit;
use super::outbox::Queue;
use crate::manager::Peeked;
use crate::{EndReason, SessionId, Watch, fence};

/// The thread runs no code of the application except for its store, its steps and its codec.
const STREAM_STACK: usize = 512 * 1024;

/// How long after the deadline of a session the stream looks at it, so that the store has the same opinion.
const EXPIRY_MARGIN: Duration = Duration::from_millis(20);

/// The pause after a session could not be read at its deadline, or was still live without a time that is certain. With
/// `touch_every` this may last, so a shorter pause would keep the store busy. The stream must end within a second.
const EXPIRY_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A stream that begins when rouille has sent the head of the response.
pub(super) struct Start<T>(Option<Stream<T>>);

/// An open stream, without its socket.
struct Stream<T> {
    shared: Arc<Shared<T>>,
    id: SessionId,
    /// When the session expires, if nothing uses it until then.
    deadline: Option<Instant>,
    watch: Watch,
    queue: Queue,
    /// Dropped last, so that a stream counts until all of it is gone.
    _permit: Permit,
}

impl<T: 'static> Start<T> {
    pub(super) fn new(
        shared: Arc<Shared<T>>,
        id: SessionId,
        expires_in: Option<Duration>,
        watch: Watch,
        permit: Permit,
        queue: Queue,
    ) -> Self {
        let deadline = expires_in.and_then(deadline_in);
        Self(Some(Stream { shared, id, deadline, watch, queue, _permit: permit }))
    }
}

/// Returns `None` for a deadline that no clock reaches.
fn deadline_in(left: Duration) -> Option<Instant> {
    Instant::now().checked_add(left.saturating_add(EXPIRY_MARGIN))
}

impl<T: 'static> Upgrade for Start<T> {
    fn build(&mut self, socket: Box<dyn ReadWrite + Send>) {
        let Some(stream) = self.0.take() else { return };
        let thread = thread::Builder::new().name("session-stream".to_owned()).stack_size(STREAM_STACK);
        if let Err(error) = thread.spawn(move || stream.run(socket)) {
            fence::log!(Warn, "an event stream or WebSocket was closed at once, because no thread can start: {error}");
        }
    }
}

impl<T: 'static> Stream<T> {
    fn run(mut self, mut socket: Box<dyn ReadWrite + Send>) {
        // An error means that the browser is gone.
        let _ = self.pump(&mut *socket);
    }

    /// Sends until the stream is over.
    fn pump(&mut self, socket: &mut dyn Write) -> io::Result<()> {
        let wire = self.queue.wire;
        send(socket, &wire.beginning())?;
        let mut messages = self.queue.messages.clone();
        let mut ends = self.watch.receiver().clone();
        let mut heartbeat = Instant::now() + self.shared.heartbeat;
        let mut received: Option<Vec<u8>> = None;
        loop {
            if let Some(reason) = self.end_reason() {
                return send(socket, &wire.end(Some(reason)));
            }
            if let Some(message) = received.take() {
                send(socket, &message)?;
            }
            if self.queue.is_drained() {
                return send(socket, &wire.end(None));
            }
            if Instant::now() >= heartbeat {
                send(socket, &wire.heartbeat())?;
                heartbeat = Instant::now() + self.shared.heartbeat;
            }
            let wake = self.deadline.map_or(heartbeat, |deadline| deadline.min(heartbeat));
            select! {
                recv(messages) -> message => match message {
                    Ok(message) => received = Some(message),
                    // The program has dropped all senders.
                    Err(_) => messages = never(),
                },
                recv(ends) -> end => match end {
                    Ok(ended) => return send(socket, &wire.end(Some(ended.reason))),
                    // The listener has stopped.
                    Err(_) => ends = never(),
                },
                recv(self.shared.stopped) -> _ => return send(socket, &wire.end(None)),
                recv(at(wake)) -> _ => {}
            }
        }
    }

    /// Returns why the session is over, as far as it is known. At its deadline the session is read.
    fn end_reason(&mut self) -> Option<EndReason> {
        if let Some(ended) = self.watch.ended() {
            return Some(ended.reason);
        }
        if self.deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return None;
        }
        match fence::call(|| self.shared.sessions.peek_id(&self.id)) {
            Some(Ok(Peeked::Live(Some(Duration::ZERO)))) | Some(Err(_)) | None => {
                self.deadline = deadline_in(EXPIRY_RETRY_PAUSE);
            }
            Some(Ok(Peeked::Live(left))) => self.deadline = left.and_then(deadline_in),
            Some(Ok(Peeked::Over(reason))) => return Some(reason),
        }
        None
    }
}

fn send(socket: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes)?;
    socket.flush()
}
