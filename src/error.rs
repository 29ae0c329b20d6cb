//! The error type of the crate, and the kinds of failure that a caller can act on.
//!
//! Every module returns it, and so do custom stores. No text of an error holds a session id, a payload, a password or a
//! principal.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::{fmt, iter};

use crate::reason;

/// A `Result` with [`Error`] as its default error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed error of any type, as codecs and steps return it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The error type of this crate.
///
/// Match on [`kind`](Self::kind) to decide how to react. [`source`](StdError::source) returns the underlying cause, if there is
/// one. `{error}` prints operation and kind, and is safe to show to a visitor. `{error:#}` adds the cause, which can name a
/// server or a setting: use it for logs. `Debug` begins with the kind. No text of an error holds a session id, a payload or a
/// password. A session that does not exist is never an error.
///
/// # Examples
///
/// ```
/// use threaded_sessions::{Error, ErrorKind};
///
/// fn status(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::Conflict => 409,
///         kind if kind.is_temporary() => 503,
///         _ => 500,
///     }
/// }
///
/// assert_eq!(status(&Error::new(ErrorKind::TimedOut, "reading a session")), 503);
/// ```
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    source: Option<BoxError>,
    /// `true` if the text of the source may be shown outside a fence, because no code that sees sessions wrote it.
    is_vouched: bool,
}

impl Error {
    /// Creates an error of this kind in an operation such as "reading a session", for custom stores.
    ///
    /// Neither `operation` nor the source may hold a secret.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Unavailable, "reading a session").with_source("the disk is full");
    /// assert_eq!(error.to_string(), "reading a session: the store is unavailable");
    /// assert_eq!(format!("{error:#}"), "reading a session: the store is unavailable: the disk is full");
    /// ```
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, source: None, is_vouched: false }
    }

    /// Sets the underlying cause. Defaults to none.
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), is_vouched: false, ..self }
    }

    /// Returns the error of this type that code of your program returned: a store, a step, a codec or a migration.
    ///
    /// The crate shows the text of an error of a step, a codec or a migration nowhere, because it can quote a session. So it is
    /// no [`source`](StdError::source), and this is the way to get at it.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::step::on_write;
    /// use threaded_sessions::{Error, ErrorKind, MemorySessionStore, SessionManager, StepStore};
    ///
    /// #[derive(Debug)]
    /// struct TooLarge(usize);
    ///
    /// impl std::fmt::Display for TooLarge {
    ///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    ///         write!(f, "{} bytes are too large", self.0)
    ///     }
    /// }
    ///
    /// impl std::error::Error for TooLarge {}
    ///
    /// let limit = on_write(|operation, _| {
    ///     let why = TooLarge(operation.payload().len());
    ///     Err(Error::new(ErrorKind::Refused, "limiting the size").with_source(why))
    /// });
    /// let sessions = SessionManager::<u32>::new(StepStore::builder(MemorySessionStore::new()).step(limit).build()?);
    /// let mut session = sessions.fresh();
    /// *session = 7;
    /// let error = sessions.commit(session).unwrap_err();
    /// assert!(error.downcast_ref::<TooLarge>().is_some());
    /// assert!(!format!("{error:?}").contains("too large"));
    /// # Ok::<_, Error>(())
    /// ```
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let causes = iter::successors(self.source(), |&cause| cause.source());
        causes.into_iter().find_map(reason::withheld)
    }

    /// Marks an error of a store: a fence around a step passes its text on.
    pub(crate) fn vouched(self) -> Self {
        Self { is_vouched: true, ..self }
    }

    /// Replaces the text of the source by `text`, unless it may be shown.
    pub(crate) fn fenced(self, text: impl Into<Cow<'static, str>>) -> Self {
        match self.source {
            Some(source) if !self.is_vouched => Self { source: Some(reason::shown(source, text)), ..self },
            source => Self { source, ..self },
        }
    }

    /// Returns an error about a setting or a call that cannot work, with the rule that it breaks.
    pub(crate) fn misconfigured(operation: &'static str, why: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Misconfigured, operation).with_source(why)
    }

    /// Returns [`misconfigured`](Self::misconfigured) with the first rule that is broken, if any is.
    pub(crate) fn first_broken(
        operation: &'static str,
        rules: impl IntoIterator<Item = (bool, &'static str)>,
    ) -> Result<()> {
        match rules.into_iter().find(|(is_broken, _)| *is_broken) {
            Some((_, rule)) => Err(Self::misconfigured(operation, rule)),
            None => Ok(()),
        }
    }

    /// Returns an error about an operation that this store, or this server, does not support.
    pub(crate) fn unsupported(operation: &'static str, why: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Unsupported, operation).with_source(why)
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Writes operation and kind, which are safe to show to a visitor. With `{:#}`, for logs, it adds the cause, all in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.kind)?;
        let Some(cause) = self.source.as_ref().filter(|_| f.alternate()) else { return Ok(()) };
        write!(f, ": {}", one_line(&format!("{cause:#}")))
    }
}

/// Returns a text with a space in place of deceptive characters, so that no text of an error begins a new line of a log.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(is_deceptive).filter(|words| !words.is_empty()).collect();
    words.join(" ")
}

/// Returns `true` for control characters, for those that begin a line or turn the direction of a text, and for invisible ones, with
/// which two different names look the same.
pub(crate) fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The kind, and the text with its cause, because `unwrap` and a `main` that returns the error show this form.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self:#}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// The kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached, or cannot serve: it is down, rejects connections, loads its data or fails over. Nothing was
    /// changed. Retry later.
    Unavailable,
    /// The deadline passed without a reply. Nothing was changed.
    TimedOut,
    /// The outcome of a change is unknown, because the connection was lost or the deadline passed before the reply came.
    ///
    /// The change happened completely or not at all, or will happen when a server that hung continues. Read the session to find
    /// out.
    MayHaveHappened,
    /// The server accepts no writes: it is a replica or a demoted primary, cannot write to its disk, or has too few replicas.
    ReadOnly,
    /// The store is full: Redis at `maxmemory`, or a bounded memory store.
    OutOfMemory,
    /// The server requires other credentials, or this user may not run the command.
    Denied,
    /// A key of this store holds something that is not a session. It was not changed. (Only a deletion from a plain store
    /// removes any value, without a check.)
    WrongType,
    /// The settings are invalid, or this server cannot work with them. The source has the reason.
    Misconfigured,
    /// A payload cannot be encoded or decoded, or exceeds the size limit. The stored session was not changed.
    Payload,
    /// Another request changed the session since it was read, and the settings do not allow a merge. Or the principal has as many
    /// sessions as the cap allows. Nothing was stored.
    Conflict,
    /// A page of another origin made a browser send the request; see
    /// [`SessionManager::check_cross_origin`](crate::SessionManager::check_cross_origin). The adapters respond with 403.
    CrossOrigin,
    /// A [step](crate::step) rejected the operation, or panicked before it was executed. [`Error::downcast_ref`] returns the
    /// error of the step. The adapters respond with 500.
    Refused,
    /// The store does not support the operation, such as reaping without an index.
    Unsupported,
    /// Another failure. The source has the reason.
    Other,
}

impl ErrorKind {
    /// Returns `true` if the same call may succeed a little later without an intervention.
    ///
    /// The adapters then respond with 503. They respond with 409 to a [`Conflict`](Self::Conflict), with 403 to
    /// [`CrossOrigin`](Self::CrossOrigin), and with 500 to all other kinds.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut | Self::MayHaveHappened | Self::ReadOnly | Self::OutOfMemory)
    }
}

impl ErrorKind {
    /// Returns the name for metrics and for the key `error` of log records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::MayHaveHappened => "may_have_happened",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Denied => "denied",
            Self::WrongType => "wrong_type",
            Self::Misconfigured => "misconfigured",
            Self::Payload => "payload",
            Self::Conflict => "conflict",
            Self::CrossOrigin => "cross_origin",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the store is unavailable",
            Self::TimedOut => "no reply within the deadline",
            Self::MayHaveHappened => "no reply to a change, which may have happened",
            Self::ReadOnly => "the server accepts no writes",
            Self::OutOfMemory => "the store is full",
            Self::Denied => "not permitted with these credentials",
            Self::WrongType => "the key holds something that is not a session",
            Self::Misconfigured => "the configuration cannot work",
            Self::Payload => "the payload cannot be used",
            Self::Conflict => "another request changed the session",
            Self::CrossOrigin => "the request comes from another origin",
            Self::Refused => "a step rejected the operation",
            Self::Unsupported => "this store does not support the operation",
            Self::Other => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Error {
        let cause = Error::misconfigured("opening", "`max_payload` must be\n greater than 0");
        Error::new(ErrorKind::Unavailable, "reading a session").with_source(cause)
    }

    #[test]
    fn alternate_text_has_cause_in_one_line() {
        let whole = "reading a session: the store is unavailable: opening: the configuration cannot work: \
                     `max_payload` must be  greater than 0";
        assert_eq!(format!("{:#}", error()), whole);
        assert_eq!(format!("{:?}", error()), format!("Unavailable: {whole}"));
        let bare = Error::new(ErrorKind::TimedOut, "reading a session");
        assert_eq!(format!("{bare:#}"), bare.to_string());
    }

    #[test]
    fn log_line_has_no_deceptive_characters() {
        assert_eq!(one_line("GET /\u{202e}a\u{2028}error: b\u{200b}\n"), "GET / a error: b");
    }

    #[test]
    fn plain_text_has_no_cause() {
        assert_eq!(error().to_string(), "reading a session: the store is unavailable");
        assert!(error().source().is_some());
    }
}
