//! Event streams and WebSockets for rouille handlers, which end with the session that opened them.
//!
//! Programs start [`Streams`] once, and call [`events`] and [`websocket`] in their routes. `pump` has the loop of a stream's
//! thread, `wire` the bytes that it sends. Invariant: a stream sends no message after it knows that its session is over, and
//! the number of open streams never exceeds the limit.

mod limit;
mod outbox;
mod pump;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::rouille::{Request, Response, websocket as handshake};
use crossbeam_channel::{Receiver, Sender, bounded};

use self::limit::Limit;
pub use self::outbox::{EventSender, MessageSender};
use self::outbox::{Outbox, outbox};
use self::pump::Start;
use self::wire::Wire;
use super::{error_response, line, peek};
use crate::{Failure, Listener, Result, Session, SessionManager};

/// A builder for [`Streams`], from [`Streams::builder`].
#[must_use]
pub struct StreamsBuilder<T> {
    sessions: SessionManager<T>,
    limit: usize,
    limit_per_session: usize,
    heartbeat: Duration,
}

impl<T: 'static> StreamsBuilder<T> {
    /// Sets how many streams may be open at once. Defaults to 100.
    ///
    /// Each open stream has a thread, in addition to the threads of the server. Beyond the limit, the response is a 503.
    pub fn limit(self, streams: usize) -> Self {
        Self { limit: streams, ..self }
    }

    /// Sets how many streams of one session may be open at once. Defaults to 8.
    ///
    /// Beyond the limit, the response is a 503. The limit keeps one visitor from taking all streams.
    pub fn limit_per_session(self, streams: usize) -> Self {
        Self { limit_per_session: streams, ..self }
    }

    /// Sets the time between two heartbeats, which the browser does not show to the page. Defaults to 15 seconds.
    ///
    /// It is at least 10 ms and at most 1 hour: other values are raised or lowered to these bounds.
    ///
    /// A stream whose browser is gone is noticed at the second heartbeat at the latest. Proxies close a stream that is silent for
    /// longer than their timeout, 60 seconds by default in nginx.
    pub fn heartbeat(self, interval: Duration) -> Self {
        Self { heartbeat: interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT), ..self }
    }

    /// Starts the listener of the streams.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`ListenerBuilder::start`](crate::ListenerBuilder::start), such as
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a Redis store does not
    /// [announce ends](crate::RedisSessionStoreBuilder::announce_ends).
    pub fn start(self) -> Result<Streams<T>> {
        let listener = self.sessions.listener().start()?;
        let (alive, stopped) = bounded(0);
        let limit = Limit::new(self.limit, self.limit_per_session);
        let shared = Shared { sessions: self.sessions, listener, limit, heartbeat: self.heartbeat, stopped };
        Ok(Streams { shared: Arc::new(shared), _alive: alive })
    }
}

impl<T> fmt::Debug for StreamsBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsBuilder").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A shorter heartbeat would keep a processor busy.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// The sum of the clock and a heartbeat without a bound could overflow.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3600);

/// The open streams of a program, and the [`Listener`] that ends them.
///
/// Start it once, and share it with all handlers: clones are cheap. If the last clone is dropped, all streams end. In Redis the
/// store must [announce ends](crate::RedisSessionStoreBuilder::announce_ends); the memory store always does.
///
/// A stream ends within a second after its session is over, wherever that happened: by a logout, [`end_all`], a cap, a renewal or
/// expiry. While Redis is unreachable, streams stay open; after that they end as soon as the listener has connected again. A
/// stream whose browser stays connected but reads nothing ends only when the browser reads again or is gone, because rouille's
/// socket has no timeout.
///
/// # Examples
///
/// ```no_run
/// use rouille::Response;
/// use threaded_sessions::rouille::{Streams, events, session};
/// use threaded_sessions::{MemorySessionStore, SessionManager};
///
/// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
/// let streams = Streams::start(&sessions)?;
/// rouille::start_server_with_pool("127.0.0.1:8000", None, move |request| match &*request.url() {
///     "/events" => events(&streams, request, |_, _| {}),
///     _ => session(&sessions, request, |visits| Response::text(visits.to_string())),
/// });
/// # #[allow(unreachable_code)]
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
///
/// [`end_all`]: SessionManager::end_all
pub struct Streams<T> {
    shared: Arc<Shared<T>>,
    /// The streams end when the last sender is dropped.
    _alive: Sender<()>,
}

/// The state that all streams share.
struct Shared<T> {
    sessions: SessionManager<T>,
    listener: Listener,
    limit: Arc<Limit>,
    heartbeat: Duration,
    /// Disconnected once the streams must end.
    stopped: Receiver<()>,
}

impl<T: 'static> Streams<T> {
    /// Returns a builder with the default settings.
    pub fn builder(sessions: &SessionManager<T>) -> StreamsBuilder<T> {
        let heartbeat = Duration::from_secs(15);
        StreamsBuilder { sessions: sessions.clone(), limit: 100, limit_per_session: 8, heartbeat }
    }

    /// Starts with the default settings.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`StreamsBuilder::start`].
    pub fn start(sessions: &SessionManager<T>) -> Result<Self> {
        Self::builder(sessions).start()
    }

    /// Returns the number of streams that are open now.
    pub fn open(&self) -> usize {
        self.shared.limit.open()
    }
}

impl<T> Clone for Streams<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _alive: self._alive.clone() }
    }
}

impl<T> fmt::Debug for Streams<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("open", &self.shared.limit.open()).finish_non_exhaustive()
    }
}

/// Responds with a stream of server-sent events, for an `EventSource` in a page, which ends with the session of the request.
///
/// `accept` gets the session, which was only looked at, and the sender of the stream. Keep the sender where the program makes
/// its events, or drop it if the page only has to know when the session is over. The last event of a session is
/// `session-ended`, and its data is the [reason](crate::EndReason), such as `ended` or `renewed`. Then the stream ends.
///
/// The stream never counts as use of the session. It does not occupy a thread of the server's pool; it has a separate thread.
///
/// In these cases there is no stream, and `accept` is not called:
///
/// - The request has no live session: the status is 401. An `EventSource` then does not try again.
/// - The [limit](StreamsBuilder::limit) is reached: the status is 503, with `Retry-After`.
/// - The request comes from another origin, or the session cannot be read: the response is that of [`error_response`].
/// - The method is not `GET`: the status is 405.
///
/// # Examples
///
/// ```
/// use std::sync::Mutex;
///
/// use rouille::{Request, Response};
/// use threaded_sessions::rouille::{EventSender, Streams, events};
///
/// /// The open streams of all visitors.
/// static NEWS: Mutex<Vec<EventSender>> = Mutex::new(Vec::new());
///
/// fn news(streams: &Streams<u32>, request: &Request) -> Response {
///     events(streams, request, |_, sender| NEWS.lock().unwrap().push(sender))
/// }
///
/// fn publish(text: &str) {
///     // A stream that is over is forgotten.
///     NEWS.lock().unwrap().retain(|sender| sender.send("news", text));
/// }
/// # publish("an item");
/// ```
pub fn events<T: Default + 'static>(
    streams: &Streams<T>,
    request: &Request,
    accept: impl FnOnce(&Session<T>, EventSender),
) -> Response {
    let wire = Wire::of_events(request);
    begin(streams, request, wire, Ok(wire.head()), |session, outbox| accept(session, EventSender(outbox)))
}

/// Responds with a WebSocket on which the program sends messages, and which closes with the session of the request.
///
/// It works as [`events`]. The socket closes with the code 4401 and the [reason](crate::EndReason) after the session is over, and
/// with 1001 if the program ends. A request that asks for no WebSocket has the status 400.
///
/// The page cannot send messages: rouille's socket has no timeout, so a thread that reads from it could not close it. Send
/// requests from the page instead; they open the session, and count as use. For the same reason a page that calls `close` waits
/// for some seconds, until the browser gives up.
///
/// # Examples
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::rouille::{Streams, websocket};
///
/// fn greet(streams: &Streams<String>, request: &Request) -> Response {
///     websocket(streams, request, |name, sender| {
///         sender.send(&format!("Hello, {}", **name));
///     })
/// }
/// ```
pub fn websocket<T: Default + 'static>(
    streams: &Streams<T>,
    request: &Request,
    accept: impl FnOnce(&Session<T>, MessageSender),
) -> Response {
    let head = handshake::start(request, None::<&str>)
        .map(|(response, _)| response)
        .map_err(|_| Response::text("not a WebSocket").with_status_code(400));
    begin(streams, request, Wire::WebSocket, head, |session, outbox| accept(session, MessageSender(outbox)))
}

/// Begins a stream with this head, unless the head is a refusal.
fn begin<T: Default + 'static>(
    streams: &Streams<T>,
    request: &Request,
    wire: Wire,
    head: Result<Response, Response>,
    accept: impl FnOnce(&Session<T>, Outbox),
) -> Response {
    let sessions = &streams.shared.sessions;
    if request.method() != "GET" {
        return Response::text("only GET").with_status_code(405).with_unique_header("Allow", "GET");
    }
    // Browsers open WebSockets of other sites with cookies, and with a safe method.
    if let Err(error) = sessions.check_cross_origin("POST", request.raw_url(), request.headers()) {
        return error_response(sessions, &Failure::new(&line(request), error));
    }
    let mut head = match head {
        Ok(head) => head,
        Err(refusal) => return refusal,
    };
    peek(sessions, request, |session| {
        let (Some(id), Some(handle)) = (session.id().copied(), session.handle()) else {
            return Response::text("no session").with_status_code(401);
        };
        let Some(permit) = streams.shared.limit.enter(handle) else {
            return Response::text("too many streams").with_status_code(503).with_unique_header("Retry-After", "5");
        };
        let (outbox, queue) = outbox(wire);
        let watch = streams.shared.listener.watch(&id);
        let start = Start::new(streams.shared.clone(), id, session.expires_in(), watch, permit, queue);
        accept(session, outbox);
        head.upgrade = Some(Box::new(start));
        head
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySessionStore;

    #[test]
    fn heartbeat_stays_within_its_bounds() {
        let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
        for (given, kept) in [(Duration::ZERO, SHORTEST_HEARTBEAT), (Duration::MAX, LONGEST_HEARTBEAT)] {
            assert_eq!(Streams::builder(&sessions).heartbeat(given).heartbeat, kept);
        }
    }
}
