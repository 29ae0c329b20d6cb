//! Sessions for [tiny_http](https://docs.rs/tiny_http) servers.
//!
//! ```no_run
//! use threaded_sessions::{MemorySessionStore, SessionManager, tiny_http::respond};
//! use tiny_http::{Response, Server};
//!
//! let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
//! let server = Server::http("127.0.0.1:8000")?;
//! for request in server.incoming_requests() { // in as many threads as there are to be
//!     respond(&sessions, request, |visits, _| {
//!         **visits += 1;
//!         Response::from_string(visits.to_string())
//!     })?;
//! }
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//! A route that needs no session calls [`answer`] and costs the store nothing.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::tiny_http::{Header, Request, Response, ResponseBox};

use crate::{Committed, Error, Result, Session, SessionManager, adapter};

/// Answers a request with the response of [`session`].
///
/// A handler that panics commits nothing, the client gets a 500, and the accepting thread lives on.
///
/// # Errors
///
/// That the response could not be sent; a client that is gone is no error.
pub fn respond<T: Default + 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> io::Result<()> {
    answer(request, |request| session(sessions, request, handler))
}

/// Answers a request that may or may not have to do with a session, likewise with 500 if the handler panics.
///
/// # Errors
///
/// As for [`respond`].
pub fn answer<R: Read>(mut request: Request, handler: impl FnOnce(&mut Request) -> Response<R>) -> io::Result<()> {
    // After a panic the session is gone, and of the request only the way back is used.
    match catch_unwind(AssertUnwindSafe(|| handler(&mut request))) {
        Ok(response) => request.respond(response),
        Err(_) => request.respond(Response::from_string("Something went wrong.").with_status_code(500)),
    }
}

/// Runs a handler with the session of the request, commits the session whatever the response is, and puts the session's
/// headers onto the response.
///
/// An error is answered with [`failure`]. If the handler's changes were dropped, because the session was destroyed or
/// renewed meanwhile, its response goes out all the same; [`try_session`] tells.
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

/// The same for those who want to decide themselves what an error, or a change that was dropped, is answered with.
///
/// # Errors
///
/// As for [`SessionManager::open`], then the handler was not called; and as for [`SessionManager::commit`].
pub fn try_session<T: Default + 'static, R: Read>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> Response<R>,
) -> Result<(Response<R>, Committed)> {
    let headers = request.headers().iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()));
    let mut session = adapter::open(sessions, headers)?;
    let response = handler(&mut session, request);
    let committed = sessions.commit(session)?;
    let headers = adapter::headers(&committed, response.headers().iter().map(|header| header.field.as_str().as_str()));
    let headers = headers.iter().map(|(name, value)| header(name, value));
    Ok((headers.fold(response, Response::with_header), committed))
}

/// The response to an error: 503 with `Retry-After` if it [passes](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), otherwise 500. It does not show the cause, which is logged.
pub fn failure(error: &Error) -> ResponseBox {
    let reply = adapter::error_response(error);
    let response = Response::from_string(reply.text).with_status_code(reply.status);
    reply.headers.iter().map(|(name, value)| header(name, value)).fold(response, Response::with_header).boxed()
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("the headers of a session are ASCII")
}
