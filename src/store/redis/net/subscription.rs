//! A connection that receives what is published on channels.
//!
//! The feed of the store opens one for each server. It belongs to no pool, and speaks RESP2 only, so its messages are arrays of
//! texts. Invariant: a connection that is silent for too long fails. The subscription sends a `PING` if no message
//! arrives.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult, Value};
use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::connector::RedisConnectionManager;
use super::limit::Limit;
use super::stream::Stream;

/// After so long without a message, the server gets a `PING`.
const QUIET: Duration = Duration::from_secs(1);

/// The number of bytes that one read takes.
const READ_BYTES: usize = 16 * 1024;

/// So long a read waits at most if `poll` has reported something to read.
const READ_TIME: Duration = Duration::from_millis(5);

/// A connection that is subscribed to channels of one server.
pub(crate) struct Subscription {
    manager: RedisConnectionManager,
    stream: Stream,
    /// The generation of connections to a master that Sentinel names.
    generation: u64,
    /// The number of channels that the server has not confirmed yet.
    unconfirmed: usize,
    received: Vec<u8>,
    heard: Instant,
    pinged: bool,
}

/// A part of what a server sends to a subscriber.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Array(Vec<Vec<u8>>),
    Error(Vec<u8>),
    Status,
}

impl Subscription {
    /// Connects to the server, and subscribes to these channels. The confirmations arrive later.
    pub(crate) fn open(manager: &RedisConnectionManager, sharded: bool, channels: &[String]) -> RedisResult<Self> {
        let (stream, generation) = manager.open_subscriber()?;
        let mut subscription = Self {
            manager: manager.clone(),
            stream,
            generation,
            unconfirmed: channels.len(),
            received: Vec::new(),
            heard: Instant::now(),
            pinged: false,
        };
        let mut packed = Vec::new();
        for channel in channels {
            // One command takes sharded channels of one slot only.
            redis::cmd(if sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" }).arg(channel).write_packed_command(&mut packed);
        }
        subscription.send(&packed)?;
        Ok(subscription)
    }

    /// Returns `true` if the server has confirmed all channels.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Passes each message that has arrived to `on_message`. `is_ready` is whether `poll` reported something to read.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is lost, if the server is silent for too long or is no longer the right one, or if it
    /// rejects or ends a subscription.
    pub(crate) fn receive(&mut self, is_ready: bool, mut on_message: impl FnMut(Vec<u8>)) -> RedisResult<()> {
        if self.manager.follows_a_master() && !self.manager.breaker().is_current(self.generation) {
            return Err(failed("the master has changed"));
        }
        if is_ready {
            self.read()?;
        }
        let mut parsed = 0;
        while let Some((reply, length)) = parse(&self.received[parsed..])? {
            parsed += length;
            self.take(reply, &mut on_message)?;
        }
        self.received.drain(..parsed);
        self.check_alive()
    }

    /// Reads what has arrived, until nothing is left.
    fn read(&mut self) -> RedisResult<()> {
        loop {
            let length = self.received.len();
            self.received.resize(length + READ_BYTES, 0);
            self.stream.set_limit(Limit::of(READ_TIME), READ_TIME);
            let read = self.stream.read(&mut self.received[length..]);
            self.received.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    (self.heard, self.pinged) = (Instant::now(), false);
                    if read < READ_BYTES {
                        return Ok(());
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, reply: Reply, on_message: &mut impl FnMut(Vec<u8>)) -> RedisResult<()> {
        let mut parts = match reply {
            Reply::Array(parts) => parts,
            Reply::Status => return Ok(()),
            Reply::Error(line) => {
                return match redis::parse_redis_value(&line).and_then(Value::extract_error) {
                    Err(error) => Err(error),
                    Ok(_) => Err(malformed()),
                };
            }
        };
        match parts.first().map(Vec::as_slice) {
            Some(b"message" | b"smessage") => parts.pop().into_iter().for_each(on_message),
            Some(b"subscribe" | b"ssubscribe") => self.unconfirmed = self.unconfirmed.saturating_sub(1),
            // The slot of the channel has moved to another node.
            Some(b"unsubscribe" | b"sunsubscribe") => return Err(failed("the server ended a subscription")),
            _ => {}
        }
        Ok(())
    }

    fn check_alive(&mut self) -> RedisResult<()> {
        let silent = self.heard.elapsed();
        if silent > QUIET + self.manager.deadline() {
            return Err(Limit::of(self.manager.deadline()).passed("no reply").into());
        }
        if silent > QUIET && !self.pinged {
            self.pinged = true;
            self.send(&redis::cmd("PING").get_packed_command())?;
        }
        Ok(())
    }

    fn send(&mut self, packed: &[u8]) -> RedisResult<()> {
        let deadline = self.manager.deadline();
        self.stream.set_limit(Limit::of(deadline), deadline);
        self.stream.write_all(packed)?;
        Ok(self.stream.flush()?)
    }
}

/// Waits until at least one of the subscriptions has something to read. Returns for each whether it has.
pub(crate) fn wait<'a>(subscriptions: impl Iterator<Item = &'a Subscription>, wait: Duration) -> io::Result<Vec<bool>> {
    let mut watched: Vec<_> = subscriptions.map(|subscription| subscription.stream.watch()).collect();
    let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(watched.iter().map(|watched| !watched.revents().is_empty()).collect()),
        Err(error) => Err(error.into()),
    }
}

fn failed(why: &'static str) -> RedisError {
    io::Error::other(why).into()
}

fn malformed() -> RedisError {
    failed("the server sent something that is no message")
}

/// Parses the first reply, and returns it with its length. Returns `None` if a part of it has not arrived yet.
fn parse(received: &[u8]) -> RedisResult<Option<(Reply, usize)>> {
    let Some(end) = line_end(received) else { return Ok(None) };
    match received[0] {
        b'+' | b':' => Ok(Some((Reply::Status, end))),
        b'-' => Ok(Some((Reply::Error(received[..end].to_vec()), end))),
        b'*' => parse_array(received, end),
        _ => Err(malformed()),
    }
}

fn parse_array(received: &[u8], mut at: usize) -> RedisResult<Option<(Reply, usize)>> {
    let count = number(&received[1..at])?;
    let mut parts = Vec::with_capacity(count.min(4));
    for _ in 0..count {
        let Some(end) = line_end(&received[at..]).map(|end| at + end) else { return Ok(None) };
        let line = &received[at + 1..end];
        match received[at] {
            b':' => {
                parts.push(line[..line.len() - 2].to_vec());
                at = end;
            }
            // The channel of a subscription that has ended may be absent.
            b'$' if line == b"-1\r\n" => {
                parts.push(Vec::new());
                at = end;
            }
            b'$' => {
                let length = number(line)?;
                let Some(text) = received.get(end..end + length + 2) else { return Ok(None) };
                parts.push(text[..length].to_vec());
                at = end + length + 2;
            }
            _ => return Err(malformed()),
        }
    }
    Ok(Some((Reply::Array(parts), at)))
}

/// Returns where the line ends, with its line break.
fn line_end(text: &[u8]) -> Option<usize> {
    text.windows(2).position(|two| two == b"\r\n").map(|at| at + 2)
}

/// Reads a number that its line break follows. No message is as long as 512 MB.
fn number(line: &[u8]) -> RedisResult<usize> {
    let digits = line.strip_suffix(b"\r\n").and_then(|digits| str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).filter(|number| *number < 512 << 20).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_parsed_when_it_is_complete() {
        let text = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nk\r\nv\r\n*2\r\n";
        let parts = [&b"message"[..], b"a", b"k\r\nv"].map(<[u8]>::to_vec).to_vec();
        let length = text.len() - 4;
        for end in 0..length {
            assert_eq!(parse(&text[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(parse(text).unwrap(), Some((Reply::Array(parts), length)));
    }

    #[test]
    fn other_replies_are_parsed() {
        let array = |parts: &[&[u8]]| Reply::Array(parts.iter().map(|part| part.to_vec()).collect());
        let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        assert_eq!(parse(confirmed).unwrap().unwrap().0, array(&[b"subscribe", b"a", b"1"]));
        let ended = b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n";
        assert_eq!(parse(ended).unwrap().unwrap().0, array(&[b"sunsubscribe", b"", b"0"]));
        assert_eq!(parse(b"+PONG\r\n").unwrap(), Some((Reply::Status, 7)));
        assert_eq!(parse(b"-NOPERM no\r\n").unwrap(), Some((Reply::Error(b"-NOPERM no\r\n".to_vec()), 12)));
        for malformed in [&b"GET\r\n"[..], b"*x\r\n", b"*1\r\n$-2\r\n", b"*1\r\n$99999999999\r\n", b"*1\r\n+a\r\n"] {
            assert!(parse(malformed).is_err(), "{malformed:?}");
        }
    }
}
