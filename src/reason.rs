//! The texts that errors of codecs, migrations and steps may show.
//!
//! Codecs and steps call [`shown`] on every error that code of the application returns to them. The invariant: the crate shows only
//! static texts and texts that it wrote itself, because any other text can quote a session.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::{BoxError, Error};

/// A text that errors and logs may show, because it holds nothing of a session.
///
/// A [codec](crate::Codec), a [format](crate::codec::Format), a [migration](crate::codec::SerdeCodec::migrate) and
/// a [step](crate::Step) see the values of sessions, and the text of an error can quote them: serde's errors do. So no `Display`,
/// no `Debug`, no `source()` and no log record holds the text of an error that such code returns. Each has a text like *the
/// migration failed* instead.
///
/// To show a text, return a `Reason`. It takes a `&'static str` only, which cannot hold a value of a session. Any other error stays
/// within reach of your program by [`Error::downcast_ref`].
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use threaded_sessions::codec::Envelope;
/// use threaded_sessions::{Codec, Json, Reason};
///
/// #[derive(Deserialize, Serialize)]
/// struct Before { names: Vec<String> }
///
/// #[derive(Debug, Deserialize, Serialize)]
/// struct Now { name: String }
///
/// let codec = Json::<Now>::new().migrate(|mut old: Before| match old.names.pop() {
///     Some(name) => Ok(Now { name }),
///     None => Err(Reason::new("a visitor without a name").into()),
/// });
/// let old = Json::<Before>::new().encode(&Envelope::new(&Before { names: vec![] }))?;
/// assert_eq!(codec.decode(&old).unwrap_err().to_string(), "a visitor without a name");
/// # Ok::<_, threaded_sessions::BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Cow<'static, str>);

impl Reason {
    /// Creates a reason with this text.
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A reason of the crate, which may hold names of fields and types, lengths and positions, but no value.
    pub(crate) fn computed(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Reason {}

/// An error of the application, with another text.
struct Withheld {
    text: Cow<'static, str>,
    error: BoxError,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Withheld({:?})", self.text)
    }
}

/// It has no source, because that would show its text.
impl StdError for Withheld {}

/// Returns an error that may be shown: `error` if it holds no text of the application, or else one with this text.
pub(crate) fn shown(error: BoxError, text: impl Into<Cow<'static, str>>) -> BoxError {
    if error.is::<Reason>() || error.is::<Withheld>() {
        return error;
    }
    match error.downcast::<Error>() {
        Ok(error) => Box::new(error.fenced(text)),
        Err(error) => Box::new(Withheld { text: text.into(), error }),
    }
}

/// Returns the error of the application that an error was made of, if it has this type.
pub(crate) fn withheld<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    match error.downcast_ref::<Withheld>() {
        Some(withheld) => withheld.error.downcast_ref(),
        None => error.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::iter;

    use super::*;
    use crate::ErrorKind;

    fn texts(error: &BoxError) -> String {
        let chain = iter::successors(Some(&**error as &(dyn StdError + 'static)), |&error| error.source());
        chain.map(|error| format!("{error} {error:?}")).collect()
    }

    #[test]
    fn foreign_error_shows_another_text() {
        let secret = || io::Error::other("secret");
        let nested = Error::new(ErrorKind::Other, "compressing").with_source(secret());
        for error in [BoxError::from(secret()), "secret".into(), Box::new(nested)] {
            let error = shown(error, "the codec failed");
            assert!(!texts(&error).contains("secret"), "{error:?}");
            assert!(texts(&error).contains("the codec failed"), "{error:?}");
        }
    }

    #[test]
    fn reason_is_shown_as_it_is() {
        let error = shown(Reason::new("too large").into(), "the codec failed");
        assert_eq!(error.to_string(), "too large");
        let again = shown(shown("secret".into(), "the migration failed"), "the codec failed");
        assert_eq!(again.to_string(), "the migration failed");
    }

    #[test]
    fn vouched_error_keeps_its_source() {
        let store = Error::new(ErrorKind::Unavailable, "reading").with_source("connection refused").vouched();
        assert!(texts(&shown(Box::new(store), "a step failed")).contains("connection refused"));
    }
}
