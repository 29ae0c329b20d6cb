//! The parsers of single flag values.
//!
//! [`args`](super::args) and [`redis`](super::redis) use them. Invariant: a value that no setting accepts fails here, so that the
//! parser of the program rejects it, names the flag and exits with 2.

use std::error::Error as _;
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error as UsageError};
use humantime::parse_duration;

use crate::cookie::SessionCookie;
use crate::cross_origin::CrossOriginProtection;
use crate::store::redis::{check_deadline, check_url};
use crate::{Error, OnCap, SameSite, operation};

const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(feature = "cli")]
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// A time, or `None` for `never`. It is a type, because clap reads a bare `Option` as a flag that may be missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub(super) Option<Duration>);

pub(super) fn limit(text: &str) -> Result<Limit, String> {
    if text == "never" {
        return Ok(Limit(None));
    }
    let rule = |why: String| format!("{why}, or `never`");
    bounded(text).map(|time| Limit(Some(time))).map_err(rule)
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    match text {
        "never" => Err("this time cannot be `never`".to_owned()),
        _ => bounded(text),
    }
}

pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = time(text)?;
    check_deadline(deadline).map(|()| deadline).map_err(reason)
}

fn bounded(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|_| "a time is a number with a unit, such as 250ms, 30m, 12h or 7d")?;
    // No other unit has an `M`.
    if text.contains('M') {
        return Err("`M` would be months: write `m` for minutes, or `d` for days".to_owned());
    }
    if time < SHORTEST { Err("a time must be at least 1ms".to_owned()) } else { Ok(time) }
}

/// A time between two samples. A longer one than an hour is a mistake, and the sum of a very long one and the clock overflows.
#[cfg(feature = "cli")]
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = time(text)?;
    if interval > LONGEST_INTERVAL { Err("the interval must be at most 1h".to_owned()) } else { Ok(interval) }
}

#[cfg(feature = "cli")]
pub(super) fn handle_prefix(text: &str) -> Result<crate::HandlePrefix, String> {
    let rule = "a handle has 64 digits from 0 to f, of which you give 8 or more; `list` shows the handles";
    text.parse().map_err(|_| rule.to_owned())
}

pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let cookie = SessionCookie { name: Some(text.to_owned()), ..SessionCookie::default() };
    cookie.validate().map(|_| text.to_owned()).map_err(reason)
}

pub(super) fn cookie_domain(text: &str) -> Result<String, String> {
    let cookie = SessionCookie { domain: Some(text.to_owned()), ..SessionCookie::default() };
    cookie.validate().map(|_| text.to_owned()).map_err(reason)
}

pub(super) fn same_site() -> impl TypedValueParser<Value = SameSite> {
    PossibleValuesParser::new(["strict", "lax", "none"]).map(|name| match &*name.to_ascii_lowercase() {
        "strict" => SameSite::Strict,
        "none" => SameSite::None,
        _ => SameSite::Lax,
    })
}

pub(super) fn on_cap() -> impl TypedValueParser<Value = OnCap> {
    PossibleValuesParser::new(["end-oldest", "refuse"]).map(|name| match &*name.to_ascii_lowercase() {
        "refuse" => OnCap::Refuse,
        _ => OnCap::EndOldest,
    })
}

/// A text that may hold a password, or may not be UTF-8. The error for an invalid text names the flag and does not show the text. The
/// error of clap would show a password, and would not name the flag of a text that is not UTF-8.
#[derive(Clone)]
pub(super) struct Checked(fn(&str) -> Result<(), Error>);

impl Checked {
    pub(super) fn redis_url() -> Self {
        Self(check_url)
    }

    pub(super) fn prefix() -> Self {
        Self(|text| match text {
            "" => Err(Error::misconfigured(operation::BUILD_STORE, "the prefix is empty")),
            _ => Ok(()),
        })
    }

    /// One origin, or several with commas between them. A value with an `@` is not split, because the comma may be a part of a
    /// password.
    pub(super) fn origins() -> Self {
        Self(|text| {
            let mut protection = CrossOriginProtection::default();
            match text.contains('@') {
                true => protection.trust(text),
                false => text.split(',').for_each(|origin| protection.trust(origin)),
            }
            protection.validate()
        })
    }
}

impl TypedValueParser for Checked {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, UsageError> {
        let parsed = value.to_str().ok_or_else(|| "the text is not UTF-8".to_owned());
        let checked = parsed.and_then(|text| self.0(text).map(|()| text.to_owned()).map_err(reason));
        checked.map_err(|why| {
            let arg = arg.map(ToString::to_string).unwrap_or_default();
            let text = format!("invalid value for '{arg}': {why}");
            UsageError::raw(ErrorKind::ValueValidation, text).format(&mut command.clone())
        })
    }
}

/// The rule that a value breaks, without the operation that checks it.
fn reason(error: Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}
