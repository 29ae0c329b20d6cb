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
//! A route that needs no session calls [`answer`], and sends no command to the store. An application with several routes calls
//! [`answer`] for all of them, and [`session`] in those with a session. tiny_http does not parse forms: read the body from
//! `as_reader`, with a limit, and decode it with a crate such as `form_urlencoded`. Invariant: a handler that panics commits
//! nothing, and its request gets status 500.

#[cfg(feature = "clap")]
mod serve;

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use ::tiny_http::{Header, Request, Response, ResponseBox};

#[cfg(feature = "clap")]
pub use self::serve::serve;
use super::{ErrorResponse, RequestIdentity, RequestLine};
use crate::{Committed, Error, Failure, IntoHandlerResult, OpenMode, Session, SessionManager, adapter};

/// Sends the response of [`session`] to a request.
///
/// If the handler panics, nothing is committed, the client gets status 500, and the accepting thread continues.
///
/// # Errors
///
/// Returns an error if the response cannot be sent. A client that has disconnected is not an error.
pub fn respond<T: Default + 'static, R: Read + Send + 'static, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    request: Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
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
/// use std::io::Read;
///
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::tiny_http::session;
/// use tiny_http::{Request, Response, ResponseBox};
///
/// fn add(sessions: &SessionManager<u32>, request: &mut Request) -> ResponseBox {
///     session(sessions, request, |sum, request| {
///         let mut number = String::new();
///         request.as_reader().take(20).read_to_string(&mut number)?; // a limit
///         **sum += number.parse::<u32>()?;
///         Ok(Response::from_string(sum.to_string()))
///     })
/// }
/// # let sessions = SessionManager::new(threaded_sessions::MemorySessionStore::new());
/// # let post = |body| add(&sessions, &mut tiny_http::TestRequest::new().with_body(body).into()).status_code().0;
/// # assert_eq!((post("1"), post("one")), (200, 500));
/// ```
pub fn session<T: Default + 'static, R: Read + Send + 'static, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> ResponseBox {
    let result = try_session(sessions, OpenMode::Use, request, handler);
    complete(sessions, request, result)
}

/// Runs a handler with the session of the request, and returns failures and the outcome of the commit to the caller.
///
/// The mode selects how the session is opened: [`OpenMode::Use`] like [`session`], and each other mode like the function of its name.
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
pub fn try_session<T: Default + 'static, R: Read, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    mode: OpenMode,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> Result<(Response<R>, Committed), Failure> {
    let identity = RequestIdentity { address: ptr::from_ref(&*request).addr(), copy: None };
    let incoming = adapter::Incoming {
        identity,
        check_origin: || {
            sessions.check_cross_origin(request.method().as_str(), request.url(), headers(request.headers()))
        },
        cookies: adapter::cookies(headers(request.headers())),
        authorization: adapter::values(headers(request.headers()), "Authorization"),
    };
    let mut open = adapter::open(sessions, mode, incoming).map_err(|error| Failure::new(&line(request), error))?;
    let result = handler(&mut open.session, request).into_handler_result();
    let (response, committed) = open
        .finish(result)
        .map_err(|ended| Failure::new(&line(request), ended.error).with_committed(ended.committed))?;
    Ok((merged(response, &committed), committed))
}

/// Runs a handler that may sign a visitor in, like [`session`]. If the session of the request cannot be decoded, the handler gets
/// a new one.
///
/// Use it for the route that signs visitors in; [`SessionManager::open_for_sign_in`] explains why.
pub fn sign_in<T: Default + 'static, R: Read + Send + 'static, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> ResponseBox {
    let result = try_session(sessions, OpenMode::SignIn, request, handler);
    complete(sessions, request, result)
}

/// Runs a handler like [`session`], without counting the request as use of the session.
///
/// Use it for requests that a page sends by itself, such as polls. [`SessionManager::peek`] explains what is read and stored.
pub fn peek<T: Default + 'static, R: Read + Send + 'static, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> ResponseBox {
    let result = try_session(sessions, OpenMode::Peek, request, handler);
    complete(sessions, request, result)
}

/// Runs a handler like [`session`], with the session as it is in Redis, past the [near cache](crate::near_cache).
///
/// Use it for routes that must not miss a logout in another process. [`SessionManager::open_uncached`] explains which those are.
pub fn session_uncached<
    T: Default + 'static,
    R: Read + Send + 'static,
    H: IntoHandlerResult<Response = Response<R>>,
>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> ResponseBox {
    let result = try_session(sessions, OpenMode::Uncached, request, handler);
    complete(sessions, request, result)
}

/// Runs a handler like [`session`] for a client that sends a bearer token, and nothing else counts: no cookie, and no origin.
///
/// [`SessionManager::open_bearer`] explains the rules. The response sets no cookie. A new token is in the header
/// [`TOKEN_HEADER`](crate::TOKEN_HEADER). If another request renewed the session a moment ago, the status is 409, whatever the
/// handler responds, and the client should use its newest token. A handler that [signs in](SessionManager::sign_in) begins a
/// new session.
pub fn bearer<T: Default + 'static, R: Read + Send + 'static, H: IntoHandlerResult<Response = Response<R>>>(
    sessions: &SessionManager<T>,
    request: &mut Request,
    handler: impl FnOnce(&mut Session<T>, &mut Request) -> H,
) -> ResponseBox {
    let result = try_session(sessions, OpenMode::Bearer, request, handler);
    complete(sessions, request, result)
}

/// Ends the session of the request if it cannot be decoded, and clears the cookie on the response.
///
/// Use it for the route of a form on the page for [`ErrorKind::Payload`](crate::ErrorKind::Payload). See
/// [`SessionManager::discard_unreadable`]. If the request comes from another origin, or the store fails, the response is that of
/// [`error_response`].
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
        Err(error) => error_response(sessions, &Failure::new(&line(request), error)),
    }
}

/// Returns the response that the visitor gets.
fn complete<T: 'static, R: Read + Send + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    result: Result<(Response<R>, Committed), Failure>,
) -> ResponseBox {
    let settled = result.and_then(|(response, committed)| {
        let status = response.status_code().0;
        adapter::reject_lost(response, status, committed, || line(request))
    });
    settled.map_or_else(|failure| error_response(sessions, &failure), Response::boxed)
}

fn line(request: &Request) -> RequestLine<'_> {
    let accept = headers(request.headers()).find(|(name, _)| name.eq_ignore_ascii_case("Accept"));
    RequestLine { method: request.method().as_str(), target: request.url(), accept: accept.map(|(_, value)| value) }
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

fn headers(headers: &[Header]) -> impl Iterator<Item = (&str, &str)> + Clone {
    headers.iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()))
}

/// Logs a failure with method and path, and returns the response to it: that of
/// [`SessionManagerBuilder::error_page`](crate::SessionManagerBuilder::error_page), or a line of text.
///
/// The status is [`Failure::status`] unless the page has another one. The session's headers are on the response.
pub fn error_response<T: 'static>(sessions: &SessionManager<T>, failure: &Failure) -> ResponseBox {
    let response = response(sessions.error_pages().respond(failure));
    match failure.committed() {
        Some(committed) => merged(response, committed).boxed(),
        None => response.boxed(),
    }
}

/// Logs an error of this crate, and returns a line of text as the response. It is an alternative to a handler that returns the
/// error.
///
/// The status is 503 with `Retry-After` if the error is [temporary](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), 403 for a request from [another origin](crate::ErrorKind::CrossOrigin), and otherwise
/// 500. The response does not show the cause. The changes of the handler are still committed; to drop them, return the error.
pub fn failure(error: &Error) -> ResponseBox {
    response(adapter::error_response(error)).boxed()
}

fn response(error: ErrorResponse) -> Response<io::Cursor<Vec<u8>>> {
    let response = Response::from_data(error.body).with_status_code(error.status);
    error.headers.iter().map(|(name, value)| header(name, value)).fold(response, Response::with_header)
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("the headers are ASCII")
}
