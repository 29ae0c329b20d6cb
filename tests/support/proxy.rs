//! A TCP proxy in front of a Redis server that injects faults.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{RedisServer, SETUP};

/// A fault between client and server. A request is everything that a client
/// sends before it waits: a command, or a whole pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Existing connections are cut, new ones closed at once.
    Refuse,
    /// Requests get through, but their replies are held back until another
    /// fault, or none, is set.
    Stall,
    /// Replies come byte by byte, each byte after this pause.
    Drip(Duration),
    /// Replies come whole, after this pause.
    Delay(Duration),
    /// Replies come in pieces of this many bytes, each after this pause, as over a slow link.
    Throttle(usize, Duration),
    /// The connection closes in place of forwarding the request.
    CutBeforeRequest,
    /// The connection closes after this many bytes of the reply.
    CutReplyAt(usize),
    /// The connection closes once the server has executed the request and
    /// replied, before any of the reply gets through.
    CutAfterExecuted,
}

/// A wire to the server that fails on demand. It carries requests and their
/// replies in turn, so no subscriptions and no unsolicited messages, and it
/// learns that the server closed a connection only by the next request.
pub struct Proxy {
    address: SocketAddr,
    wires: Arc<Wires>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(server: &RedisServer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Wires::default());
        wires.state().port = server.port();
        let acceptor = thread::spawn({
            let wires = Arc::clone(&wires);
            move || wires.accept(&listener)
        });
        Self { address, wires, acceptor: Some(acceptor) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sets the fault for all requests to come. Only `Refuse` and those that
    /// delay replies also hit the set-up of connections.
    pub fn set(&self, fault: Fault) {
        self.wires.set(fault, None, Fault::None);
    }

    /// Sets the fault for the next `times` requests other than connection
    /// set-up, or for as many new connections if it is `Refuse`. A stalled
    /// reply stays held back when the count is used up.
    pub fn set_for(&self, fault: Fault, times: usize) {
        self.wires.set(fault, Some(times), Fault::None);
    }

    /// Sets the fault for the next such request, and another one for all that
    /// come after it.
    pub fn set_once_then(&self, fault: Fault, then: Fault) {
        self.wires.set(fault, Some(1), then);
    }

    /// Where connections lead that are made from now on.
    pub fn lead_to(&self, server: &RedisServer) {
        self.wires.state().port = server.port();
    }

    /// Swallows all further bytes on the open connections, as a firewall does
    /// after it has dropped their state. New connections work.
    pub fn forget(&self) {
        let state = self.wires.state();
        state.open.iter().filter_map(Weak::upgrade).for_each(|wire| wire.forgotten.store(true, Ordering::SeqCst));
    }

    /// How many requests were swallowed since the start.
    pub fn swallowed(&self) -> usize {
        self.wires.state().swallowed
    }

    /// How many connections were made since the start.
    pub fn accepted(&self) -> usize {
        self.wires.state().accepted
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many times faults have struck since the start.
    pub fn fired(&self) -> usize {
        self.wires.state().fired
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wires.close();
        let _wakes_the_acceptor = TcpStream::connect(self.address);
        let _ = self.acceptor.take().unwrap().join();
    }
}

#[derive(Default)]
struct Wires {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// The server's.
    port: u16,
    fault: Fault,
    /// How often the fault is still to strike, if that is limited.
    left: Option<usize>,
    /// The fault after that.
    then: Fault,
    fired: usize,
    swallowed: usize,
    accepted: usize,
    /// Grows whenever replies held back until then are to flow.
    releases: usize,
    open: Vec<Weak<Wire>>,
    closed: bool,
}

impl State {
    fn cut_all(&mut self) {
        self.open.drain(..).filter_map(|wire| wire.upgrade()).for_each(|wire| wire.cut());
    }

    fn fire(&mut self) -> Fault {
        let fault = self.fault;
        self.fired += 1;
        self.left = self.left.map(|left| left - 1);
        if self.left == Some(0) {
            self.fault = self.then;
            self.left = None;
        }
        fault
    }
}

impl Wires {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn set(&self, fault: Fault, left: Option<usize>, then: Fault) {
        let mut state = self.state();
        state.fault = if left == Some(0) { then } else { fault };
        state.left = left.filter(|&left| left > 0);
        state.then = then;
        if fault == Fault::Refuse {
            state.cut_all();
        }
        if fault != Fault::Stall {
            state.releases += 1;
            self.released.notify_all();
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.cut_all();
        state.releases += 1;
        self.released.notify_all();
    }

    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for client in listener.incoming() {
                if self.state().closed {
                    break;
                }
                if let Some(wire) = client.ok().and_then(|client| self.admit(client)) {
                    scope.spawn(move || {
                        // An error is either end hanging up.
                        let _ = self.relay(&wire);
                        wire.cut();
                    });
                }
            }
        });
    }

    /// Decides and registers under one lock, so that no connection slips past
    /// a `Refuse` or a close that comes between the two.
    fn admit(&self, client: TcpStream) -> Option<Arc<Wire>> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        if state.fault == Fault::Refuse {
            state.fire();
            return None;
        }
        let server = TcpStream::connect(("127.0.0.1", state.port)).ok()?;
        client.set_nodelay(true).ok()?;
        server.set_nodelay(true).ok()?;
        let wire = Arc::new(Wire { client, server, forgotten: AtomicBool::new(false) });
        state.accepted += 1;
        state.open.retain(|wire| wire.strong_count() > 0);
        state.open.push(Arc::downgrade(&wire));
        Some(wire)
    }

    fn relay(&self, wire: &Wire) -> io::Result<()> {
        let (mut client, mut server) = (&wire.client, &wire.server);
        loop {
            let (request, commands) = read_values(client, 1)?;
            if wire.forgotten.load(Ordering::SeqCst) {
                self.state().swallowed += 1;
                continue;
            }
            let (fault, since) = self.strike(&request);
            if fault == Fault::CutBeforeRequest {
                return Ok(());
            }
            server.write_all(&request)?;
            let (reply, _) = read_values(server, commands)?;
            match fault {
                Fault::CutAfterExecuted => return Ok(()),
                Fault::CutReplyAt(end) => return client.write_all(&reply[..end.min(reply.len())]),
                Fault::Drip(pause) => self.send_in_pieces(client, &reply, 1, since, pause)?,
                Fault::Throttle(size, pause) => self.send_in_pieces(client, &reply, size, since, pause)?,
                Fault::Delay(pause) => self.send_in_pieces(client, &reply, reply.len(), since, pause)?,
                Fault::Stall => {
                    self.hold(since, Duration::MAX);
                    client.write_all(&reply)?;
                }
                _ => client.write_all(&reply)?,
            }
        }
    }

    fn send_in_pieces(
        &self,
        mut client: &TcpStream,
        reply: &[u8],
        size: usize,
        since: usize,
        pause: Duration,
    ) -> io::Result<()> {
        for piece in reply.chunks(size) {
            self.hold(since, pause);
            client.write_all(piece)?;
        }
        Ok(())
    }

    /// The fault that hits `request`, and the release count it was set under.
    fn strike(&self, request: &[u8]) -> (Fault, usize) {
        let mut state = self.state();
        let fault = match state.fault {
            Fault::None | Fault::Refuse => Fault::None,
            Fault::Stall | Fault::Drip(_) | Fault::Delay(_) | Fault::Throttle(..) if state.left.is_none() => {
                state.fire()
            }
            _ if is_setup(request) => Fault::None,
            _ => state.fire(),
        };
        (fault, state.releases)
    }

    /// Waits for `pause`, or until a release after `since`.
    fn hold(&self, since: usize, pause: Duration) {
        let held = |state: &mut State| state.releases == since;
        drop(self.released.wait_timeout_while(self.state(), pause, held).unwrap());
    }
}

/// Both ends of a connection through the proxy.
struct Wire {
    client: TcpStream,
    server: TcpStream,
    forgotten: AtomicBool,
}

impl Wire {
    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

/// Reads until what arrived ends with a whole value and has `least` of them;
/// returns the bytes and the number of values.
fn read_values(mut stream: &TcpStream, least: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 64 * 1024];
    let (mut end, mut values) = (0, 0);
    while end < bytes.len() || values < least {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
        while let Some(length) = value_length(&bytes[end..]) {
            end += length;
            values += 1;
        }
    }
    Ok((bytes, values))
}

/// The length of the protocol value that `bytes` begin with, if it is complete.
fn value_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let count = || str::from_utf8(&bytes[1..head - 2]).ok()?.parse::<isize>().ok();
    let values = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let end = usize::try_from(count()?).map_or(head, |length| head + length + 2);
            return (end <= bytes.len()).then_some(end);
        }
        b'*' | b'~' => count()?,
        b'%' => 2 * count()?,
        _ => 0,
    };
    (0..values).try_fold(head, |end, _| Some(end + value_length(&bytes[end..])?))
}

/// Returns `true` if the first command of the request sets up a connection.
/// In `*1\r\n$4\r\nPING\r\n` its name is the third line.
fn is_setup(request: &[u8]) -> bool {
    let name = request.split(|&byte| byte == b'\n').nth(2).unwrap_or_default().trim_ascii_end();
    SETUP.iter().any(|setup| setup.as_bytes().eq_ignore_ascii_case(name))
}
