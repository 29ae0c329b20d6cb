//! The question before sessions end.
//!
//! `end` asks it. Invariant: the question goes to a terminal, only `y` or `yes` from a terminal is consent, and Ctrl-C is noticed
//! while the question waits.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::interrupt::Interrupt;
use super::stop::{Done, Stop};

/// The time between two looks at the interrupt, because a signal does not end a read of the terminal.
const INTERRUPT_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Fails unless there is a terminal to ask the question on, and one to read the reply from.
pub(super) fn require_terminal() -> Done {
    let missing = match (io::stdin().is_terminal(), io::stderr().is_terminal()) {
        (true, true) => return Ok(()),
        (false, _) => "stdin",
        (true, false) => "stderr",
    };
    Err(Stop::Usage(format!("ending sessions needs your consent: add --yes, because {missing} is no terminal")))
}

/// Asks the question, and fails unless the operator consents.
pub(super) fn ask(question: &str, interrupt: &Interrupt) -> Done {
    require_terminal()?;
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let (answer, answers) = channel();
    thread::Builder::new().name("question".to_owned()).spawn(move || {
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        let _ = answer.send(read.map(|_| line));
    })?;
    loop {
        match answers.recv_timeout(INTERRUPT_CHECK_INTERVAL) {
            Err(RecvTimeoutError::Timeout) if !interrupt.came() => {}
            Err(RecvTimeoutError::Timeout) => return Err(Stop::Interrupted("no session has ended".to_owned())),
            Err(RecvTimeoutError::Disconnected) => return Err(refused()),
            Ok(line) => return if is_consent(&line?) { Ok(()) } else { Err(refused()) },
        }
    }
}

fn is_consent(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn refused() -> Stop {
    Stop::Negative("no session has ended".to_owned())
}
