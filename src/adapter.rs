//! The work that the adapters of all frameworks share: open the session, then commit it, or drop its changes after an error.
//!
//! The modules [`rouille`] and [`tiny_http`] use it, and are public as `threaded_sessions::rouille` and `::tiny_http`.
//! Invariant: after an error nothing more is stored, and a request has its session open at most once.

#[cfg(feature = "clap")]
mod accept;
mod error_page;
mod failures;
mod handler;
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

/// The reason for which a route opens the session.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Any,
    /// To sign a visitor in: a session that cannot be decoded is replaced.
    SignIn,
    /// To look at it: opening it is no use.
    Peek,
    /// To serve a client that sends a bearer token instead of a cookie.
    Bearer,
}

/// A session while the handler of its request runs.
pub(crate) struct Open<'m, T> {
    sessions: &'m SessionManager<T>,
    pub(crate) session: Session<T>,
    _nesting: OpenSession,
}

/// The parts of a request that decide whether its session may be opened, and which one it is.
pub(crate) struct Head<'r> {
    pub(crate) method: &'r str,
    /// The target of the request line, undecoded.
    pub(crate) target: &'r str,
    pub(crate) identity: RequestIdentity,
}

/// Opens the session that the cookies in the request headers name, or the token, unless the request comes from another origin. A
/// browser sends no token on behalf of another origin.
pub(crate) fn open<'m, 'h, T: Default + 'static>(
    sessions: &'m SessionManager<T>,
    purpose: Purpose,
    request: Head<'_>,
    headers: impl Iterator<Item = (&'h str, &'h str)> + Clone,
) -> Result<Open<'m, T>> {
    if !matches!(purpose, Purpose::Bearer) {
        sessions.check_cross_origin(request.method, request.target, headers.clone())?;
    }
    let nesting = OpenSession::enter(sessions.identity(), request.identity)?;
    let session = match purpose {
        Purpose::Any => sessions.open(cookies(headers))?,
        Purpose::SignIn => sessions.open_for_sign_in(cookies(headers))?,
        Purpose::Peek => sessions.peek(cookies(headers))?,
        Purpose::Bearer => sessions.open_bearer(values(headers, "Authorization"))?,
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

/// Returns `true` if a response reports a success although the change was lost, or belongs to a request with an old token.
pub(crate) fn is_success_lost(status: u16, committed: &Committed) -> bool {
    // A client with an old token must not take a 401 for the end of its session.
    let has_old_token = committed.carrier() == Carrier::Bearer && committed.outcome() == Outcome::Detached;
    committed.outcome().is_lost() && (status < 400 || has_old_token)
}

/// The error of a handler or of a commit, and the headers for the error page.
pub(crate) struct Ended {
    pub(crate) error: BoxError,
    pub(crate) committed: Option<Committed>,
}

/// Returns the values of the `Cookie` headers.
pub(crate) fn cookies<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> impl Iterator<Item = &'h str> {
    values(headers, "Cookie")
}

fn values<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    wanted: &'static str,
) -> impl Iterator<Item = &'h str> {
    headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}
