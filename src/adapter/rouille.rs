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

#[cfg(feature = "clap")]
mod serve;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;

use ::rouille::{Request, Response};

#[cfg(feature = "clap")]
pub use self::serve::serve;
use super::{CopyIdentity, Purpose, RequestIdentity};
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
    handle(sessions, Purpose::Any, request, handler)
}

/// Runs a handler that may sign a visitor in, like [`session`]. If the session of the request cannot be decoded, the handler gets
/// a new one.
///
/// Use it for the route that signs visitors in; [`SessionManager::open_for_sign_in`] explains why.
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::sign_in;
///
/// fn sign_ada_in(sessions: &SessionManager<String>, request: &Request) -> Response {
///     sign_in(sessions, request, |user| {
///         user.renew();
///         **user = "ada".to_owned();
///         Response::redirect_303("/")
///     })
/// }
/// ```
pub fn sign_in<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Response {
    match try_sign_in(sessions, request, handler) {
        Ok((response, _)) => response,
        Err(error) => failure(&error),
    }
}

/// Runs a handler like [`sign_in`], and returns errors and the outcome of the commit to the caller.
///
/// # Errors
///
/// Returns the errors of [`try_session`], except for that of a session that cannot be decoded.
pub fn try_sign_in<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Result<(Response, Committed)> {
    handle(sessions, Purpose::SignIn, request, handler)
}

/// Ends the session of the request if it cannot be decoded, and clears the cookie on the response.
///
/// Use it for the route of a form on the page for [`ErrorKind::Payload`](crate::ErrorKind::Payload). See
/// [`SessionManager::discard_unreadable`]. If the request comes from another origin, or the store fails, the response is that of
/// [`failure`].
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::discard_unreadable;
///
/// fn start_over(sessions: &SessionManager<u32>, request: &Request) -> Response {
///     discard_unreadable(sessions, request, Response::redirect_303("/"))
/// }
/// ```
pub fn discard_unreadable<T: 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    mut response: Response,
) -> Response {
    let discarded = sessions
        .check_cross_origin(request.method(), request.raw_url(), request.headers())
        .and_then(|()| sessions.discard_unreadable(adapter::cookies(request.headers())));
    match discarded {
        Ok(discarded) => {
            discarded.merge_into(&mut response.headers);
            response
        }
        Err(error) => failure(&error),
    }
}

fn handle<T: Default + 'static>(
    sessions: &SessionManager<T>,
    purpose: Purpose,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Result<(Response, Committed)> {
    sessions.check_cross_origin(request.method(), request.raw_url(), request.headers())?;
    let mut open = adapter::open(sessions, purpose, identity(request), request.headers())?;
    let mut response = handler(&mut open.session);
    let committed = open.commit()?;
    committed.merge_into(&mut response.headers);
    Ok((response, committed))
}

/// Returns what this request, and what `Request::remove_prefix` makes of it, is recognised by.
fn identity(request: &Request) -> RequestIdentity {
    let mut hasher = DefaultHasher::new();
    request.method().hash(&mut hasher);
    request.headers().for_each(|header| header.hash(&mut hasher));
    let copy = CopyIdentity { hash: hasher.finish(), url: request.raw_url().to_owned() };
    RequestIdentity { address: ptr::from_ref(request).addr(), copy: Some(copy) }
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
