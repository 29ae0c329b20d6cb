//! Event streams and WebSockets over real sockets: they end with their session, and leave the server's threads free.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rouille::{Response, Server};
use threaded_sessions::rouille::{EventSender, MessageSender, Streams, StreamsBuilder, events, session, websocket};
use threaded_sessions::step::on_read;
use threaded_sessions::{
    EndReason, ErrorKind, MemorySessionStore, RedisSessionStore, RedisSessionStoreBuilder, SessionId, SessionManager,
    SessionStore, StepStore,
};

use crate::support::{PATIENCE, eventually, shared, unique};
use crate::{Sessions, cookie, count, stored};

/// How long a stream may stay open after its session is over.
const A_SECOND: Duration = Duration::from_secs(1);

/// A running server of rouille, and the senders of its streams.
struct Site {
    address: SocketAddr,
    streams: Streams<u32>,
    events: Arc<Mutex<Vec<EventSender>>>,
    messages: Arc<Mutex<Vec<MessageSender>>>,
    is_over: Arc<AtomicBool>,
}

impl Site {
    fn start(sessions: &Sessions) -> Self {
        Self::build(sessions, |builder| builder)
    }

    /// Starts a server with two threads.
    fn build(sessions: &Sessions, set: impl FnOnce(StreamsBuilder<u32>) -> StreamsBuilder<u32>) -> Self {
        let streams = set(Streams::builder(sessions)).start().unwrap();
        let (events_of, messages_of) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let handler = {
            let (streams, sessions) = (streams.clone(), sessions.clone());
            let (events_of, messages_of) = (events_of.clone(), messages_of.clone());
            move |request: &rouille::Request| match &*request.url() {
                "/events" => events(&streams, request, |_, sender| events_of.lock().unwrap().push(sender)),
                "/silent" => events(&streams, request, |_, _| {}),
                "/socket" => websocket(&streams, request, |_, sender| messages_of.lock().unwrap().push(sender)),
                _ => session(&sessions, request, count),
            }
        };
        let server = Server::new("127.0.0.1:0", handler).unwrap().pool_size(2);
        let (address, is_over) = (server.server_addr(), Arc::new(AtomicBool::new(false)));
        let over = is_over.clone();
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                server.poll_timeout(Duration::from_millis(50));
            }
        });
        Self { address, streams, events: events_of, messages: messages_of, is_over }
    }

    /// Sends a request, and reads the head of the response.
    fn get(&self, path: &str, id: Option<&SessionId>, headers: &[&str]) -> Connection {
        self.send("GET", path, id, headers)
    }

    fn send(&self, method: &str, path: &str, id: Option<&SessionId>, headers: &[&str]) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Connection { head: Vec::new(), input: BufReader::new(stream) };
        connection.request(method, path, id, headers);
        connection
    }

    /// Opens the streams of a session that all other tests of ends look at.
    fn open(&self, id: &SessionId) -> Vec<Connection> {
        let opened = vec![
            self.get("/silent", Some(id), &[]),
            self.get("/silent", Some(id), &["Connection: close"]),
            self.get("/socket", Some(id), &UPGRADE),
        ];
        assert_eq!(opened.iter().map(Connection::status).collect::<Vec<_>>(), ["200", "200", "101"]);
        opened
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

const UPGRADE: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// The connection of a browser, after the head of a response.
struct Connection {
    head: Vec<String>,
    input: BufReader<TcpStream>,
}

impl Connection {
    fn request(&mut self, method: &str, path: &str, id: Option<&SessionId>, headers: &[&str]) {
        let cookie = id.map(|id| format!("Cookie: {}\r\n", cookie(id))).unwrap_or_default();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{cookie}{headers}\r\n");
        self.input.get_mut().write_all(request.as_bytes()).unwrap();
        self.head = std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn status(&self) -> &str {
        self.head[0].split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Vec<&str> {
        let headers = self.head.iter().filter_map(|line| line.split_once(": "));
        headers.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn is_socket(&self) -> bool {
        self.status() == "101"
    }

    /// Reads the next chunk. An empty one ends the response.
    fn chunk(&mut self) -> String {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes).unwrap();
        assert_eq!(self.line(), "");
        String::from_utf8(bytes).unwrap()
    }

    /// Reads the next frame of a WebSocket that is short: its opcode and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.input.read_exact(&mut head).unwrap();
        let mut payload = vec![0; head[1].into()];
        self.input.read_exact(&mut payload).unwrap();
        (head[0] & 0xf, payload)
    }

    /// Reads until the stream ends, and returns the reason that it names.
    #[track_caller]
    fn end(&mut self) -> String {
        if self.is_socket() {
            let close = std::iter::from_fn(|| Some(self.frame())).find(|(opcode, _)| *opcode == 0x8).unwrap().1;
            assert_eq!(u16::from_be_bytes(close[..2].try_into().unwrap()), 4401);
            assert_eq!(self.input.read(&mut [0]).unwrap(), 0, "the connection is closed");
            return String::from_utf8(close[2..].to_vec()).unwrap();
        }
        let mut body = String::new();
        if self.header("Transfer-Encoding") == ["chunked"] {
            body.extend(std::iter::from_fn(|| Some(self.chunk()).filter(|chunk| !chunk.is_empty())));
        } else {
            self.input.read_to_string(&mut body).unwrap();
        }
        let last = body.rsplit_once("event: session-ended\ndata: ").expect("the last event").1;
        last.strip_suffix("\n\n").unwrap().to_owned()
    }

    /// Expects that the stream ends soon, with this reason.
    #[track_caller]
    fn expect_end(&mut self, since: Instant, reason: EndReason) {
        assert_eq!(self.end(), reason.to_string());
        assert!(since.elapsed() < A_SECOND, "{:?}", since.elapsed());
    }
}

fn bound(sessions: &Sessions, principal: &str) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    session.bind(principal, "");
    *sessions.commit(session).unwrap().id().unwrap()
}

/// A builder for one of two stores with the same sessions.
fn redis(prefix: &str) -> RedisSessionStoreBuilder {
    RedisSessionStore::builder().url(shared().url()).prefix(prefix).deadline(PATIENCE / 2).announce_ends()
}

/// Ends sessions through another manager, in each way that needs no deadline.
fn streams_end(here: &Sessions, elsewhere: &Sessions) {
    let site = Site::start(here);
    let expect = |end: &dyn Fn(&SessionId), reason| {
        let id = bound(here, "ada");
        let mut opened = site.open(&id);
        let start = Instant::now();
        end(&id);
        opened.iter_mut().for_each(|stream| stream.expect_end(start, reason));
    };
    let session_of = |id: &SessionId| elsewhere.open_id(id).unwrap().unwrap();
    let destroy = |id: &SessionId| {
        let mut session = session_of(id);
        session.destroy();
        let _ = elsewhere.commit(session).unwrap();
    };
    let renew = |id: &SessionId| {
        let mut session = session_of(id);
        session.renew();
        let _ = elsewhere.commit(session).unwrap();
    };
    expect(&destroy, EndReason::Destroyed);
    expect(&renew, EndReason::Renewed);
    let _ = elsewhere.end_all("ada").unwrap();
    expect(&|_| assert_eq!(elsewhere.end_all("ada").unwrap(), 1), EndReason::Ended);
    let sign_in = |_: &SessionId| {
        thread::sleep(Duration::from_millis(2));
        let _ = bound(elsewhere, "ada");
    };
    expect(&sign_in, EndReason::Cap);
    expect(&|_| assert!(elsewhere.end_everybody().unwrap() > 0), EndReason::Ended);
    assert!(eventually(PATIENCE, || site.streams.open() == 0));
}

#[test]
fn streams_end_with_their_session_in_memory() {
    let build = |store| Sessions::builder(store).max_per_principal(1).build().unwrap();
    let store = MemorySessionStore::new();
    streams_end(&build(store.clone()), &build(store));
}

#[test]
fn streams_end_with_their_session_in_redis() {
    let prefix = unique("streams");
    let build = || Sessions::builder(redis(&prefix).expiring().build().unwrap()).max_per_principal(1).build().unwrap();
    streams_end(&build(), &build());
}

/// Lets sessions expire that nothing uses any more, although their streams send heartbeats.
fn streams_end_at_expiry(store: impl SessionStore) {
    let idle = Duration::from_millis(600);
    let sessions = &Sessions::builder(store).idle_timeout(idle).build().unwrap();
    let site = Site::build(sessions, |builder| builder.heartbeat(Duration::from_millis(10)));
    let id = stored(sessions);
    let mut opened = site.open(&id);
    thread::sleep(idle / 2);
    let used = Instant::now();
    assert!(sessions.open_id(&id).unwrap().is_some());
    opened.iter_mut().for_each(|stream| stream.expect_end(used + idle, EndReason::Expired));
    assert!(used.elapsed() >= idle, "the use has moved the deadline");
}

#[test]
fn streams_end_at_expiry_in_all_stores() {
    let expiring = redis(&unique("expiring")).expiring().build().unwrap();
    let plain = redis(&unique("plain")).build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| streams_end_at_expiry(MemorySessionStore::new()));
        scope.spawn(|| streams_end_at_expiry(expiring));
        scope.spawn(|| streams_end_at_expiry(plain));
    });
}

/// With `touch_every`, a session may live on after the time that a read of it promises.
#[test]
fn stream_rarely_reads_session_past_its_promise() {
    let (idle, every) = (Duration::from_millis(600), Duration::from_millis(500));
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let counting = on_read(move |operation, next| {
        counter.fetch_add(1, Ordering::Relaxed);
        next.read(operation)
    });
    let store = StepStore::builder(MemorySessionStore::new()).step(counting).build().unwrap();
    let sessions = Sessions::builder(store).idle_timeout(idle).touch_every(every).build().unwrap();
    let (site, id) = (Site::start(&sessions), stored(&sessions));
    let used = Instant::now();
    let mut stream = site.get("/silent", Some(&id), &[]);
    let opening = reads.load(Ordering::Relaxed);
    stream.expect_end(used + idle + every, EndReason::Expired);
    let polls = reads.load(Ordering::Relaxed) - opening;
    assert!(opening > 0 && polls <= 4, "{polls} reads");
}

#[test]
fn events_are_sent_at_once_and_whole() {
    let sessions = crate::sessions();
    let (site, id) = (Site::start(&sessions), stored(&sessions));
    let mut stream = site.get("/events", Some(&id), &[]);
    assert_eq!(stream.header("Content-Type"), ["text/event-stream"]);
    assert_eq!((stream.header("Transfer-Encoding"), stream.header("Content-Length")), (vec!["chunked"], vec![]));
    assert_eq!((stream.header("X-Accel-Buffering"), stream.header("Set-Cookie")), (vec!["no"], vec![]));
    assert_eq!(stream.chunk(), "retry: 1000\n\n");
    let sender = site.events.lock().unwrap().pop().unwrap();
    for data in ["one", "two\nlines", ""] {
        assert!(sender.send("news", data));
        let lines: String = data.split('\n').map(|line| format!("data: {line}\n")).collect();
        assert_eq!(stream.chunk(), format!("event: news\n{lines}\n"));
    }
    assert!(sender.send("news", "last"));
    sender.close();
    assert!(!sender.send("news", "too late") && !sender.is_open());
    assert_eq!(stream.chunk(), "event: news\ndata: last\n\n");
    assert_eq!(stream.chunk(), "", "the response is whole");
    // The connection serves further requests.
    stream.request("GET", "/", Some(&id), &[]);
    assert_eq!(stream.status(), "200");
}

#[test]
fn socket_sends_messages_of_the_program() {
    let sessions = crate::sessions();
    let (site, id) =
        (Site::build(&sessions, |builder| builder.heartbeat(Duration::from_millis(20))), stored(&sessions));
    let mut socket = site.get("/socket", Some(&id), &UPGRADE);
    assert_eq!(socket.header("Sec-WebSocket-Accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    assert_eq!(socket.frame(), (0xA, vec![]), "a heartbeat");
    let sender = site.messages.lock().unwrap().pop().unwrap();
    assert!(sender.send("hello"));
    assert_eq!(std::iter::from_fn(|| Some(socket.frame())).find(|(opcode, _)| *opcode == 1).unwrap().1, b"hello");
    drop(site.streams.clone());
    assert!(sender.is_open(), "a clone of the streams is left");
    sender.close();
    let close = std::iter::from_fn(|| Some(socket.frame())).find(|(opcode, _)| *opcode == 8).unwrap().1;
    assert_eq!(close, 1001_u16.to_be_bytes());
}

#[test]
fn request_unable_to_stream_is_rejected() {
    let sessions = crate::sessions();
    let (site, id) = (Site::start(&sessions), stored(&sessions));
    let status = |connection: Connection| connection.status().to_owned();
    for path in ["/events", "/socket"] {
        assert_eq!(status(site.get(path, None, &UPGRADE)), "401");
        assert_eq!(status(site.get(path, Some(&SessionId::random()), &UPGRADE)), "401");
        let foreign = [&UPGRADE[..], &["Sec-Fetch-Site: cross-site"]].concat();
        assert_eq!(status(site.get(path, Some(&id), &foreign)), "403");
        assert_eq!(status(site.send("POST", path, Some(&id), &[])), "405");
    }
    assert_eq!(status(site.get("/socket", Some(&id), &[])), "400");
    assert!(site.events.lock().unwrap().is_empty() && site.messages.lock().unwrap().is_empty());
    assert_eq!(site.streams.open(), 0);
}

#[test]
fn streams_over_the_limit_are_rejected() {
    let sessions = crate::sessions();
    let site =
        Site::build(&sessions, |builder| builder.limit(3).limit_per_session(2).heartbeat(Duration::from_millis(10)));
    let (ada, bob) = (stored(&sessions), stored(&sessions));
    let mut opened = vec![site.get("/silent", Some(&ada), &[]), site.get("/socket", Some(&ada), &UPGRADE)];
    let rejected = site.get("/silent", Some(&ada), &[]);
    assert_eq!((rejected.status(), rejected.header("Retry-After")), ("503", vec!["5"]));
    opened.push(site.get("/silent", Some(&bob), &[]));
    assert_eq!(site.get("/silent", Some(&bob), &[]).status(), "503");
    assert_eq!((site.streams.open(), opened[2].status()), (3, "200"));
    // A browser that is gone is noticed, and its stream counts no more.
    drop(opened);
    assert!(eventually(PATIENCE, || site.streams.open() == 0), "{} are open", site.streams.open());
    assert_eq!(site.get("/silent", Some(&ada), &[]).status(), "200");
}

#[test]
fn open_streams_occupy_no_thread_of_the_server() {
    let sessions = crate::sessions();
    let (site, id) = (Site::build(&sessions, |builder| builder.limit_per_session(20)), stored(&sessions));
    let opened: Vec<_> = (0..20).map(|_| site.get("/silent", Some(&id), &[])).collect();
    assert_eq!(
        (site.streams.open(), site.get("/", Some(&id), &[]).status()),
        (20, "200"),
        "the server has two threads"
    );
    drop(opened);
}

#[test]
fn streams_of_a_store_without_announcements_are_refused() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("silent")).build().unwrap();
    let error = Streams::start(&SessionManager::<u32>::new(store)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn response_without_socket_frees_its_stream() {
    let sessions = crate::sessions();
    let streams = Streams::start(&sessions).unwrap();
    let response: Response = events(&streams, &crate::request_of(&stored(&sessions)), |_, _| {});
    assert_eq!((response.status_code, streams.open()), (200, 1));
    drop(response);
    assert_eq!(streams.open(), 0);
}
