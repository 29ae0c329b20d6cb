//! Opens streams to servers: resolves names, tries the addresses of a name in turn, and sets the options of sockets.
//!
//! Everything that connects uses it: pools, the nodes of a cluster, and the look-ups at Sentinels. One limit bounds all
//! addresses of a name together, and an address that does not react leaves the others their share of it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisResult};

use super::error as failure;
use super::limit::Limit;
use super::stream::{Socket, Stream};
use super::tls::Trust;
use crate::sync;

/// A connection that is idle for so long is probed by the kernel, so often, with such pauses. Without replies it is dead.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Turns host and port into addresses.
pub(crate) type Resolver = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Opens streams, and remembers for each name which of its addresses to begin with.
pub(crate) struct Dialer {
    resolver: Resolver,
    trust: Trust,
    first: Mutex<HashMap<(String, u16), SocketAddr>>,
}

/// One address of a name, to which a connection is open.
struct Route {
    name: (String, u16),
    address: SocketAddr,
    next: SocketAddr,
}

impl Dialer {
    /// Without a resolver, names are resolved as the system does.
    pub(crate) fn new(resolver: Option<Resolver>, trust: Trust) -> Self {
        let resolver = resolver.unwrap_or_else(|| Arc::new(|host: &str, port| resolve(host, port)));
        Self { resolver, trust, first: Mutex::default() }
    }

    /// Opens a stream to where `server` is, and sets a connection up over it. Most exchanges over it will be allowed to take
    /// `deadline`.
    pub(crate) fn open<C>(
        &self,
        server: &ConnectionInfo,
        deadline: Duration,
        limit: Limit,
        set_up: impl FnOnce(Stream) -> RedisResult<C>,
    ) -> RedisResult<C> {
        let (host, port, tls) = match server.addr() {
            ConnectionAddr::Tcp(host, port) => (host, *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                return set_up(Stream::Plain(Socket::new(unix(path, limit)?, deadline, limit)?));
            }
            _ => return Err((ErrorKind::InvalidClientConfig, "this kind of address is not supported").into()),
        };
        let (stream, route) = self.connect(host, port, limit)?;
        set_options(&stream, server.tcp_settings())?;
        let socket = Socket::new(stream, deadline, limit)?;
        let stream = if tls { self.trust.handshake(socket, host) } else { Ok(Stream::Plain(socket)) };
        let connection = stream.and_then(set_up);
        let reached = connection.as_ref().err().is_none_or(|error| !failure::is_unanswered(error));
        self.note(route, reached);
        connection
    }

    /// Connects to one of the addresses of a host.
    ///
    /// The first address is the one at which a server responded last. Each address gets an equal share of the time that
    /// is left, and the last one all of it.
    fn connect(&self, host: &str, port: u16, limit: Limit) -> io::Result<(TcpStream, Route)> {
        let name = (host.to_owned(), port);
        let mut addresses = (self.resolver)(host, port)?;
        let first = sync::lock(&self.first).get(&name).copied();
        if let Some(position) = addresses.iter().position(|address| Some(*address) == first) {
            addresses.rotate_left(position);
        }
        let (stream, position) = in_turn(&addresses, limit)?;
        let next = addresses[(position + 1) % addresses.len()];
        Ok((stream, Route { name, address: addresses[position], next }))
    }

    /// Notes whether the server at the end of a route responds. If it does not, the next address is tried first next time.
    fn note(&self, route: Route, responds: bool) {
        if route.address != route.next {
            let first = if responds { route.address } else { route.next };
            sync::lock(&self.first).insert(route.name, first);
        }
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    loop {
        match (host, port).to_socket_addrs() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            addresses => return addresses.map(Iterator::collect),
        }
    }
}

/// Connects to the first of these addresses that reacts in its share of the time, and says which it is.
fn in_turn(addresses: &[SocketAddr], limit: Limit) -> io::Result<(TcpStream, usize)> {
    let mut failure = None;
    for (position, address) in addresses.iter().enumerate() {
        let others = (addresses.len() - position) as u32;
        let share = limit.check("no connection")? / others;
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok((stream, position)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => failure = Some(limit.passed("no connection")),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

/// Sets the options of a TCP connection.
///
/// `TCP_NODELAY` sends commands at once. The linger time of zero closes by a reset, so that nothing that a connection still
/// had to send is sent after it was given up. Keepalive keeps firewalls from forgetting an idle connection, and finds out if
/// one has.
fn set_options(stream: &TcpStream, settings: &TcpSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO))?;
    match settings.keepalive() {
        Some(keepalive) => socket.set_tcp_keepalive(keepalive)?,
        None => socket.set_tcp_keepalive(&keepalive())?,
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if let Some(timeout) = settings.user_timeout() {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_COUNT)
}

/// Connects to a Unix socket. If the backlog of the server is full, it waits within the limit.
#[cfg(unix)]
fn unix(path: &std::path::Path, limit: Limit) -> io::Result<std::os::unix::net::UnixStream> {
    use redis::io::tcp::socket2::{Domain, SockAddr, Socket, Type};

    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    loop {
        socket.set_write_timeout(Some(limit.check("no connection")?))?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use redis::io::tcp::socket2::{Domain, Socket as RawSocket, Type};

    use super::*;

    #[test]
    fn impossible_name_fails_at_once() {
        assert_eq!(resolve("a\0b", 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// A listener whose backlog is full: it drops further attempts to connect, as a dead host does.
    struct DeadEnd {
        address: SocketAddr,
        _held: (RawSocket, Vec<RawSocket>),
    }

    impl DeadEnd {
        fn new() -> Self {
            let listener = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let mut waiting = Vec::new();
            loop {
                let client = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let full = client.connect_timeout(&address.into(), Duration::from_millis(100)).is_err();
                waiting.push(client);
                if full {
                    return Self { address, _held: (listener, waiting) };
                }
            }
        }
    }

    fn dialer(addresses: &[SocketAddr]) -> Dialer {
        let addresses = addresses.to_vec();
        Dialer::new(Some(Arc::new(move |_, _| Ok(addresses.clone()))), Trust::default())
    }

    #[test]
    fn dead_first_address_takes_its_share_only() {
        let (dead, live) = (DeadEnd::new(), TcpListener::bind("127.0.0.2:0").unwrap());
        let address = live.local_addr().unwrap();
        let dialer = dialer(&[dead.address, address]);
        let start = Instant::now();
        let (stream, route) = dialer.connect("redis", 6379, Limit::of(Duration::from_millis(400))).unwrap();
        let took = start.elapsed();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!((Duration::from_millis(190)..Duration::from_millis(390)).contains(&took), "{took:?}");
        dialer.note(route, true);
        let start = Instant::now();
        dialer.connect("redis", 6379, Limit::of(Duration::from_secs(2))).unwrap();
        assert!(start.elapsed() < Duration::from_millis(500), "begins with the address that worked");
    }

    #[test]
    fn dead_addresses_share_one_limit() {
        let dead = [DeadEnd::new(), DeadEnd::new(), DeadEnd::new()];
        let dialer = dialer(&[dead[0].address, dead[1].address, dead[2].address]);
        let start = Instant::now();
        let error = dialer.connect("redis", 6379, Limit::of(Duration::from_millis(300))).err().unwrap();
        let took = start.elapsed();
        assert_eq!(error.to_string(), "no connection within 300 ms");
        assert!((Duration::from_millis(290)..Duration::from_millis(400)).contains(&took), "{took:?}");
    }

    #[test]
    fn address_without_a_response_is_not_first_again() {
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let dialer = dialer(&addresses);
        let connect = || dialer.connect("redis", 6379, Limit::of(Duration::from_secs(2))).unwrap();
        let (stream, route) = connect();
        assert_eq!(stream.peer_addr().unwrap(), addresses[0]);
        dialer.note(route, false);
        let (stream, route) = connect();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        dialer.note(route, true);
        assert_eq!(connect().0.peer_addr().unwrap(), addresses[1]);
    }

    #[test]
    fn connections_close_by_reset_and_are_probed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_options(&stream, &TcpSettings::default()).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        #[cfg(target_os = "linux")]
        {
            let probes = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            assert_eq!(probes, (KEEPALIVE_TIME, KEEPALIVE_INTERVAL));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_COUNT);
        }
    }

    #[cfg(unix)]
    #[test]
    fn full_unix_socket_fails_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redis.sock");
        let listener = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&redis::io::tcp::socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let limit = || Limit::of(Duration::from_millis(200));
        let waiting: Vec<_> = std::iter::from_fn(|| unix(&path, limit()).ok()).collect();
        let start = Instant::now();
        assert_eq!(unix(&path, limit()).unwrap_err().to_string(), "no connection within 200 ms");
        assert!(start.elapsed() < Duration::from_millis(300), "{:?} with {} waiting", start.elapsed(), waiting.len());
    }
}
