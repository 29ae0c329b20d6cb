//! The work that the adapters of all frameworks share: open the session, add its headers, turn an error into a response.
//!
//! The modules [`rouille`] and [`tiny_http`] use it, and are public as `threaded_sessions::rouille` and `::tiny_http`.
//! Invariant: a response never shows the cause of an error, and a header that the handler set is never replaced.

#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny-http")]
pub mod tiny_http;

use std::borrow::Cow;

use crate::{Committed, Error, ErrorKind, Result, Session, SessionManager};

/// Opens the session that the cookies in the request headers name.
pub(crate) fn open<'h, T: Default + 'static>(
    sessions: &SessionManager<T>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
) -> Result<Session<T>> {
    sessions.open(headers.filter(|(name, _)| name.eq_ignore_ascii_case("Cookie")).map(|(_, value)| value))
}

/// Returns the session's headers for a response. `set` names the headers that the response already has; except for
/// `Set-Cookie`, those stay as they are.
pub(crate) fn headers<'a>(
    committed: &Committed,
    set: impl Iterator<Item = &'a str>,
) -> Vec<(&'static str, Cow<'static, str>)> {
    let mut headers = committed.headers.clone();
    set.for_each(|set| headers.retain(|(name, _)| *name == "Set-Cookie" || !name.eq_ignore_ascii_case(set)));
    headers
}

/// The response to a request whose session could not be opened or committed.
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    pub(crate) text: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// Logs an error and returns the response to it.
pub(crate) fn error_response(error: &Error) -> ErrorResponse {
    let level = if error.kind() == ErrorKind::CrossOrigin { log::Level::Warn } else { log::Level::Error };
    log::log!(level, "{error:#}");
    let (status, text) = match error.kind() {
        ErrorKind::CrossOrigin => (403, "Requests from other sites are not accepted here."),
        ErrorKind::Conflict => (409, "The session was changed meanwhile."),
        kind if kind.is_temporary() => (503, "Sessions are unavailable, please try again in a moment."),
        _ => (500, "The session cannot be used."),
    };
    ErrorResponse { status, text, headers: if status == 503 { &[("Retry-After", "1")] } else { &[] } }
}
