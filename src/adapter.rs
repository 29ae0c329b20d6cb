//! The work that the adapters of all frameworks share: open the session, commit it, turn an error into a response.
//!
//! The modules [`rouille`] and [`tiny_http`] use it, and are public as `threaded_sessions::rouille` and `::tiny_http`.
//! Invariant: a response never shows the cause of an error, and a request has its session open at most once.

#[cfg(feature = "clap")]
mod accept;
mod failures;
mod nesting;
#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny-http")]
pub mod tiny_http;

#[cfg(feature = "rouille")]
pub(crate) use self::nesting::CopyIdentity;
use self::nesting::OpenSession;
pub(crate) use self::nesting::RequestIdentity;
use crate::{Committed, Error, ErrorKind, Result, Session, SessionManager};

/// What a route opens the session for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Any,
    /// To sign a visitor in: a session that cannot be decoded is replaced.
    SignIn,
}

/// A session while the handler of its request runs.
pub(crate) struct Open<'m, T> {
    sessions: &'m SessionManager<T>,
    pub(crate) session: Session<T>,
    _nesting: OpenSession,
}

/// Opens the session that the cookies in the request headers name.
pub(crate) fn open<'m, 'h, T: Default + 'static>(
    sessions: &'m SessionManager<T>,
    purpose: Purpose,
    request: RequestIdentity,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
) -> Result<Open<'m, T>> {
    let nesting = OpenSession::enter(sessions.identity(), request)?;
    let cookies = cookies(headers);
    let session = match purpose {
        Purpose::Any => sessions.open(cookies)?,
        Purpose::SignIn => sessions.open_for_sign_in(cookies)?,
    };
    Ok(Open { sessions, session, _nesting: nesting })
}

impl<T: 'static> Open<'_, T> {
    /// Commits the session, after its handler has returned.
    pub(crate) fn commit(self) -> Result<Committed> {
        let committed = self.sessions.commit(self.session)?;
        failures::succeeded();
        Ok(committed)
    }
}

/// Returns the values of the `Cookie` headers.
pub(crate) fn cookies<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>) -> impl Iterator<Item = &'h str> {
    headers.filter(|(name, _)| name.eq_ignore_ascii_case("Cookie")).map(|(_, value)| value)
}

/// The response to a request whose session could not be opened or committed.
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    pub(crate) text: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
const RETRY_AFTER: (&str, &str) = ("Retry-After", "1");

/// Logs an error and returns the response to it.
pub(crate) fn error_response(error: &Error) -> ErrorResponse {
    failures::failed(error);
    let (status, text) = match error.kind() {
        ErrorKind::CrossOrigin => (403, "Requests from other sites are not accepted here."),
        ErrorKind::Conflict => (409, "The session was changed meanwhile."),
        kind if kind.is_temporary() => (503, "Sessions are unavailable, please try again in a moment."),
        _ => (500, "The session cannot be used."),
    };
    ErrorResponse { status, text, headers: if status == 503 { &[NO_STORE, RETRY_AFTER] } else { &[NO_STORE] } }
}
