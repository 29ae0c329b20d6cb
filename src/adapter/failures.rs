//! The log of the adapters about requests that fail.
//!
//! [`error_page`](super::error_page) reports each failure here. Invariant: a failure that many requests meet logs at most one line
//! in ten seconds, and every other failure is logged once.

use crate::throttle::Throttle;
use crate::{ErrorKind, fence};

/// The requests that fail for a temporary reason. In an outage, these are all.
static OUTAGES: Throttle = Throttle::new();

/// The requests whose sessions cannot be decoded. After a mistake in a deploy, these are many.
static UNREADABLE: Throttle = Throttle::new();

/// Logs that a request failed. `subject` names the request, and `cause` the error. An error of the application has no kind.
pub(super) fn failed(kind: Option<ErrorKind>, subject: &str, cause: &str) {
    let error = kind.map_or("application", ErrorKind::name);
    match kind {
        Some(kind) if kind.is_temporary() => {
            fence::log!(Debug, error = error; "{subject} failed: {cause}");
            if let Some(count) = OUTAGES.count() {
                let failed = requests_failed(count, "warning");
                fence::log!(Warn, requests = count, error = error; "{failed}; {subject} failed: {cause}");
            }
        }
        Some(ErrorKind::Payload) => {
            fence::log!(Debug, error = error; "{subject} failed: {cause}");
            if let Some(count) = UNREADABLE.count() {
                let others = if count > 1 { requests_failed(count, "such error") + "; " } else { String::new() };
                fence::log!(Error, requests = count, error = error; "{others}{subject} failed: {cause}");
            }
        }
        Some(ErrorKind::CrossOrigin) => fence::log!(Warn, error = error; "{subject} failed: {cause}"),
        _ => fence::log!(Error, error = error; "{subject} failed: {cause}"),
    }
}

/// Logs the failures that no line has counted yet, if there are any. Costs a healthy request one look at two counters.
pub(super) fn succeeded() {
    if let Some(count) = OUTAGES.rest() {
        fence::log!(Warn, requests = count; "{}, and requests succeed again", requests_failed(count, "warning"));
    }
    if let Some(count) = UNREADABLE.rest() {
        let failed = requests_failed(count, "such error");
        fence::log!(Error, requests = count; "{failed}, because their sessions cannot be read");
    }
}

fn requests_failed(count: u64, since: &str) -> String {
    let requests = if count == 1 { "request" } else { "requests" };
    format!("{count} {requests} failed since the last {since}")
}
