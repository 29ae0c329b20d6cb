//! Sessions for [rouille](https://docs.rs/rouille) handlers.

use ::rouille::{Request, Response};

use crate::{Committed, Error, ErrorKind, Result, Session, SessionManager};

/// Runs a handler with the session of the request, and puts the session's headers onto its response.
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

/// The same for those who want to decide themselves.
pub fn try_session<T: Default + 'static>(
    sessions: &SessionManager<T>,
    request: &Request,
    handler: impl FnOnce(&mut Session<T>) -> Response,
) -> Result<(Response, Committed)> {
    let cookies = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Cookie"));
    let mut session = sessions.open(cookies.map(|(_, value)| value))?;
    let mut response = handler(&mut session);
    let committed = sessions.commit(session)?;
    for (name, value) in committed.headers() {
        let set_by_handler = || response.headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name));
        if *name == "Set-Cookie" || !set_by_handler() {
            response.headers.push(((*name).into(), value.clone().into()));
        }
    }
    Ok((response, committed))
}

/// The response to a request whose session could not be opened or committed.
pub fn failure(error: &Error) -> Response {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    log::error!("{error}{cause}");
    match error.kind() {
        ErrorKind::Conflict => Response::text("The session was changed meanwhile.").with_status_code(409),
        kind if kind.is_temporary() => Response::text("Sessions are unavailable, please try again in a moment.")
            .with_status_code(503)
            .with_unique_header("Retry-After", "1"),
        _ => Response::text("The session cannot be used.").with_status_code(500),
    }
}
