//! The bytes of event streams and WebSockets.
//!
//! Senders frame messages here, and the thread of a stream its heartbeats and its end. Invariant: no text of the program can
//! begin an event, a chunk or a frame of its own.

use ::rouille::{Request, Response, ResponseBody};

use crate::EndReason;

/// How the messages of a stream are framed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire {
    /// Events in chunks, on a connection that serves further requests.
    Chunks,
    /// Events until the connection closes.
    UntilClose,
    WebSocket,
}

/// The comment that keeps an event stream alive.
const COMMENT: &[u8] = b":\n\n";

/// The first bytes of an event stream: a browser that loses it opens another one after a second.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// Codes of RFC 6455 for the end of a WebSocket; those from 4000 are free for applications.
const GOING_AWAY: u16 = 1001;
const SESSION_ENDED: u16 = 4401;

impl Wire {
    /// Returns the framing of events for the connection of this request.
    pub(super) fn of_events(request: &Request) -> Self {
        let connection = request.header("Connection").unwrap_or_default().to_ascii_lowercase();
        // tiny_http closes the connection after such a request. Proxies that speak HTTP/1.0, which has no chunks, send `close`.
        match connection.contains("close") || connection.contains("upgrade") {
            true => Self::UntilClose,
            false => Self::Chunks,
        }
    }

    /// Returns the head of the response with events.
    ///
    /// tiny_http holds back up to 8 KiB of a body, so the stream takes the connection as a WebSocket does, and frames the body itself.
    /// tiny_http discards the header `Transfer-Encoding` of a response, so it follows another header in one value. If it is lost,
    /// browsers still read the events, because a chunk is one event, and they ignore the lines around it.
    pub(super) fn head(self) -> Response {
        let unbuffered = match self {
            Self::Chunks => "no\r\nTransfer-Encoding: chunked",
            Self::UntilClose | Self::WebSocket => "no",
        };
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
            // Without this, `rouille::content_encoding` would announce a compressed body.
            ("Content-Encoding", "identity"),
            ("X-Accel-Buffering", unbuffered),
        ];
        let headers = headers.map(|(name, value)| (name.into(), value.into())).to_vec();
        Response { status_code: 200, headers, data: ResponseBody::empty(), upgrade: None }
    }

    /// Returns the bytes with which a stream begins.
    pub(super) fn beginning(self) -> Vec<u8> {
        match self {
            Self::Chunks | Self::UntilClose => self.chunk(RETRY),
            Self::WebSocket => Vec::new(),
        }
    }

    pub(super) fn event(self, event: &str, data: &str) -> Vec<u8> {
        let mut text = format!("event: {}\n", event.replace(['\r', '\n'], " "));
        // Browsers take each of these as the end of a line.
        for line in data.replace("\r\n", "\n").split(['\r', '\n']) {
            text += &format!("data: {line}\n");
        }
        text.push('\n');
        self.chunk(text.as_bytes())
    }

    pub(super) fn text(self, text: &str) -> Vec<u8> {
        frame(0x1, text.as_bytes())
    }

    /// Returns bytes that the page does not see, and to which a browser does not reply.
    pub(super) fn heartbeat(self) -> Vec<u8> {
        match self {
            Self::Chunks | Self::UntilClose => self.chunk(COMMENT),
            // A pong without a ping.
            Self::WebSocket => frame(0xA, b""),
        }
    }

    /// Returns the bytes that end the stream, with the reason if its session is over.
    pub(super) fn end(self, reason: Option<EndReason>) -> Vec<u8> {
        if self == Self::WebSocket {
            let (code, text) = match reason {
                Some(reason) => (SESSION_ENDED, reason.to_string()),
                None => (GOING_AWAY, String::new()),
            };
            return frame(0x8, &[&code.to_be_bytes()[..], text.as_bytes()].concat());
        }
        let mut end = reason.map_or_else(Vec::new, |reason| self.event("session-ended", &reason.to_string()));
        if self == Self::Chunks {
            end.extend_from_slice(b"0\r\n\r\n");
        }
        end
    }

    fn chunk(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Chunks => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
            Self::UntilClose | Self::WebSocket => bytes.to_vec(),
        }
    }
}

/// Returns a frame of a WebSocket, unmasked as servers send it.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=65_535 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_begin_another_event() {
        let sent = Wire::UntilClose.event("news\ndata: forged", "one\r\ntwo\rthree\n\nevent: forged");
        let expected = "event: news data: forged\ndata: one\ndata: two\ndata: three\ndata: \ndata: event: forged\n\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }

    #[test]
    fn frames_have_lengths_of_three_sizes() {
        let lengths = [0, 125, 126, 65_535, 65_536].map(|length| (length, frame(0x1, &vec![b'x'; length])));
        for (length, frame) in lengths {
            let (head, read) = match frame[1] {
                126 => (4, u16::from_be_bytes(frame[2..4].try_into().unwrap()) as usize),
                127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize),
                short => (2, short as usize),
            };
            assert_eq!((frame[0], read, frame.len()), (0x81, length, head + length));
        }
    }
}
