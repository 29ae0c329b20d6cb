//! The work that the adapters of all frameworks share: open the session, then commit it, or drop its changes after an error.
//!
//! The modules [`http`], [`rouille`] and [`tiny_http`] use it, and are public as `threaded_sessions::http`, `::rouille` and
//! `::tiny_http`.
//! Invariant: after an error nothing more is stored, and a request has its session open at most once.

#[cfg(all(feature = "clap", any(feature = "rouille", feature = "tiny-http")))]
mod accept;
mod error_page;
mod failures;
mod handler;
#[cfg(feature = "http")]
pub mod http;
mod nesting;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny-http")]
pub mod tiny_http;

pub use self::error_page::{ErrorPage, Failure};
pub(crate) use self::error_page::{ErrorPages, ErrorResponse, RequestLine, error_response};
pub use self::handler::{HandlerError, HandlerResponse, HandlerResult, IntoHandlerResult};
#[cfg(feature = "rouille")]
pub(crate) use self::nesting::CopyIdentity;
use self::nesting::OpenSession;
pub(crate) use self::nesting::RequestIdentity;
use crate::bearer::Carrier;
use crate::{BoxError, Committed, Outcome, Result, Session, SessionManager, fence};

/// The way in which `try_session` of an adapter opens the session of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenMode {
    /// Opens it for use, by [`SessionManager::open`].
    Use,
    /// Opens it to sign a visitor in, by [`SessionManager::open_for_sign_in`]. A session that cannot be decoded is replaced.
    SignIn,
    /// Opens it without counting that as use, by [`SessionManager::peek`].
    Peek,
    /// Opens it as it is in Redis, past the near cache, by [`SessionManager::open_uncached`].
    Uncached,
    /// Opens that of a client which sends a bearer token instead of a cookie, by [`SessionManager::open_bearer`]. The origin of
    /// the request is not checked.
    Bearer,
}

/// A session while the handler of its request runs.
pub(crate) struct Open<'m, T> {
    sessions: &'m SessionManager<T>,
    pub(crate) session: Session<T>,
    _nesting: OpenSession,
}

/// The parts of a request that name its session, and those that decide whether it may be opened.
pub(crate) struct Incoming<O, C, A> {
    pub(crate) identity: RequestIdentity,
    /// Checks that the request comes from no other origin.
    pub(crate) check_origin: O,
    /// The values of the `Cookie` headers.
    pub(crate) cookies: C,
    /// The values of the `Authorization` headers.
    pub(crate) authorization: A,
}

/// Opens the session that the cookies of a request name, or the token, unless the request comes from another origin. A browser
/// sends no token on behalf of another origin.
pub(crate) fn open<'m, 'h, T: Default + 'static>(
    sessions: &'m SessionManager<T>,
    mode: OpenMode,
    request: Incoming<impl FnOnce() -> Result<()>, impl Iterator<Item = &'h str>, impl Iterator<Item = &'h str>>,
) -> Result<Open<'m, T>> {
    if !matches!(mode, OpenMode::Bearer) {
        (request.check_origin)()?;
    }
    let nesting = OpenSession::enter(sessions.identity(), request.identity)?;
    let session = match mode {
        OpenMode::Use => sessions.open(request.cookies)?,
        OpenMode::SignIn => sessions.open_for_sign_in(request.cookies)?,
        OpenMode::Peek => sessions.peek(request.cookies)?,
        OpenMode::Uncached => sessions.open_uncached(request.cookies)?,
        OpenMode::Bearer => sessions.open_bearer(request.authorization)?,
    };
    Ok(Open { sessions, session, _nesting: nesting })
}

impl<T: 'static> Open<'_, T> {
    /// Commits the session if its handler succeeded. Otherwise the changes that are not stored yet are dropped.
    ///
    /// # Errors
    ///
    /// Returns the error of the handler or of the commit, with the headers for the error page.
    pub(crate) fn finish<R>(mut self, result: HandlerResult<R>) -> Result<(R, Committed), Ended> {
        let committed = match result {
            Ok(response) => {
                self.sessions.commit_open(&mut self.session).map(|committed| (response, committed)).map_err(Into::into)
            }
            Err(error) => Err(error.into_inner()),
        };
        match committed {
            Ok(done) => {
                failures::succeeded();
                Ok(done)
            }
            Err(error) => Err(Ended { error, committed: self.keep_stored() }),
        }
    }

    fn keep_stored(&self) -> Option<Committed> {
        let kept = self.sessions.keep_stored(&self.session);
        kept.inspect_err(|error| fence::log!(Warn, "the cookie of a stored session was not sent: {error:#}")).ok()
    }
}

/// Returns a response, or the failure of a request whose response reports a success although the change was lost, or which came
/// with an old token.
pub(crate) fn reject_lost<'r, R>(
    response: R,
    status: u16,
    committed: Committed,
    line: impl FnOnce() -> RequestLine<'r>,
) -> Result<R, Failure> {
    // A client with an old token must not take a 401 for the end of its session.
    let has_old_token = committed.carrier() == Carrier::Bearer && committed.outcome() == Outcome::Detached;
    match committed.outcome().is_lost() && (status < 400 || has_old_token) {
        true => Err(Failure::lost(&line(), committed)),
        false => Ok(response),
    }
}

/// The error of a handler or of a commit, and the headers for the error page.
pub(crate) struct Ended {
    pub(crate) error: BoxError,
    pub(crate) committed: Option<Committed>,
}

/// Returns the values of the `Cookie` headers.
#[cfg(any(feature = "rouille", feature = "tiny-http"))]
pub(crate) fn cookies<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> impl Iterator<Item = &'h str> {
    values(headers, "Cookie")
}

/// Returns the values of the headers of this name.
#[cfg(any(feature = "rouille", feature = "tiny-http"))]
pub(crate) fn values<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    wanted: &'static str,
) -> impl Iterator<Item = &'h str> {
    headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}
