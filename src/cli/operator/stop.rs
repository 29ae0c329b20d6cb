//! The ways in which a command ends early, with their exit codes.
//!
//! All commands return it. Invariant: one place maps errors to exit codes, as the operator's guide lists them.

use std::io;
use std::process::ExitCode;

use crate::{Error, ErrorKind};

pub(super) type Done = Result<(), Stop>;

/// Why a command ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// An operation failed, perhaps on this store.
    Failed(Error, Option<String>),
    Usage(String),
    /// The command did its work, and the result is a failure. The text describes it.
    Negative(String),
    /// Ctrl-C or SIGTERM came; the text is how far the command got.
    Interrupted(String),
    /// The reader of stdout has ended. A command that only reads has succeeded by then.
    ClosedPipe,
}

impl Stop {
    /// Adds the store on which an operation failed.
    pub(super) fn at(self, place: String) -> Self {
        match self {
            Self::Failed(error, _) => Self::Failed(error, Some(place)),
            stop => stop,
        }
    }

    /// Adds what is true after an interruption.
    pub(super) fn after(self, fact: &str) -> Self {
        match self {
            Self::Interrupted(text) => Self::Interrupted(format!("{fact}; {text}")),
            stop => stop,
        }
    }

    /// Makes a closed pipe a failure. Commands that change something call it, because their result has reached no reader.
    pub(super) fn or_closed_pipe(self) -> Self {
        match self {
            Self::ClosedPipe => failed_output(io::ErrorKind::BrokenPipe.into()),
            stop => stop,
        }
    }

    /// Prints the reason, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Failed(error, place) => (code(error.kind()), failure(&error, place.as_deref())),
            Self::Usage(text) if text.starts_with("error:") => (2, text),
            Self::Usage(text) => (2, format!("error: {text}")),
            Self::Negative(text) => (1, text),
            Self::Interrupted(text) => (130, format!("interrupted: {text}")),
            Self::ClosedPipe => return ExitCode::SUCCESS,
        };
        say(text.trim_end());
        ExitCode::from(code)
    }
}

/// Describes an error, the store that it concerns, and the remedy if that is another command.
fn failure(error: &Error, place: Option<&str>) -> String {
    let store = place.map(|place| format!("\nstore: {place}")).unwrap_or_default();
    let remedy = match error.kind() {
        ErrorKind::MayHaveHappened => "\nnote: the command may have worked; you can safely run it again",
        ErrorKind::WrongType => "\nnote: `check` names a key of another program, and `verify` renames it",
        _ => "",
    };
    format!("error: {error:#}{store}{remedy}")
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Unsupported => 69,
        ErrorKind::Denied => 77,
        ErrorKind::Misconfigured => 78,
        kind if kind.is_temporary() => 75,
        _ => 1,
    }
}

/// Prints a line for the operator on stderr. There is no way to report that this failed.
pub(super) fn say(text: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error, None)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => failed_output(error),
        }
    }
}

fn failed_output(error: io::Error) -> Stop {
    Stop::Negative(format!("error: the terminal or the output failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_kinds_have_documented_codes() {
        for (kind, expected) in [
            (ErrorKind::Unsupported, 69),
            (ErrorKind::Unavailable, 75),
            (ErrorKind::TimedOut, 75),
            (ErrorKind::ReadOnly, 75),
            (ErrorKind::Denied, 77),
            (ErrorKind::Misconfigured, 78),
            (ErrorKind::WrongType, 1),
            (ErrorKind::Other, 1),
        ] {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
    }
}
