//! Failed requests, and the pages that the application makes for them.
//!
//! The adapters make a [`Failure`] of every request that fails, and respond to it with an [`ErrorPage`]. Invariant: a default
//! page never shows the cause, no cache may store a page, and a panic of the application's functions costs only their result.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, iter};

use super::failures;
use crate::manager::headers::permits_shared_caches;
use crate::{BoxError, Committed, Error, ErrorKind, Outcome, error, fence, operation};

/// A request that failed, with its error, its status and what the error page needs to know about it.
///
/// [`SessionManagerBuilder::error_page`](crate::SessionManagerBuilder::error_page) gets it, and the functions `try_session` of
/// the adapters return it.
pub struct Failure(Box<Parts>);

struct Parts {
    error: BoxError,
    is_lost: bool,
    committed: Option<Committed>,
    method: String,
    path: String,
    wants_json: bool,
}

/// The parts of a request that a [`Failure`] needs.
pub(crate) struct RequestLine<'r> {
    pub(crate) method: &'r str,
    /// The target of the request line, undecoded.
    pub(crate) target: &'r str,
    pub(crate) accept: Option<&'r str>,
}

impl Failure {
    pub(crate) fn new(request: &RequestLine<'_>, error: impl Into<BoxError>) -> Self {
        let path = request.target.split(['?', '#']).next().unwrap_or_default();
        Self(Box::new(Parts {
            error: error.into(),
            is_lost: false,
            committed: None,
            method: request.method.to_owned(),
            path: path.to_owned(),
            wants_json: request.accept.is_some_and(prefers_json),
        }))
    }

    /// The failure of a request whose change was lost.
    pub(crate) fn lost(request: &RequestLine<'_>, committed: Committed) -> Self {
        let why = match committed.outcome() {
            Outcome::Refused => {
                "the principal has as many sessions as `max_per_principal` allows, so the change was dropped"
            }
            _ => "another request ended or renewed the session, so the change was dropped",
        };
        let mut failure = Self::new(request, Error::new(ErrorKind::Conflict, operation::SAVE).with_source(why));
        failure.0.is_lost = true;
        failure.with_committed(Some(committed))
    }

    pub(crate) fn with_committed(mut self, committed: Option<Committed>) -> Self {
        self.0.committed = committed;
        self
    }

    /// Returns the error of the handler, or the [`Error`] of opening or committing the session.
    ///
    /// Do not show its text to visitors.
    pub fn error(&self) -> &(dyn StdError + 'static) {
        &*self.0.error
    }

    /// Returns the kind of the first [`Error`] of this crate among the error and its causes; `None` if there is none.
    pub fn kind(&self) -> Option<ErrorKind> {
        causes(self.error()).find_map(|cause| cause.downcast_ref::<Error>()).map(Error::kind)
    }

    /// Returns the status of the default response.
    ///
    /// It is 403, 409 or 503 for a [kind](Self::kind) that a visitor can act on, and 500 for other kinds and for an error of the
    /// application.
    pub fn status(&self) -> u16 {
        self.kind().map_or(500, status)
    }

    /// Returns `true` if the handler succeeded and its change was lost ([`Outcome::is_lost`](crate::Outcome::is_lost)).
    pub fn is_lost(&self) -> bool {
        self.0.is_lost
    }

    /// Returns the outcome for the session, with headers for the response; `None` if the session was not opened.
    ///
    /// After an error, the outcome is [`Unchanged`](crate::Outcome::Unchanged), because the pending changes were dropped. The
    /// headers have the cookie of a session that [`update_in`](crate::SessionManager::update_in) stored. The adapters put them
    /// onto their responses.
    pub fn committed(&self) -> Option<&Committed> {
        self.0.committed.as_ref()
    }

    /// Returns the method of the request.
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// Returns the path of the request, undecoded and without the query.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Returns `true` if the first media type of `Accept` that is HTML or JSON is JSON.
    pub fn wants_json(&self) -> bool {
        self.0.wants_json
    }

    fn default_page(&self) -> ErrorPage {
        match self.committed().map(Committed::outcome) {
            Some(Outcome::Refused) => {
                ErrorPage::text("This account has too many sessions. Please sign out on another device.")
            }
            _ => default_page(self.kind()),
        }
    }

    /// Returns the error and its causes as one line of the log.
    fn chain(&self) -> String {
        let mut text = String::new();
        for cause in causes(self.error()) {
            let own = cause.downcast_ref::<Error>();
            // An error of this crate writes its causes itself.
            let next = own.map_or_else(|| cause.to_string(), |error| format!("{error:#}"));
            if text.is_empty() {
                text = next;
            } else if !text.ends_with(&next) {
                text = format!("{text}: {next}");
            }
            if own.is_some() {
                break;
            }
        }
        error::one_line(&text)
    }
}

/// Shows neither the path nor the text of the error.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("status", &self.status())
            .field("kind", &self.kind())
            .field("is_lost", &self.is_lost())
            .field("method", &self.method())
            .finish_non_exhaustive()
    }
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

fn status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::CrossOrigin => 403,
        ErrorKind::Conflict => 409,
        kind if kind.is_temporary() => 503,
        _ => 500,
    }
}

/// Returns `true` if the first media type that is HTML or JSON is JSON.
fn prefers_json(accept: &str) -> bool {
    let types = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let mut known = types.filter(|name| name.contains("html") || name.contains("json"));
    known.next().is_some_and(|name| name.contains("json"))
}

/// The response to a failed request, for any framework.
///
/// # Examples
///
/// ```
/// use threaded_sessions::ErrorPage;
///
/// let page = ErrorPage::html("<h1>Sorry</h1>").with_header("Content-Security-Policy", "default-src 'none'");
/// let gone = ErrorPage::json(r#"{"error": "gone"}"#).with_status(410);
/// # let _ = (page, gone);
/// ```
#[derive(Clone)]
#[must_use]
pub struct ErrorPage {
    status: Option<u16>,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Vec<u8>,
}

impl ErrorPage {
    /// Creates a page with this content type and body.
    pub fn new(content_type: impl Into<Cow<'static, str>>, body: impl Into<Vec<u8>>) -> Self {
        Self { status: None, headers: Vec::new(), body: body.into() }.with_header("Content-Type", content_type)
    }

    /// Creates a page of HTML.
    pub fn html(body: impl Into<Vec<u8>>) -> Self {
        Self::new("text/html; charset=utf-8", body)
    }

    /// Creates a page of JSON.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::new("application/json", body)
    }

    /// Creates a page of plain text.
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::new("text/plain; charset=utf-8", body)
    }

    /// Sets the status. Defaults to [`Failure::status`].
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Adds a header.
    ///
    /// A header that has other characters than visible ASCII and spaces is left out. `Cache-Control`, and `Retry-After` of a page
    /// with status 503, are set by the adapter and cannot be changed. Headers that let a CDN store the page, such as
    /// `CDN-Cache-Control`, are left out.
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Shows no body, because the application wrote it for one visitor.
impl fmt::Debug for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorPage").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A response to a failed request, as an adapter sends it.
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(crate) body: Vec<u8>,
}

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

impl ErrorResponse {
    /// The response to a failure with this status.
    fn new(failure_status: u16, mut page: ErrorPage) -> Self {
        let status = page.status.unwrap_or(failure_status);
        let mut own = vec![NO_STORE];
        if [status, failure_status].contains(&503) {
            own.push(RETRY_AFTER);
        }
        let is_own = |name: &str| own.iter().any(|(own, _)| name.eq_ignore_ascii_case(own));
        page.headers.retain(|(name, value)| is_valid(name, value) && !is_own(name) && !permits_shared_caches(name));
        page.headers.extend(own.into_iter().map(|(name, value)| (name.into(), value.into())));
        Self { status, headers: page.headers, body: page.body }
    }
}

fn is_valid(name: &str, value: &str) -> bool {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    is_name && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn default_page(kind: Option<ErrorKind>) -> ErrorPage {
    ErrorPage::text(match kind {
        Some(ErrorKind::CrossOrigin) => "Requests from other sites are not accepted here.",
        Some(ErrorKind::Conflict) => "Another request changed the session. Please try again.",
        Some(kind) if kind.is_temporary() => "Sessions are unavailable, please try again in a moment.",
        Some(_) => "The session cannot be used.",
        None => "Something went wrong.",
    })
}

/// Logs an error of a request that is not known, and returns the response to it.
pub(crate) fn error_response(error: &Error) -> ErrorResponse {
    failures::failed(Some(error.kind()), "a request", &format!("{error:#}"));
    ErrorResponse::new(status(error.kind()), default_page(Some(error.kind())))
}

type MakePage = dyn Fn(&Failure) -> ErrorPage + Send + Sync;
type NameRoute = dyn Fn(&str) -> String + Send + Sync;

/// The functions of the application for failed requests.
#[derive(Clone, Default)]
pub(crate) struct ErrorPages {
    pub(crate) page: Option<Arc<MakePage>>,
    pub(crate) route_name: Option<Arc<NameRoute>>,
}

impl ErrorPages {
    /// Logs a failure, and returns the response to it.
    pub(crate) fn respond(&self, failure: &Failure) -> ErrorResponse {
        let subject = format!("{} {}", failure.method(), self.route(failure.path()));
        let (subject, chain) = (error::one_line(&subject), failure.chain());
        match failure.is_lost() {
            true => fence::log!(Warn, "{subject} failed: {chain}"),
            false => failures::failed(failure.kind(), &subject, &chain),
        }
        let page = self.page.as_ref().and_then(|make| fence::call(|| make(failure)));
        ErrorResponse::new(failure.status(), page.unwrap_or_else(|| failure.default_page()))
    }

    /// Returns what the log shows of a path.
    fn route<'p>(&self, path: &'p str) -> Cow<'p, str> {
        match &self.route_name {
            Some(name) => fence::call(|| name(path)).unwrap_or_else(|| "?".into()).into(),
            None => path.into(),
        }
    }
}
