//! Sessions for [tiny_http](https://docs.rs/tiny_http) servers.
//!
//! ```no_run
//! use threaded_sessions::{MemorySessionStore, SessionManager, tiny_http::respond};
//! use tiny_http::{Response, Server};
//!
//! let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
//! let server = Server::http("127.0.0.1:8000")?;
//! for request in server.incoming_requests() { // in each of your threads
//!     respond(&sessions, request, |visits, _| {
//!         **visits += 1;
//!         Response::from_string(visits.to_string())
//!     })?;
//! }
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! A route that needs no session calls [`answer`], and sends no command to the store. Invariant: a handler that panics commits
//! nothing, and its request gets status 500.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::tiny_http::{Header, Request, Response, ResponseBox};

use crate::{Committed, Error, Result, Session, SessionManager, adapter};

/// Sends the response of [`session`] to a request.
///
/// If the handler panics, nothing is committed, the client gets status 500, and the accepting thread continues.
///
/// # Errors
///
/// Returns an error if the response cannot be sent. A client that has disconnected is not an error.
pub fn respond<T: Default + 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> io::Result<()> {
    answer(request, |request| session(sessions, request, handler))
}

/// Sends the response of a handler that may or may not use a session, or status 500 if the handler panics.
///
/// # Errors
///
/// Returns the errors of [`respond`].
pub fn answer<R: Read>(mut request: Request, handler: impl FnOnce(&mut Request) -> Response<R>) -> io::Result<()> {
    // Unwind safe: after a panic the session no longer exists, and the request only sends the response.
    match catch_unwind(AssertUnwindSafe(|| handler(&mut request))) {
        Ok(response) => request.respond(response),
        Err(_) => request.respond(Response::from_string("Something went wrong.").with_status_code(500)),
    }
}

/// Runs a handler with the session of the request, commits the session whatever the response is, and puts the session's
/// headers onto the response.
///
/// If the session cannot be opened or committed, the response is that of [`failure`]. If another request destroyed or renewed
/// the session, the handler's changes are dropped and its response is still returned; [`try_session`] reports that.
pub fn session<T: Default + 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> ResponseBox {
    match try_session(sessions, request, handler) {
        Ok((response, _)) => response.boxed(),
        Err(error) => failure(&error),
    }
}

/// Runs a handler like [`session`], and returns errors and the outcome of the commit to the caller.
///
/// # Errors
///
/// - Returns [`ErrorKind::CrossOrigin`](crate::ErrorKind::CrossOrigin) if the request comes from another origin
///   ([`SessionManager::check_cross_origin`]). No session was opened then.
/// - Returns the errors of [`SessionManager::open`]. The handler was not called then.
/// - Returns the errors of [`SessionManager::commit`].
pub fn try_session<T: Default + 'static, R: Read>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> Result<(Response<R>, Committed)> {
    let headers = request.headers().iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()));
    sessions.check_cross_origin(request.method().as_str(), request.url(), headers.clone())?;
    let mut session = adapter::open(sessions, headers)?;
    let response = handler(&mut session, request);
    let committed = sessions.commit(session)?;
    let headers = adapter::headers(&committed, response.headers().iter().map(|header| header.field.as_str().as_str()));
    let headers = headers.iter().map(|(name, value)| header(name, value));
    Ok((headers.fold(response, Response::with_header), committed))
}

/// Logs an error and returns the response to a request whose session could not be opened or committed.
///
/// The status is 503 with `Retry-After` if the error is [temporary](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), 403 for a request from [another origin](crate::ErrorKind::CrossOrigin), and otherwise 500. The response does not show the cause.
pub fn failure(error: &Error) -> ResponseBox {
    let reply = adapter::error_response(error);
    let response = Response::from_string(reply.text).with_status_code(reply.status);
    reply.headers.iter().map(|(name, value)| header(name, value)).fold(response, Response::with_header).boxed()
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("the headers of a session are ASCII")
}
