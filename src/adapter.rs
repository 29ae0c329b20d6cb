//! What all adapters do, whatever the framework.

#[cfg(feature = "rouille")]
pub mod rouille;
#[cfg(feature = "tiny-http")]
pub mod tiny_http;

use std::borrow::Cow;

use crate::{Committed, Error, ErrorKind, Result, Session, SessionManager};

/// Opens the session of a request that has these headers.
pub(crate) fn open<'h, T: Default + 'static>(
    sessions: &SessionManager<T>,
    headers: impl Iterator<Item = (&'h str, &'h str)>,
) -> Result<Session<T>> {
    sessions.open(headers.filter(|(name, _)| name.eq_ignore_ascii_case("Cookie")).map(|(_, value)| value))
}

/// The session's headers for a response that has headers with these names: its own `Cache-Control` and `Vary` stand.
pub(crate) fn headers<'a>(
    committed: &Committed,
    set: impl Iterator<Item = &'a str>,
) -> Vec<(&'static str, Cow<'static, str>)> {
    let mut headers = committed.headers.clone();
    set.for_each(|set| headers.retain(|(name, _)| *name == "Set-Cookie" || !name.eq_ignore_ascii_case(set)));
    headers
}

/// What a visitor is told whose session could not be opened or committed.
pub(crate) struct Apology {
    pub(crate) status: u16,
    pub(crate) text: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// The apology for an error, which is logged.
pub(crate) fn apology(error: &Error) -> Apology {
    log::error!("{error:#}");
    let (status, text) = match error.kind() {
        ErrorKind::Conflict => (409, "The session was changed meanwhile."),
        kind if kind.is_temporary() => (503, "Sessions are unavailable, please try again in a moment."),
        _ => (500, "The session cannot be used."),
    };
    Apology { status, text, headers: if status == 503 { &[("Retry-After", "1")] } else { &[] } }
}
