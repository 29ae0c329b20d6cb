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
mod streams;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;

use ::rouille::{Request, Response, ResponseBody};

#[cfg(feature = "clap")]
pub use self::serve::serve;
pub use self::streams::{EventSender, MessageSender, Streams, StreamsBuilder, events, websocket};
use super::{CopyIdentity, ErrorResponse, RequestIdentity, RequestLine};
use crate::{Committed, Error, Failure, IntoHandlerResult, OpenMode, Session, SessionManager, adapter};

/// Runs a handler with the session of the request, commits the session, and puts the session's headers onto the response.
///
/// The handler returns a response, or a [`HandlerResult`](crate::HandlerResult) of one, so `?` works with all errors. The
/// session is committed whatever the status of the response is.
///
/// In these cases the response is that of [`error_response`]:
///
/// - The handler returns an error. Nothing is committed then, and pending changes are dropped. A change that
///   [`update_in`](SessionManager::update_in) has stored stays, and its cookie goes out.
/// - The session cannot be opened or committed, or the request comes from another origin.
/// - The change was lost ([`Outcome::is_lost`](crate::Outcome::is_lost)), because another request ended or renewed the session, or
///   because the principal has as many sessions as [`OnCap::Refuse`](crate::OnCap::Refuse) allows. The status is 409. If the
///   handler's response has a status of 400 or more, it is returned instead, because it reports no success.
///
/// [`try_session`] leaves these cases to you.
///
/// Call it once for each request, and pass the session on to other functions. A call within the handler fails with
/// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured). A later call for the same request opens the session once more, so
/// a visitor without a session gets two, and the first one is lost.
///
/// # Examples
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::session;
///
/// fn add(sessions: &SessionManager<u32>, request: &Request) -> Response {
///     session(sessions, request, |sum| {
///         let number: u32 = request.get_param("number").ok_or("no number")?.parse()?;
///         let sum = sessions.update_in(sum, |sum| {
///             *sum += number;
///             *sum
///         })?;
///         Ok(match sum {
///             Some(sum) => Response::text(sum.to_string()),
///             None => Response::text("the session has ended").with_status_code(409),
///         })
///     })
/// }
/// # let sessions = SessionManager::new(threaded_sessions::MemorySessionStore::new());
/// # let get = |path: &str| add(&sessions, &Request::fake_http("GET", path, vec![], vec![])).status_code;
/// # assert_eq!((get("/?number=1"), get("/?number=x"), get("/")), (200, 500, 500));
/// ```
pub fn session<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response {
    complete(sessions, request, try_session(sessions, OpenMode::Use, request, handler))
}

/// Runs a handler with the session of the request, and returns failures and the outcome of the commit to the caller.
///
/// The mode selects how the session is opened: [`OpenMode::Use`] like [`session`], and each other mode like the function of its name.
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::rouille::{error_response, try_session};
/// use threaded_sessions::{OpenMode, SessionManager};
///
/// fn hit(sessions: &SessionManager<u32>, request: &Request) -> Response {
///     let result = try_session(sessions, OpenMode::Use, request, |hits| {
///         **hits += 1;
///         Response::text(hits.to_string())
///     });
///     match result {
///         Ok((_, committed)) if committed.outcome().is_lost() => {
///             Response::text("You are signed out.").with_status_code(409)
///         }
///         Ok((response, _)) => response,
///         Err(failure) => error_response(sessions, &failure),
///     }
/// }
/// ```
///
/// # Errors
///
/// Returns a [`Failure`]. It has been neither logged nor made a response; [`error_response`] does both. It holds
///
/// - [`ErrorKind::CrossOrigin`](crate::ErrorKind::CrossOrigin) if the request comes from another origin
///   ([`SessionManager::check_cross_origin`]). No session was opened then.
/// - the errors of [`SessionManager::open`]. The handler was not called then.
/// - the error of the handler. Nothing was committed then.
/// - the errors of [`SessionManager::commit`].
pub fn try_session<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    mode: OpenMode,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Result<(Response, Committed), Failure> {
    let line = line(request);
    let incoming = adapter::Incoming {
        identity: identity(request),
        check_origin: || sessions.check_cross_origin(request.method(), request.raw_url(), request.headers()),
        cookies: adapter::cookies(request.headers()),
        authorization: adapter::values(request.headers(), "Authorization"),
    };
    let mut open = adapter::open(sessions, mode, incoming).map_err(|error| Failure::new(&line, error))?;
    let result = handler(&mut open.session).into_handler_result();
    let (mut response, committed) =
        open.finish(result).map_err(|ended| Failure::new(&line, ended.error).with_committed(ended.committed))?;
    committed.merge_into(&mut response.headers);
    Ok((response, committed))
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
pub fn sign_in<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response {
    complete(sessions, request, try_session(sessions, OpenMode::SignIn, request, handler))
}

/// Runs a handler like [`session`], without counting the request as use of the session.
///
/// Use it for requests that a page sends by itself, such as polls. [`SessionManager::peek`] explains what is read and stored.
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::peek;
///
/// fn time_left(sessions: &SessionManager<u32>, request: &Request) -> Response {
///     peek(sessions, request, |session| match session.expires_in() {
///         Some(left) => Response::text(left.as_secs().to_string()),
///         None => Response::empty_404(),
///     })
/// }
/// # let sessions = SessionManager::new(threaded_sessions::MemorySessionStore::new());
/// # assert_eq!(time_left(&sessions, &Request::fake_http("GET", "/left", vec![], vec![])).status_code, 404);
/// ```
pub fn peek<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response {
    complete(sessions, request, try_session(sessions, OpenMode::Peek, request, handler))
}

/// Runs a handler like [`session`], with the session as it is in Redis, past the [near cache](crate::near_cache).
///
/// Use it for routes that must not miss a logout in another process. [`SessionManager::open_uncached`] explains which those are.
pub fn session_uncached<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response {
    complete(sessions, request, try_session(sessions, OpenMode::Uncached, request, handler))
}

/// Runs a handler like [`session`] for a client that sends a bearer token, and nothing else counts: no cookie, and no origin.
///
/// [`SessionManager::open_bearer`] explains the rules. The response sets no cookie. A new token is in the header
/// [`TOKEN_HEADER`](crate::TOKEN_HEADER). If another request renewed the session a moment ago, the status is 409, whatever the
/// handler responds, and the client should use its newest token. A handler that [signs in](SessionManager::sign_in) begins a
/// new session.
///
/// ```
/// use rouille::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::rouille::bearer;
///
/// fn profile(sessions: &SessionManager<String>, request: &Request) -> Response {
///     bearer(sessions, request, |user| match user.is_new() {
///         true => Response::empty_400().with_status_code(401),
///         false => Response::json(&**user),
///     })
/// }
/// ```
pub fn bearer<T: Default + 'static, H: IntoHandlerResult<Response = Response>>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response {
    complete(sessions, request, try_session(sessions, OpenMode::Bearer, request, handler))
}

/// Ends the session of the request if it cannot be decoded, and clears the cookie on the response.
///
/// Use it for the route of a form on the page for [`ErrorKind::Payload`](crate::ErrorKind::Payload). See
/// [`SessionManager::discard_unreadable`]. If the request comes from another origin, or the store fails, the response is that of
/// [`error_response`].
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
        Err(error) => error_response(sessions, &Failure::new(&line(request), error)),
    }
}

/// Returns the response that the visitor gets.
fn complete<T: 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    result: Result<(Response, Committed), Failure>,
) -> Response {
    let settled = result.and_then(|(response, committed)| {
        let status = response.status_code;
        adapter::reject_lost(response, status, committed, || line(request))
    });
    settled.unwrap_or_else(|failure| error_response(sessions, &failure))
}

fn line(request: &Request) -> RequestLine<'_> {
    RequestLine { method: request.method(), target: request.raw_url(), accept: request.header("Accept") }
}

/// Returns what this request, and what `Request::remove_prefix` makes of it, is recognised by.
fn identity(request: &Request) -> RequestIdentity {
    let mut hasher = DefaultHasher::new();
    request.method().hash(&mut hasher);
    request.headers().for_each(|header| header.hash(&mut hasher));
    let copy = CopyIdentity { hash: hasher.finish(), url: request.raw_url().to_owned() };
    RequestIdentity { address: ptr::from_ref(request).addr(), copy: Some(copy) }
}

/// Logs a failure with method and path, and returns the response to it: that of
/// [`SessionManagerBuilder::error_page`](crate::SessionManagerBuilder::error_page), or a line of text.
///
/// The status is [`Failure::status`] unless the page has another one. The session's headers are on the response.
pub fn error_response<T: 'static>(sessions: &SessionManager<T>, failure: &Failure) -> Response {
    let mut response = response(sessions.error_pages().respond(failure));
    if let Some(committed) = failure.committed() {
        committed.merge_into(&mut response.headers);
    }
    response
}

/// Logs an error of this crate, and returns a line of text as the response. It is an alternative to a handler that returns the
/// error.
///
/// The status is 503 with `Retry-After` if the error is [temporary](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), 403 for a request from [another origin](crate::ErrorKind::CrossOrigin), and otherwise
/// 500. The response does not show the cause. The changes of the handler are still committed; to drop them, return the error.
pub fn failure(error: &Error) -> Response {
    response(adapter::error_response(error))
}

fn response(error: ErrorResponse) -> Response {
    let data = ResponseBody::from_data(error.body);
    Response { status_code: error.status, headers: error.headers, data, upgrade: None }
}
