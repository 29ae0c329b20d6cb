//! Ctrl-C and SIGTERM during a command.
//!
//! Long commands look at [`Interrupt`] between two steps. Invariant: after the first signal the command reports how far it got; a
//! second signal ends the program at once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{Error, ErrorKind, Result, operation};

/// The exit code of a program that a second signal ends.
const EXIT_CODE: i32 = 130;

#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to notice the signals.
    pub(super) fn listen() -> Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Register the shutdown first, so that the first signal finds the flag unset and does not end the program.
            flag::register_conditional_shutdown(signal, EXIT_CODE, came.clone())
                .and_then(|_| flag::register(signal, came.clone()))
                .map_err(|error| Error::new(ErrorKind::Other, operation::LISTEN_FOR_SIGNALS).with_source(error))?;
        }
        Ok(Self(came))
    }

    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns whether a long operation may continue.
    pub(super) fn flow(&self) -> ControlFlow<()> {
        if self.came() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
