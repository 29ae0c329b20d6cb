//! A connection outside the pool, on which the server also sends values that no command asked for.
//!
//! A [subscription](super::subscription) receives messages over it, and the near cache the announcements of changed keys.
//! Invariant: values are handed out whole, and in the order in which the server sent them.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult, Value};
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

use super::connector::RedisConnectionManager;
use super::error::unreachable;
use super::limit::Limit;
use super::stream::Stream;

/// The number of bytes that one read takes.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long a read waits at most if `poll` has reported something to read.
const CHUNK_TIME: Duration = Duration::from_millis(5);

/// How deep arrays may be nested. Those of an announcement are two deep.
const DEPTH_MAX: usize = 4;

pub(crate) struct PushConnection {
    manager: RedisConnectionManager,
    stream: Stream,
    generation: u64,
    received: Vec<u8>,
    /// How many of the bytes that were received have been handed out.
    taken: usize,
}

impl PushConnection {
    /// Opens a connection for subscriptions.
    pub(crate) fn subscriber(manager: &RedisConnectionManager) -> RedisResult<Self> {
        Ok(Self::new(manager, manager.open_subscriber()?))
    }

    /// Opens a connection on which the server announces the next change of each key that was read on it.
    #[cfg(feature = "near-cache")]
    pub(crate) fn tracker(manager: &RedisConnectionManager) -> RedisResult<Self> {
        Ok(Self::new(manager, manager.open_tracker()?))
    }

    fn new(manager: &RedisConnectionManager, (stream, generation): (Stream, u64)) -> Self {
        Self { manager: manager.clone(), stream, generation, received: Vec::new(), taken: 0 }
    }

    /// Returns the generation of connections that this one belongs to.
    #[cfg(feature = "near-cache")]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// # Errors
    ///
    /// Returns an error if Sentinel may name another master than that of this connection.
    pub(crate) fn check_master(&self) -> RedisResult<()> {
        if self.manager.leads_to_master_of(self.generation) {
            Ok(())
        } else {
            Err(unreachable("the master has changed"))
        }
    }

    /// # Errors
    ///
    /// Returns an error if a command that was sent at this time should have a reply by now.
    pub(crate) fn check_patience(&self, sent: Instant) -> RedisResult<()> {
        let deadline = self.manager.deadline();
        if sent.elapsed() > deadline { Err(Limit::of(deadline).passed("no reply").into()) } else { Ok(()) }
    }

    pub(crate) fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let deadline = self.manager.deadline();
        self.stream.set_limit(Limit::of(deadline), deadline);
        self.stream.write_all(packed)?;
        Ok(self.stream.flush()?)
    }

    /// Returns what [`wait`] takes to wait until there is something to read.
    pub(crate) fn watch(&self) -> PollFd<'_> {
        self.stream.watch()
    }

    /// Reads what has arrived, until nothing is left. Returns `true` if anything has arrived.
    pub(crate) fn read(&mut self) -> RedisResult<bool> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let before = self.received.len();
        loop {
            let length = self.received.len();
            self.received.resize(length + CHUNK_BYTES, 0);
            self.stream.set_limit(Limit::of(CHUNK_TIME), CHUNK_TIME);
            let read = self.stream.read(&mut self.received[length..]);
            self.received.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(CHUNK_BYTES) => {}
                Ok(_) => break,
                Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.received.len() > before)
    }

    /// Returns the next value that was read, or `None` if a part of it has not arrived yet.
    pub(crate) fn next_value(&mut self) -> RedisResult<Option<Value>> {
        let rest = &self.received[self.taken..];
        let Some(end) = end_of_value(rest, 0, DEPTH_MAX)? else { return Ok(None) };
        self.taken += end;
        redis::parse_redis_value(&rest[..end]).map(Some)
    }
}

/// Waits for this time until there is something to read. Returns for each descriptor whether there is.
pub(crate) fn wait(mut watched: Vec<PollFd<'_>>, time: Duration) -> io::Result<Vec<bool>> {
    let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(watched.iter().map(|watched| !watched.revents().is_empty()).collect()),
        Err(error) => Err(error.into()),
    }
}

/// The error for a value that does not match what was sent.
pub(crate) fn unexpected() -> RedisError {
    unreachable("the server sent something that does not match the commands")
}

/// Returns where the value ends that begins at `at`, or `None` if it is not complete.
fn end_of_value(bytes: &[u8], at: usize, depth: usize) -> RedisResult<Option<usize>> {
    let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n").map(|end| at + end + 2) else {
        return Ok(None);
    };
    let line = bytes.get(at + 1..end - 2).ok_or_else(unexpected)?;
    match bytes[at] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok(Some(end)),
        b'$' | b'*' if line == b"-1" => Ok(Some(end)),
        b'$' | b'!' | b'=' => {
            let end = end + number(line)? + 2;
            Ok((end <= bytes.len()).then_some(end))
        }
        kind @ (b'*' | b'>' | b'~' | b'%') if depth > 0 => {
            let parts = number(line)? * if kind == b'%' { 2 } else { 1 };
            let mut end = end;
            for _ in 0..parts {
                let Some(next) = end_of_value(bytes, end, depth - 1)? else { return Ok(None) };
                end = next;
            }
            Ok(Some(end))
        }
        _ => Err(unexpected()),
    }
}

/// Reads a length. No value is as long as 512 MB.
fn number(line: &[u8]) -> RedisResult<usize> {
    let digits = str::from_utf8(line).ok();
    digits.and_then(|digits| digits.parse().ok()).filter(|number| *number < 512 << 20).ok_or_else(unexpected)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use redis::Client;

    use super::*;
    use crate::store::redis::net::stream::Socket;

    #[test]
    fn read_ends_after_a_full_chunk() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let pongs = [&b"+PONG\r\n"[..], b"+", &[b'x'; CHUNK_BYTES - 10], b"\r\n"].concat();
        assert_eq!(pongs.len(), CHUNK_BYTES);
        far.write_all(&pongs).unwrap();
        let manager = RedisConnectionManager::new(Client::open("redis://127.0.0.1").unwrap()).unwrap();
        let deadline = Duration::from_secs(1);
        let stream = Stream::Plain(Socket::new(near, deadline, Limit::of(deadline)).unwrap());
        let mut connection = PushConnection::new(&manager, (stream, 0));
        assert!(connection.read().unwrap());
        assert!(connection.next_value().unwrap().is_some() && connection.next_value().unwrap().is_some());
        assert_eq!(connection.next_value().unwrap(), None);
    }

    #[test]
    fn value_ends_when_it_is_complete() {
        for value in [
            &b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$3\r\nb\r\n\r\n"[..],
            b">2\r\n$10\r\ninvalidate\r\n_\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nk\r\nv\r\n",
            b"+PONG\r\n",
            b":-1\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
        ] {
            let followed = [value, b"+PONG\r\n"].concat();
            for end in 0..value.len() {
                assert_eq!(end_of_value(&followed[..end], 0, DEPTH_MAX).unwrap(), None, "{end}");
            }
            assert_eq!(end_of_value(&followed, 0, DEPTH_MAX).unwrap(), Some(value.len()));
        }
        for malformed in [
            &b"PONG\r\n"[..],
            b"\r\n",
            b"*1\r\n\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"*1\r\n$-2\r\n",
            b"$99999999999\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        ] {
            assert!(end_of_value(malformed, 0, DEPTH_MAX).is_err(), "{malformed:?}");
        }
    }
}
