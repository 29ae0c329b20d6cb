//! The stream by which a page learns at once that its session has ended elsewhere.
//!
//! The script of a page opens it at `/ended` while the visitor is signed in. Invariant: the page learns why its session is over,
//! and nothing about other sessions.

use std::time::Duration;

use rouille::{Request, Response};
use threaded_sessions::rouille::{self as adapter, events};
use threaded_sessions::{Error, ErrorKind};

use crate::Shop;
use crate::common::{Sessions, Shopper};

pub(crate) type Streams = adapter::Streams<Shopper>;

/// Short, because each page that a visitor leaves has had a stream, and a visitor can have eight.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Starts the streams. Returns `None` if the store does not announce the ends of sessions.
pub(crate) fn start(sessions: &Sessions) -> Result<Option<Streams>, Error> {
    match Streams::builder(sessions).heartbeat(HEARTBEAT).start() {
        Ok(streams) => Ok(Some(streams)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

impl Shop {
    pub(crate) fn ended(&self, request: &Request) -> Response {
        match &self.streams {
            Some(streams) => events(streams, request, |_, _| {}),
            None => Response::empty_404(),
        }
    }
}
