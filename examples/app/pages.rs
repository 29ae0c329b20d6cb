//! The pages. Texts of visitors are escaped in them.

use rouille::Response;
use threaded_sessions::{BoundSession, ErrorKind, ErrorPage, Failure, Session};

use super::Visit;

pub(crate) fn home(user: Option<&str>, message: &str, items: &[String]) -> Response {
    let account = match user {
        Some(user) => format!("<a href=/account>{}</a> {}", escape(user), form("/logout", "", "Sign out")),
        None => "<a href=/login>Sign in</a>".to_owned(),
    };
    let items: String = items.iter().map(|item| format!("<li>{}", escape(item))).collect();
    let form = form("/items", "<input name=item required>", "Add");
    page(message, &format!("{account}<ul>{items}</ul>{form}"))
}

pub(crate) fn login(message: &str) -> Response {
    let fields = "<input name=user> <input name=password type=password> \
        <label><input name=stay type=checkbox>Stay signed in</label>";
    page(message, &form("/login", fields, "Sign in"))
}

pub(crate) fn account(visit: &Session<Visit>, devices: &[BoundSession]) -> Response {
    let device = |device: &BoundSession| {
        let end = format!("<input type=hidden name=device value={}>", device.handle);
        let end = if device.is(visit) { "(this device)".to_owned() } else { form("/account/end", &end, "Sign out") };
        format!("<li>{} {end}", escape(&device.label))
    };
    page("", &format!("<ul>{}</ul>", devices.iter().map(device).collect::<String>()))
}

pub(crate) fn admin(sessions: u64) -> Response {
    page("", &format!("<p>{sessions} sessions</p>{}", form("/admin/end", "<input name=user>", "Sign out everywhere")))
}

/// Makes the response to every request that failed.
pub(crate) fn error(failure: &Failure) -> ErrorPage {
    if failure.wants_json() {
        return ErrorPage::json(format!(r#"{{"error": {}}}"#, failure.status()));
    }
    ErrorPage::html(match (failure.kind(), failure.status()) {
        (Some(ErrorKind::Payload), _) => "<form method=post action=/start-over><button>Start over</button></form>",
        (_, 503) => "<p>Please try again in a moment.",
        (_, 403) => "<p>This form belongs to another site.",
        (_, 409) => "<p>You were signed out, or your list changed. Please try again.",
        _ => "<p>Sorry, this did not work.",
    })
}

fn form(action: &str, fields: &str, label: &str) -> String {
    format!("<form method=post action={action}>{fields} <button>{label}</button></form>")
}

fn page(message: &str, body: &str) -> Response {
    let policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'";
    let html = format!("<!doctype html><title>To do</title><h1>To do</h1><p>{}</p>{body}", escape(message));
    Response::html(html).with_additional_header("Content-Security-Policy", policy)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
