//! A connection on which the server announces which keys have changed.
//!
//! The near cache opens one. It belongs to no pool, and speaks RESP3 whatever the pool speaks, so that announcements arrive between
//! the replies. Invariant: announcements and replies are handed out in the order in which the server sent them.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult, Value};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::connector::RedisConnectionManager;
use super::limit::Limit;
use super::stream::Stream;

/// The number of bytes that one read takes.
const CHUNK_BYTES: usize = 16 * 1024;

/// So long a read waits at most if `poll` has reported something to read.
const CHUNK_TIME: Duration = Duration::from_millis(5);

/// How deep arrays may be nested. Those of an announcement are two deep.
const DEPTH_MAX: usize = 4;

/// A connection with `CLIENT TRACKING ON`: the server announces the next change of each key that was read on it.
pub(crate) struct Tracking {
    manager: RedisConnectionManager,
    stream: Stream,
    generation: u64,
    received: Vec<u8>,
    /// How many of the bytes that were received have been handed out.
    taken: usize,
}

impl Tracking {
    pub(crate) fn open(manager: &RedisConnectionManager) -> RedisResult<Self> {
        let (stream, generation) = manager.open_tracker()?;
        Ok(Self { manager: manager.clone(), stream, generation, received: Vec::new(), taken: 0 })
    }

    /// Returns the generation of connections that this one belongs to.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// # Errors
    ///
    /// Returns an error if Sentinel may name another master than that of this connection.
    pub(crate) fn check(&self) -> RedisResult<()> {
        if self.manager.follows_a_master() && !self.manager.breaker().is_current(self.generation) {
            return Err(io::Error::other("the master has changed").into());
        }
        Ok(())
    }

    /// # Errors
    ///
    /// Returns an error if a request that was sent at this time should have been answered.
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

    /// Waits for this time until there is something to read, from the server or from the pipe. Returns from which there is.
    #[cfg(unix)]
    pub(crate) fn wait(tracking: Option<&Self>, pipe: &io::PipeReader, time: Duration) -> io::Result<[bool; 2]> {
        let mut watched = vec![PollFd::new(pipe, PollFlags::IN)];
        watched.extend(tracking.map(|tracking| tracking.stream.watch()));
        poll_for(&mut watched, time)?;
        let is_ready = |at: usize| watched.get(at).is_some_and(|watched| !watched.revents().is_empty());
        Ok([is_ready(1), is_ready(0)])
    }

    /// Waits for this time until there is something to read.
    #[cfg(not(unix))]
    pub(crate) fn wait(tracking: Option<&Self>, time: Duration) -> io::Result<bool> {
        let Some(tracking) = tracking else {
            std::thread::sleep(time);
            return Ok(false);
        };
        let mut watched = [tracking.stream.watch()];
        poll_for(&mut watched, time)?;
        Ok(!watched[0].revents().is_empty())
    }

    /// Reads what has arrived, until nothing is left.
    pub(crate) fn fill_buffer(&mut self) -> RedisResult<()> {
        self.received.drain(..self.taken);
        self.taken = 0;
        loop {
            let length = self.received.len();
            self.received.resize(length + CHUNK_BYTES, 0);
            self.stream.set_limit(Limit::of(CHUNK_TIME), CHUNK_TIME);
            let read = self.stream.read(&mut self.received[length..]);
            self.received.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(CHUNK_BYTES) => {}
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the next reply or announcement, or `None` if a part of it has not arrived yet.
    pub(crate) fn next_value(&mut self) -> RedisResult<Option<Value>> {
        let rest = &self.received[self.taken..];
        let Some(end) = end_of_value(rest, 0, DEPTH_MAX)? else { return Ok(None) };
        self.taken += end;
        redis::parse_redis_value(&rest[..end]).map(Some)
    }
}

fn poll_for(watched: &mut [PollFd<'_>], time: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(watched, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The error for something that does not go with what was asked.
pub(crate) fn unexpected() -> RedisError {
    io::Error::other("the server sent something that does not match the commands").into()
}

/// Returns where the value ends that begins at `at`, or `None` if it is not complete.
fn end_of_value(bytes: &[u8], at: usize, depth: usize) -> RedisResult<Option<usize>> {
    let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n").map(|end| at + end + 2) else {
        return Ok(None);
    };
    let line = &bytes[at + 1..end - 2];
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
    use super::*;

    #[test]
    fn value_ends_when_it_is_complete() {
        let announced = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$3\r\nb\r\n\r\n";
        for value in
            [&announced[..], b">2\r\n$10\r\ninvalidate\r\n_\r\n", b"+PONG\r\n", b":-1\r\n", b"$-1\r\n", b"$0\r\n\r\n"]
        {
            let followed = [value, b"+PONG\r\n"].concat();
            for end in 0..value.len() {
                assert_eq!(end_of_value(&followed[..end], 0, DEPTH_MAX).unwrap(), None, "{end}");
            }
            assert_eq!(end_of_value(&followed, 0, DEPTH_MAX).unwrap(), Some(value.len()));
        }
        for malformed in
            [&b"PONG\r\n"[..], b"$x\r\n", b"$-2\r\n", b"$99999999999\r\n", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"]
        {
            assert!(end_of_value(malformed, 0, DEPTH_MAX).is_err(), "{malformed:?}");
        }
    }
}
