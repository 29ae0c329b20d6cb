//! A byte stream to a server, over TCP, a Unix socket or TLS, on which no read or write outlasts the limit of its exchange.
//!
//! [`Wire`](super::wire::Wire) sends commands and reads replies over it. No system call waits longer than the time that is
//! left, and one that a signal interrupts continues with the rest of it. A small command costs one system call, and so does a
//! reply that arrives while most of the time is left.

use std::io::{self, Read, Write};
use std::net::TcpStream;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
#[cfg(unix)]
use rustix::net::{SendFlags, send};

use super::limit::Limit;

/// The least timeout that a socket gets. The kernel counts the timeouts of sockets in ticks of up to 10 ms, `poll` does not.
const MIN_TIMEOUT: Duration = Duration::from_millis(16);

/// So many bytes of an exchange are written without a look at the clock, because they fit into the buffer of the socket, which
/// is empty when an exchange begins.
const UNWAITED_BYTES: usize = 16 * 1024;

/// A write takes what there is room for. Without `NOSIGNAL`, which Apple's systems set for the socket, a write to a closed connection
/// could end the process.
#[cfg(unix)]
const NO_WAIT: SendFlags = {
    #[cfg(not(target_vendor = "apple"))]
    {
        SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL)
    }
    #[cfg(target_vendor = "apple")]
    {
        SendFlags::DONTWAIT
    }
};

/// A stream to a server.
pub(crate) enum Stream {
    Plain(Socket),
    #[cfg(feature = "tls-rustls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Socket>>),
}

impl Stream {
    /// Sets when what is written and read from now on must be over. The caller has just read the clock, by which `left` is
    /// left.
    pub(crate) fn set_limit(&mut self, limit: Limit, left: Duration) {
        match self {
            Self::Plain(socket) => socket.set_limit(limit, left),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(tls) => tls.sock.set_limit(limit, left),
        }
    }
}

impl Stream {
    /// Returns what `poll` takes to wait until there is something to read.
    pub(crate) fn watch(&self) -> PollFd<'_> {
        match self {
            Self::Plain(socket) => socket.peer.watch(PollFlags::IN),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(tls) => tls.sock.peer.watch(PollFlags::IN),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls-rustls")]
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A connected socket with a limit.
///
/// The kernel's own timeout for reads is set once, to half of the deadline. While clearly more is left, a read is a single system
/// call, and one that comes back after that timeout is repeated. With less left, `poll` waits first, for exactly what is left. So
/// the timeout never has to be set again. A write takes what the buffer of the socket has room for, and `poll` waits for more
/// room. It has no timeout, because a write in the kernel may wait for the whole timeout several times.
///
/// The clock is read once for an exchange whose command is small and whose reply comes in one piece, because until then only
/// the read waits.
pub(crate) struct Socket {
    peer: Peer,
    limit: Limit,
    /// From so much time left on, the timeout of the socket is no danger to the limit. The kernel overruns it by up to an
    /// eighth.
    unpolled_from: Duration,
    /// Present if clearly more time than the timeout was left when the exchange began, and nothing has waited since: the number
    /// of bytes that can still be written without a wait.
    unwaited: Option<usize>,
}

/// The two kinds of sockets.
pub(crate) enum Peer {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpStream> for Peer {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Peer {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Socket {
    /// A socket for exchanges that are mostly allowed to take `deadline`; the first one has this limit.
    pub(crate) fn new(peer: impl Into<Peer>, deadline: Duration, limit: Limit) -> io::Result<Self> {
        let peer = peer.into();
        let timeout = (deadline / 2).max(MIN_TIMEOUT);
        peer.set_timeout(timeout)?;
        Ok(Self { peer, limit, unpolled_from: timeout + timeout / 4, unwaited: None })
    }

    fn set_limit(&mut self, limit: Limit, left: Duration) {
        self.limit = limit;
        self.unwaited = (left >= self.unpolled_from).then_some(UNWAITED_BYTES);
    }

    /// Reads within the limit.
    #[inline]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const MISSING: &str = "no reply";
        loop {
            if self.unwaited.is_none() && self.limit.check(MISSING)? < self.unpolled_from {
                self.wait(PollFlags::IN, MISSING)?;
            }
            match self.peer.receive(buffer) {
                // A signal, or the timeout of the socket.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    self.unwaited = None;
                }
                done => return done,
            }
        }
    }

    /// Writes as much as there is room for, and waits within the limit if there is none.
    #[inline]
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const MISSING: &str = "could not send";
        loop {
            if self.unwaited.is_none() {
                self.limit.check(MISSING)?;
            }
            match self.peer.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unwaited = None;
                    self.wait(PollFlags::OUT, MISSING)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.unwaited = None,
                done => return done,
            }
        }
    }

    /// Waits until the socket is `ready`, or has failed.
    #[cold]
    fn wait(&self, ready: PollFlags, missing: &str) -> io::Result<()> {
        loop {
            let left = self.limit.check(missing)?;
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [self.peer.watch(ready)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                done => return done.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl Peer {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                // Only for systems whose writes wait.
                stream.set_write_timeout(Some(timeout))?;
                stream.set_read_timeout(Some(timeout))
            }
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => (&*stream).read(buffer),
        }
    }

    /// Writes as much as there is room for, without a wait.
    #[cfg(unix)]
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match self {
            Self::Tcp(stream) => send(stream, bytes, NO_WAIT),
            Self::Unix(stream) => send(stream, bytes, NO_WAIT),
        };
        sent.map_err(io::Error::from)
    }

    /// Writes, and waits for room until the timeout of the socket, because this system has no other way.
    #[cfg(not(unix))]
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let Self::Tcp(stream) = self;
        (&*stream).write(bytes)
    }

    fn watch(&self, ready: PollFlags) -> PollFd<'_> {
        match self {
            Self::Tcp(stream) => PollFd::new(stream, ready),
            #[cfg(unix)]
            Self::Unix(stream) => PollFd::new(stream, ready),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.receive(buffer);
        self.unwaited = None;
        read
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unwaited = self.unwaited.and_then(|left| left.checked_sub(bytes.len()));
        let written = self.send(bytes)?;
        if written < bytes.len() {
            self.unwaited = None;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(200);

    /// How much later than its limit a call may return. The time that its thread waits for a core does not count.
    const SLACK: Duration = Duration::from_millis(60);

    fn pair() -> (Socket, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Socket::new(near, DEADLINE, Limit::of(DEADLINE)).unwrap(), far)
    }

    /// How long this thread has waited for a processor core. Other systems than Linux do not tell.
    fn starved() -> Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Duration::from_nanos(stat.split_whitespace().nth(1).map_or(0, |nanos| nanos.parse().unwrap()))
    }

    fn assert_times_out(start: Instant, error: &io::Error) {
        let took = start.elapsed();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(took >= DEADLINE && took < DEADLINE + SLACK + starved(), "{took:?}");
    }

    #[test]
    fn silence_times_out_at_the_limit() {
        let (mut socket, _far) = pair();
        let start = Instant::now();
        socket.set_limit(Limit::of(DEADLINE), DEADLINE);
        let error = socket.read(&mut [0; 16]).unwrap_err();
        assert_times_out(start, &error);
        assert_eq!(error.to_string(), "no reply within 200 ms");
    }

    #[test]
    fn silence_after_write_times_out_at_limit() {
        for bytes in [1, 2 * UNWAITED_BYTES] {
            let (mut socket, _far) = pair();
            let start = Instant::now();
            socket.set_limit(Limit::of(DEADLINE), DEADLINE);
            socket.write_all(&vec![0; bytes]).unwrap();
            assert_eq!(socket.unwaited.is_some(), bytes == 1);
            assert_times_out(start, &socket.read(&mut [0; 16]).unwrap_err());
        }
    }

    #[test]
    fn byte_by_byte_times_out_at_the_limit() {
        let (mut socket, far) = pair();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && (&far).write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let start = Instant::now();
            socket.set_limit(Limit::of(DEADLINE), DEADLINE);
            let error = socket.read_exact(&mut [0; 4096]).unwrap_err();
            done.store(true, Ordering::Relaxed);
            assert_times_out(start, &error);
        });
    }

    #[test]
    fn full_buffer_times_out_at_the_limit() {
        let (mut socket, _far) = pair();
        let start = Instant::now();
        socket.set_limit(Limit::of(DEADLINE), DEADLINE);
        let error = socket.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_times_out(start, &error);
        assert_eq!(error.to_string(), "could not send within 200 ms");
    }

    #[test]
    fn slow_reader_times_out_write_at_the_limit() {
        let (mut socket, mut far) = pair();
        let start = Instant::now();
        socket.set_limit(Limit::of(DEADLINE), DEADLINE);
        thread::scope(|scope| {
            // Room is made again and again, and much sooner than the deadline.
            scope.spawn(move || {
                let mut bytes = vec![0; 64 * 1024];
                while start.elapsed() < DEADLINE * 2 && far.read(&mut bytes).is_ok_and(|count| count > 0) {
                    thread::sleep(DEADLINE / 20);
                }
            });
            let error = socket.write_all(&vec![0; 64 << 20]).unwrap_err();
            assert_times_out(start, &error);
            // The reader sees the end.
            drop(socket);
        });
    }

    #[test]
    fn late_reply_within_the_limit_is_read() {
        let (mut socket, mut far) = pair();
        thread::scope(|scope| {
            // Later than the timeout of the socket.
            scope.spawn(move || {
                thread::sleep(DEADLINE * 3 / 4);
                far.write_all(b"late").unwrap();
            });
            socket.set_limit(Limit::of(DEADLINE * 10), DEADLINE * 10);
            assert_eq!(socket.read(&mut [0; 16]).unwrap(), 4);
        });
    }

    #[test]
    fn short_limit_counts_although_the_deadline_is_long() {
        let (mut socket, _far) = pair();
        let start = Instant::now();
        socket.set_limit(Limit::of(DEADLINE / 10), DEADLINE / 10);
        assert_eq!(socket.read(&mut [0; 16]).unwrap_err().to_string(), "no reply within 20 ms");
        assert!(start.elapsed() < DEADLINE / 10 + SLACK + starved(), "{:?}", start.elapsed());
    }
}
