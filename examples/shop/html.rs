//! Small pieces of HTML: escaped text, forms, links, times and prices.
//!
//! All pages and the panel use it. Invariant: text of a visitor reaches a page through [`escape`] only.

use std::time::{Duration, SystemTime};

use threaded_sessions::Handle;

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A form. `token` is that of the session, so that no other site can send it.
pub(crate) fn form(token: &str, action: &str, fields: &str) -> String {
    format!("<form method=post action=\"{action}\"><input type=hidden name=token value=\"{token}\">{fields}</form>")
}

/// An entry of the navigation.
pub(crate) fn entry(to: &str, text: &str, here: &str) -> String {
    let current = if to == here { " aria-current=page" } else { "" };
    format!("<li><a href=\"{to}\"{current}>{text}</a>")
}

pub(crate) fn euros(cents: u32) -> String {
    format!("€ {}.{:02}", cents / 100, cents % 100)
}

pub(crate) fn ago(time: SystemTime) -> String {
    match time.elapsed().unwrap_or_default().as_secs() / 60 {
        0 => "Just now".to_owned(),
        1 => "A minute ago".to_owned(),
        minutes @ 2..120 => format!("{minutes} minutes ago"),
        minutes @ 120..2880 => format!("{} hours ago", minutes / 60),
        minutes => format!("{} days ago", minutes / 1440),
    }
}

/// The time until something ends, which the script shows as it runs down.
pub(crate) fn timer(left: Duration) -> String {
    let words = match left.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    format!("<span role=timer data-ms={}>{words}</span>", left.as_millis())
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// The start of a handle, which is enough to recognise it.
pub(crate) fn short(handle: Handle) -> String {
    handle.to_string()[..8].to_owned()
}
