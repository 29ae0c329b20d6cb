//! A connection that receives what is published on channels.
//!
//! The feed of the store opens one for each server. Invariant: a connection that is silent for too long fails. The subscription
//! sends a `PING` if no message arrives.

use std::io;
use std::time::{Duration, Instant};

use redis::{RedisResult, Value};

use super::connector::RedisConnectionManager;
use super::error::unreachable;
use super::push::{self, PushConnection};

/// After so long without a message, the server gets a `PING`.
const QUIET: Duration = Duration::from_secs(1);

/// A connection that is subscribed to channels of one server.
pub(crate) struct Subscription {
    connection: PushConnection,
    /// The number of channels that the server has not confirmed yet.
    unconfirmed: usize,
    heard: Instant,
    /// When a `PING` was sent, if nothing has arrived since.
    pinged: Option<Instant>,
}

/// A value that a server sends to a subscriber.
#[derive(Debug, PartialEq)]
enum Received {
    Message(Vec<u8>),
    Confirmation,
    /// The slot of the channel has moved to another node.
    End,
    /// The reply to a `PING`, for example.
    Other,
}

impl Subscription {
    /// Connects to the server, and subscribes to these channels. The confirmations arrive later.
    pub(crate) fn open(manager: &RedisConnectionManager, sharded: bool, channels: &[String]) -> RedisResult<Self> {
        let mut connection = PushConnection::subscriber(manager)?;
        let mut packed = Vec::new();
        for channel in channels {
            // One command takes sharded channels of one slot only.
            redis::cmd(if sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" }).arg(channel).write_packed_command(&mut packed);
        }
        connection.send(&packed)?;
        Ok(Self { connection, unconfirmed: channels.len(), heard: Instant::now(), pinged: None })
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
        self.connection.check_master()?;
        if is_ready && self.connection.read()? {
            (self.heard, self.pinged) = (Instant::now(), None);
        }
        while let Some(value) = self.connection.next_value()? {
            match decode(value)? {
                Received::Message(message) => on_message(message),
                Received::Confirmation => self.unconfirmed = self.unconfirmed.saturating_sub(1),
                Received::End => return Err(unreachable("the server ended a subscription")),
                Received::Other => {}
            }
        }
        self.check_alive()
    }

    /// Sends a `PING` after a silence. The server has the deadline from then on, however long the thread did not come here.
    fn check_alive(&mut self) -> RedisResult<()> {
        if let Some(pinged) = self.pinged {
            return self.connection.check_patience(pinged);
        }
        if self.heard.elapsed() > QUIET {
            self.pinged = Some(Instant::now());
            self.connection.send(&redis::cmd("PING").get_packed_command())?;
        }
        Ok(())
    }
}

/// Waits until at least one of the subscriptions has something to read. Returns for each whether it has.
pub(crate) fn wait<'a>(subscriptions: impl Iterator<Item = &'a Subscription>, time: Duration) -> io::Result<Vec<bool>> {
    push::wait(subscriptions.map(|subscription| subscription.connection.watch()).collect(), time)
}

/// # Errors
///
/// Returns the error that the server sent, or an error if a subscriber never gets such a value.
fn decode(value: Value) -> RedisResult<Received> {
    let mut parts = match value {
        Value::Array(parts) => parts,
        Value::ServerError(error) => return Err(error.into()),
        Value::SimpleString(_) | Value::Okay | Value::Int(_) => return Ok(Received::Other),
        _ => return Err(push::unexpected()),
    };
    let last = parts.pop();
    let Some(Value::BulkString(kind)) = parts.first() else { return Err(push::unexpected()) };
    Ok(match (kind.as_slice(), last) {
        (b"message" | b"smessage", Some(Value::BulkString(message))) => Received::Message(message),
        (b"subscribe" | b"ssubscribe", _) => Received::Confirmation,
        (b"unsubscribe" | b"sunsubscribe", _) => Received::End,
        _ => Received::Other,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::{iter, thread};

    use super::*;

    fn received(text: &[u8]) -> RedisResult<Received> {
        decode(redis::parse_redis_value(text).unwrap())
    }

    /// Opens a subscription to a server that replies to every command.
    fn subscription() -> Subscription {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = client.read(&mut buffer) {
                let commands = buffer[..length].iter().filter(|byte| **byte == b'*').count();
                client.write_all("+PONG\r\n".repeat(commands).as_bytes()).unwrap();
            }
        });
        Subscription::open(&RedisConnectionManager::open(&url).unwrap(), false, &[]).unwrap()
    }

    #[test]
    fn quiet_subscription_fails_only_after_ping() {
        let mut subscription = subscription();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        subscription.heard = long_ago;
        subscription.receive(false, |_| {}).expect("the server was not asked yet");
        let patience = Duration::from_secs(20);
        assert_eq!(wait(iter::once(&subscription), patience).unwrap(), [true], "the server replies to the `PING`");
        subscription.receive(true, |_| {}).unwrap();
        assert!(subscription.heard > long_ago);

        subscription.pinged = Some(long_ago);
        subscription.receive(false, |_| {}).expect_err("the server has not replied to the `PING`");
    }

    #[test]
    fn messages_and_notices_are_distinguished() {
        let message = received(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nk\r\nv\r\n");
        assert_eq!(message.unwrap(), Received::Message(b"k\r\nv".to_vec()));
        for (text, expected) in [
            (&b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"[..], Received::Confirmation),
            (b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n", Received::End),
            // The channel of a subscription that has ended may be absent.
            (b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n", Received::End),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", Received::Other),
            (b"+PONG\r\n", Received::Other),
        ] {
            assert_eq!(received(text).unwrap(), expected);
        }
    }

    #[test]
    fn refusals_and_foreign_values_are_errors() {
        assert_eq!(received(b"-NOPERM no\r\n").unwrap_err().code(), Some("NOPERM"));
        for foreign in [&b"$1\r\na\r\n"[..], b"*0\r\n", b"*1\r\n+a\r\n", b"*2\r\n:1\r\n:2\r\n"] {
            assert!(received(foreign).is_err(), "{foreign:?}");
        }
    }
}
