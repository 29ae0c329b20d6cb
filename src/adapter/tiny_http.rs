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

#[cfg(feature = "clap")]
mod serve;

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use ::tiny_http::{Header, Request, Response, ResponseBox};

#[cfg(feature = "clap")]
pub use self::serve::serve;
use super::{Purpose, RequestIdentity};
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
    handle(sessions, Purpose::Any, request, handler)
}

/// Runs a handler that may sign a visitor in, like [`session`]. If the session of the request cannot be decoded, the handler gets
/// a new one.
///
/// Use it for the route that signs visitors in; [`SessionManager::open_for_sign_in`] explains why.
pub fn sign_in<T: Default + 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> ResponseBox {
    match try_sign_in(sessions, request, handler) {
        Ok((response, _)) => response.boxed(),
        Err(error) => failure(&error),
    }
}

/// Runs a handler like [`sign_in`], and returns errors and the outcome of the commit to the caller.
///
/// # Errors
///
/// Returns the errors of [`try_session`], except for that of a session that cannot be decoded.
pub fn try_sign_in<T: Default + 'static, R: Read>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> Result<(Response<R>, Committed)> {
    handle(sessions, Purpose::SignIn, request, handler)
}

/// Ends the session of the request if it cannot be decoded, and clears the cookie on the response.
///
/// Use it for the route of a form on the page for [`ErrorKind::Payload`](crate::ErrorKind::Payload). See
/// [`SessionManager::discard_unreadable`]. If the request comes from another origin, or the store fails, the response is that of
/// [`failure`].
pub fn discard_unreadable<T: 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    response: Response<R>,
) -> ResponseBox {
    let discarded = sessions
        .check_cross_origin(request.method().as_str(), request.url(), headers(request.headers()))
        .and_then(|()| sessions.discard_unreadable(adapter::cookies(headers(request.headers()))));
    match discarded {
        Ok(discarded) => merged(response, &discarded).boxed(),
        Err(error) => failure(&error),
    }
}

fn handle<T: Default + 'static, R: Read>(
    sessions: &SessionManager<T>,
    purpose: Purpose,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> Result<(Response<R>, Committed)> {
    sessions.check_cross_origin(request.method().as_str(), request.url(), headers(request.headers()))?;
    let identity = RequestIdentity { address: ptr::from_ref(&*request).addr(), copy: None };
    let mut open = adapter::open(sessions, purpose, identity, headers(request.headers()))?;
    let response = handler(&mut open.session, request);
    let committed = open.commit()?;
    Ok((merged(response, &committed), committed))
}

/// Puts the session's headers onto a response.
fn merged<R: Read>(response: Response<R>, committed: &Committed) -> Response<R> {
    let changes = committed.header_changes(|| headers(response.headers()));
    let added = changes.added.iter().map(|(name, value)| header(name, value));
    if !response.headers().iter().any(|header| changes.drops(header.field.as_str().as_str())) {
        return added.fold(response, Response::with_header);
    }
    // A response gives up no header, so make it anew.
    let kept = response.headers().iter().filter(|header| !changes.drops(header.field.as_str().as_str())).cloned();
    let headers = kept.chain(added).collect();
    let (status, length, threshold) = (response.status_code(), response.data_length(), response.chunked_threshold());
    Response::new(status, headers, response.into_reader(), length, None).with_chunked_threshold(threshold)
}

fn headers(headers: &[Header]) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()))
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
