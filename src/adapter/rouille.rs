//! Sessions for [rouille](https://docs.rs/rouille) handlers.
//!
//! ```no_run
//! use rouille::Response;
//! use threaded_sessions::rouille::session;
//! use threaded_sessions::{MemorySessionStore, SessionManager};
//!
//! let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
//! rouille::start_server_with_pool("127.0.0.1:8000", None, move |request| {
//!     session(&sessions, request, |visits| {
//!         **visits += 1;
//!         Response::text(visits.to_string())
//!     })
//! });
//! ```
//!
//! A route that needs no session does not call [`session`], and sends no command to the store. Use `start_server_with_pool`,
//! because `start_server` starts a thread for every request. Invariant: a handler that panics commits nothing.

use ::rouille::{Request, Response};

use crate::{Committed, Error, Result, Session, SessionManager, adapter};

/// Runs a handler with the session of the request, commits the session whatever the response is, and puts the session's
/// headers onto the response.
///
/// If the session cannot be opened or committed, the response is that of [`failure`]. If another request destroyed or renewed
/// the session, the handler's changes are dropped and its response is still returned; [`try_session`] reports that.
pub fn session<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Response {
    match try_session(sessions, request, handler) {
        Ok((response, _)) => response,
        Err(error) => failure(&error),
    }
}

/// Runs a handler like [`session`], and returns errors and the outcome of the commit to the caller.
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::{failure, try_session};
///
/// fn hit(sessions: &SessionManager<u32>, request: &Request) -> Response {
///     let answer = try_session(sessions, request, |hits| {
///         **hits += 1;
///         Response::text(hits.to_string())
///     });
///     match answer {
///         Ok((_, committed)) if committed.outcome().is_lost() => {
///             Response::text("You were signed out meanwhile.").with_status_code(409)
///         }
///         Ok((response, _)) => response,
///         Err(error) => failure(&error),
///     }
/// }
/// ```
///
/// # Errors
///
/// - Returns [`ErrorKind::CrossOrigin`](crate::ErrorKind::CrossOrigin) if the request comes from another origin
///   ([`SessionManager::check_cross_origin`]). No session was opened then.
/// - Returns the errors of [`SessionManager::open`]. The handler was not called then.
/// - Returns the errors of [`SessionManager::commit`].
pub fn try_session<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Result<(Response, Committed)> {
    sessions.check_cross_origin(request.method(), request.raw_url(), request.headers())?;
    let mut session = adapter::open(sessions, request.headers())?;
    let mut response = handler(&mut session);
    let committed = sessions.commit(session)?;
    let headers = adapter::headers(&committed, response.headers.iter().map(|(name, _)| &**name));
    response.headers.extend(headers.into_iter().map(|(name, value)| (name.into(), value)));
    Ok((response, committed))
}

/// Logs an error and returns the response to a request whose session could not be opened or committed.
///
/// The status is 503 with `Retry-After` if the error is [temporary](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), 403 for a request from [another origin](crate::ErrorKind::CrossOrigin), and otherwise 500. The response does not show the cause.
pub fn failure(error: &Error) -> Response {
    let reply = adapter::error_response(error);
    let mut response = Response::text(reply.text).with_status_code(reply.status);
    response.headers.extend(reply.headers.iter().map(|&(name, value)| (name.into(), value.into())));
    response
}
