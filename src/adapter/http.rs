//! Sessions for servers and frameworks with the types of the crate [`http`](https://docs.rs/http) 1.x.
//!
//! ```
//! use http::{Request, Response};
//! use threaded_sessions::http::session;
//! use threaded_sessions::{MemorySessionStore, SessionManager};
//!
//! fn visits(sessions: &SessionManager<u32>, request: &Request<Vec<u8>>) -> Response<Vec<u8>> {
//!     session(sessions, request, |visits| {
//!         **visits += 1;
//!         Response::new(visits.to_string().into_bytes())
//!     })
//! }
//!
//! let sessions = SessionManager::new(MemorySessionStore::new());
//! let response = visits(&sessions, &Request::new(Vec::new()));
//! assert!(response.headers().contains_key("set-cookie"));
//! ```
//!
//! The guide `servers` shows oxhttp, astra, touche, cgi, and blocking code under hyper or axum. These functions block, so an
//! asynchronous server must call them on a thread for blocking code. A route that needs no session does not call [`session`], and
//! sends no command to the store. Invariant: a handler that panics commits nothing, and `Set-Cookie` headers of the handler stay.

use std::ptr;
use std::str::from_utf8;

use ::http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, VARY};
use ::http::request::Parts;
use ::http::{Method, Request, Response, StatusCode, Uri};

use super::{ErrorResponse, RequestIdentity, RequestLine};
use crate::{Committed, Error, Failure, IntoHandlerResult, OpenMode, Session, SessionManager, adapter};

mod sealed {
    pub trait Sealed {}
}

/// The head of a request: a [`Request`], its [`Parts`], or a tuple of method, address and headers. You cannot implement it.
pub trait RequestHead: sealed::Sealed {
    /// Returns the method.
    fn method(&self) -> &Method;

    /// Returns the address.
    fn uri(&self) -> &Uri;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;
}

impl<B> sealed::Sealed for Request<B> {}

impl<B> RequestHead for Request<B> {
    fn method(&self) -> &Method {
        self.method()
    }

    fn uri(&self) -> &Uri {
        self.uri()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

impl sealed::Sealed for Parts {}

impl RequestHead for Parts {
    fn method(&self) -> &Method {
        &self.method
    }

    fn uri(&self) -> &Uri {
        &self.uri
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl sealed::Sealed for (&Method, &Uri, &HeaderMap) {}

impl RequestHead for (&Method, &Uri, &HeaderMap) {
    fn method(&self) -> &Method {
        self.0
    }

    fn uri(&self) -> &Uri {
        self.1
    }

    fn headers(&self) -> &HeaderMap {
        self.2
    }
}

/// Runs a handler with the session of the request, commits the session, and puts the session's headers onto the response.
///
/// The handler returns a response, or a [`HandlerResult`](crate::HandlerResult) of one, so `?` works with all errors. The
/// session is committed whatever the status of the response is. Read the body of the request before you call this function, so
/// that a slow client does not keep the session open.
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
/// use http::{Request, Response};
/// use threaded_sessions::SessionManager;
/// use threaded_sessions::http::session;
///
/// fn add(sessions: &SessionManager<u32>, request: &Request<String>) -> Response<Vec<u8>> {
///     session(sessions, request, |sum| {
///         **sum += request.body().parse::<u32>()?;
///         Ok(Response::builder().header("Content-Type", "text/plain").body(sum.to_string().into())?)
///     })
/// }
/// # let sessions = SessionManager::new(threaded_sessions::MemorySessionStore::new());
/// # let status = |body: &str| add(&sessions, &Request::new(body.to_owned())).status().as_u16();
/// # assert_eq!((status("1"), status("one")), (200, 500));
/// ```
pub fn session<T: Default + 'static, B: From<Vec<u8>>, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response<B> {
    complete(sessions, request, try_session(sessions, OpenMode::Use, request, handler))
}

/// Runs a handler with the session of the request, and returns failures and the outcome of the commit to the caller.
///
/// The mode selects how the session is opened: [`OpenMode::Use`] like [`session`], and each other mode like the function of its name.
///
/// The body of the response may have any type.
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
pub fn try_session<T: Default + 'static, B, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    mode: OpenMode,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Result<(Response<B>, Committed), Failure> {
    let line = line(request);
    // The headers stay where they are while the handler runs.
    let identity = RequestIdentity { address: ptr::from_ref(request.headers()).addr(), copy: None };
    let incoming = adapter::Incoming {
        identity,
        check_origin: || check_cross_origin(sessions, request),
        cookies: cookies(request.headers()),
        // A value that is not text still counts as a header, because several headers carry no token.
        authorization: request.headers().get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap_or_default()),
    };
    let mut open = adapter::open(sessions, mode, incoming).map_err(|error| Failure::new(&line, error))?;
    let result = handler(&mut open.session).into_handler_result();
    let (mut response, committed) =
        open.finish(result).map_err(|ended| Failure::new(&line, ended.error).with_committed(ended.committed))?;
    merge_into(response.headers_mut(), &committed);
    Ok((response, committed))
}

/// Runs a handler that may sign a visitor in, like [`session`]. If the session of the request cannot be decoded, the handler gets
/// a new one.
///
/// Use it for the route that signs visitors in; [`SessionManager::open_for_sign_in`] explains why.
pub fn sign_in<T: Default + 'static, B: From<Vec<u8>>, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response<B> {
    complete(sessions, request, try_session(sessions, OpenMode::SignIn, request, handler))
}

/// Runs a handler like [`session`], without counting the request as use of the session.
///
/// Use it for requests that a page sends by itself, such as polls. [`SessionManager::peek`] explains what is read and stored.
pub fn peek<T: Default + 'static, B: From<Vec<u8>>, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response<B> {
    complete(sessions, request, try_session(sessions, OpenMode::Peek, request, handler))
}

/// Runs a handler like [`session`], with the session as it is in Redis, past the [near cache](crate::near_cache).
///
/// Use it for routes that must not miss a logout in another process. [`SessionManager::open_uncached`] explains which those are.
pub fn session_uncached<T: Default + 'static, B: From<Vec<u8>>, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response<B> {
    complete(sessions, request, try_session(sessions, OpenMode::Uncached, request, handler))
}

/// Runs a handler like [`session`] for a client that sends a bearer token, and nothing else counts: no cookie, and no origin.
///
/// [`SessionManager::open_bearer`] explains the rules. The response sets no cookie. A new token is in the header
/// [`TOKEN_HEADER`](crate::TOKEN_HEADER). If another request renewed the session a moment ago, the status is 409, whatever the
/// handler responds, and the client should use its newest token. A handler that [signs in](SessionManager::sign_in) begins a
/// new session.
pub fn bearer<T: Default + 'static, B: From<Vec<u8>>, H: IntoHandlerResult<Response = Response<B>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    handler: impl FnOnce(&mut Session<T>) -> H,
) -> Response<B> {
    complete(sessions, request, try_session(sessions, OpenMode::Bearer, request, handler))
}

/// Ends the session of the request if it cannot be decoded, and clears the cookie on the response.
///
/// Use it for the route of a form on the page for [`ErrorKind::Payload`](crate::ErrorKind::Payload). See
/// [`SessionManager::discard_unreadable`]. If the request comes from another origin, or the store fails, the response is that of
/// [`error_response`].
pub fn discard_unreadable<T: 'static, B: From<Vec<u8>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    mut response: Response<B>,
) -> Response<B> {
    let discarded =
        check_cross_origin(sessions, request).and_then(|()| sessions.discard_unreadable(cookies(request.headers())));
    match discarded {
        Ok(discarded) => {
            merge_into(response.headers_mut(), &discarded);
            response
        }
        Err(error) => error_response(sessions, &Failure::new(&line(request), error)),
    }
}

/// Opens the session of a request, for code that cannot run in a handler of [`session`].
///
/// Pass the session to [`commit`] afterwards. To drop its changes, drop the session. A function between the two that opens the
/// session of the request again gets another copy, and nothing reports that.
///
/// # Examples
///
/// ```
/// use http::{Request, Response};
/// use threaded_sessions::http::{commit, failure, open};
/// use threaded_sessions::{Result, SessionManager};
///
/// fn visits(sessions: &SessionManager<u32>, request: &Request<()>) -> Result<Response<Vec<u8>>> {
///     let mut visits = open(sessions, request)?;
///     *visits += 1;
///     let mut response = Response::new(visits.to_string().into_bytes());
///     let committed = commit(sessions, visits, response.headers_mut())?;
///     if committed.outcome().is_lost() {
///         *response.status_mut() = http::StatusCode::CONFLICT;
///     }
///     Ok(response)
/// }
///
/// # let sessions = SessionManager::new(threaded_sessions::MemorySessionStore::new());
/// let response = visits(&sessions, &Request::new(())).unwrap_or_else(|error| failure(&error));
/// assert_eq!(response.status(), 200);
/// ```
///
/// # Errors
///
/// - Returns [`ErrorKind::CrossOrigin`](crate::ErrorKind::CrossOrigin) if the request comes from another origin
///   ([`SessionManager::check_cross_origin`]).
/// - Returns the errors of [`SessionManager::open`].
pub fn open<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
) -> crate::Result<Session<T>> {
    check_cross_origin(sessions, request)?;
    sessions.open(cookies(request.headers()))
}

/// Commits a session, and puts its headers onto those of a response.
///
/// If the change was lost ([`Outcome::is_lost`](crate::Outcome::is_lost)), report no success to the visitor.
///
/// # Errors
///
/// Returns the errors of [`SessionManager::commit`]. The headers are not changed then.
pub fn commit<T: 'static>(
    sessions: &SessionManager<T>,
    session: Session<T>,
    headers: &mut HeaderMap,
) -> crate::Result<Committed> {
    let committed = sessions.commit(session)?;
    merge_into(headers, &committed);
    Ok(committed)
}

/// Returns the response that the visitor gets.
fn complete<T: 'static, B: From<Vec<u8>>>(
    sessions: &SessionManager<T>,
    request: &impl RequestHead,
    result: Result<(Response<B>, Committed), Failure>,
) -> Response<B> {
    let settled = result.and_then(|(response, committed)| {
        let status = response.status().as_u16();
        adapter::reject_lost(response, status, committed, || line(request))
    });
    settled.unwrap_or_else(|failure| error_response(sessions, &failure))
}

fn line(request: &impl RequestHead) -> RequestLine<'_> {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    RequestLine { method: request.method().as_str(), target: target(request), accept }
}

/// Returns the path and the query. Some servers put scheme and host in front of them.
fn target(request: &impl RequestHead) -> &str {
    request.uri().path_and_query().map_or("", |target| target.as_str())
}

fn check_cross_origin<T: 'static>(sessions: &SessionManager<T>, request: &impl RequestHead) -> crate::Result<()> {
    let headers = request.headers();
    // HTTP/2 has the host in the address instead of a header.
    let host = request.uri().authority().filter(|_| !headers.contains_key(HOST)).map(|host| host.as_str().as_bytes());
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let all = all.chain(host.map(|host| (HOST.as_str(), host)));
    sessions.check_cross_origin(request.method().as_str(), target(request), all)
}

/// Returns the cookies of all `Cookie` headers, without those that are not UTF-8.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    all.filter_map(|cookie| from_utf8(cookie).ok())
}

/// Puts the session's headers onto those of a response.
fn merge_into(headers: &mut HeaderMap, committed: &Committed) {
    let changes = committed.header_changes(|| texts(headers));
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| changes.drops(name.as_str())).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    for (name, value) in changes.added {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("the names are tokens");
        // `Vary` may repeat bytes of the handler that are not ASCII.
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("the values come from valid headers"));
    }
}

/// Returns the headers as text. If a value is not UTF-8, it reads as the value that keeps the response out of shared caches.
fn texts(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|(name, value)| {
        let instead = match name {
            name if name == VARY => "*",
            // With a cookie, `public` is replaced by `no-store`.
            name if name == CACHE_CONTROL => "public",
            _ => "",
        };
        (name.as_str(), from_utf8(value.as_bytes()).unwrap_or(instead))
    })
}

/// Logs a failure with method and path, and returns the response to it: that of
/// [`SessionManagerBuilder::error_page`](crate::SessionManagerBuilder::error_page), or a line of text.
///
/// The status is [`Failure::status`] unless the page has another one. The session's headers are on the response. A header of the
/// page whose name or value HTTP does not allow is left out.
pub fn error_response<T: 'static, B: From<Vec<u8>>>(sessions: &SessionManager<T>, failure: &Failure) -> Response<B> {
    let mut response = response(sessions.error_pages().respond(failure));
    if let Some(committed) = failure.committed() {
        merge_into(response.headers_mut(), committed);
    }
    response
}

/// Logs an error of this crate, and returns a line of text as the response. It is an alternative to a handler that returns the
/// error.
///
/// The status is 503 with `Retry-After` if the error is [temporary](crate::ErrorKind::is_temporary), 409 after a
/// [conflict](crate::ErrorKind::Conflict), 403 for a request from [another origin](crate::ErrorKind::CrossOrigin), and otherwise
/// 500. The response does not show the cause. The changes of the handler are still committed; to drop them, return the error.
pub fn failure<B: From<Vec<u8>>>(error: &Error) -> Response<B> {
    response(adapter::error_response(error))
}

fn response<B: From<Vec<u8>>>(error: ErrorResponse) -> Response<B> {
    let mut response = Response::new(error.body.into());
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &error.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
