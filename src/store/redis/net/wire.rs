//! Commands and replies over one stream, by the encoder and the parser of the `redis` crate.
//!
//! [`RedisConnection`](super::connection::RedisConnection) and the look-ups at Sentinels use it. After an error, commands and
//! replies may no longer match, so the owner closes the connection.

use std::io::{self, Read, Write};
use std::time::Duration;

use redis::{Cmd, Parser, ProtocolVersion, RedisResult, Value};

use super::limit::Limit;
use super::stream::Stream;

/// If the replies to an exchange have more bytes, the memory of the parser is given back.
const LARGE: usize = 64 * 1024;

/// The client's end of a conversation with a server.
pub(crate) struct Wire {
    stream: Stream,
    parser: Parser,
    /// How many bytes the replies to this exchange have had so far.
    received: usize,
    /// `true` if the parser may hold the beginning of a push after the last reply.
    has_pushes: bool,
}

impl Wire {
    pub(crate) fn new(stream: Stream, protocol: ProtocolVersion) -> Self {
        Self { stream, parser: Parser::new(), received: 0, has_pushes: protocol != ProtocolVersion::RESP2 }
    }

    /// Sends commands that are packed already. They, and the replies to them, have this limit.
    pub(crate) fn send(&mut self, packed: &[u8], limit: Limit) -> RedisResult<()> {
        self.send_at_once(packed, limit, limit.left())
    }

    /// Sends commands as [`send`](Self::send) does. The caller has just read the clock, by which `left` is left.
    pub(crate) fn send_at_once(&mut self, packed: &[u8], limit: Limit, left: Duration) -> RedisResult<()> {
        self.received = 0;
        self.stream.set_limit(limit, left);
        self.stream.write_all(packed)?;
        self.stream.flush()?;
        Ok(())
    }

    /// Receives the next reply. An error reply is a [`Value::ServerError`].
    pub(crate) fn receive(&mut self) -> RedisResult<Value> {
        loop {
            let reader = Counted { stream: &mut self.stream, bytes: &mut self.received };
            match self.parser.parse_value(reader)? {
                Value::Push { .. } => {}
                reply => return Ok(reply),
            }
        }
    }

    /// Ends an exchange whose replies have all been received.
    pub(crate) fn finish(&mut self) {
        if self.received > LARGE && !self.has_pushes {
            self.parser = Parser::new();
        }
    }

    /// Returns the stream after an exchange that is over, to read from it in another way.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Sends one command and receives its reply.
    pub(crate) fn query(&mut self, command: &Cmd, limit: Limit) -> RedisResult<Value> {
        self.send(&command.get_packed_command(), limit)?;
        self.receive()?.extract_error()
    }
}

/// A stream that counts the bytes that are read from it.
struct Counted<'a> {
    stream: &'a mut Stream,
    bytes: &'a mut usize,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        *self.bytes += read;
        Ok(read)
    }
}
