//! The progress bar of long commands.
//!
//! Commands that walk sessions feed it. Invariant: it shows only on a terminal, and its total is that of the store, which grows if
//! sessions begin during the walk.

use std::cell::Cell;
use std::io::{IsTerminal, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::store::Progress;

const TEMPLATE: &str = "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left";

/// The number of times that the bar is drawn in a second.
const DRAWS_PER_SECOND: u8 = 10;

#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    last: Cell<Progress>,
}

impl Bar {
    /// Creates a bar for work in which stdout stays silent.
    pub(super) fn new(what: &'static str) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND), what)
    }

    /// Creates a bar for work that prints rows. On one terminal, rows and bar would mix, so it shows only if the rows go elsewhere.
    pub(super) fn beside_rows(what: &'static str) -> Self {
        if stdout().is_terminal() { Self::on(ProgressDrawTarget::hidden(), what) } else { Self::new(what) }
    }

    fn on(target: ProgressDrawTarget, what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self { bar, last: Cell::default() }
    }

    pub(super) fn set(&self, progress: Progress) {
        self.last.set(progress);
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }

    /// Removes the bar, and returns how far the work got, as text.
    pub(super) fn clear(&self) -> String {
        self.bar.finish_and_clear();
        let Progress { done, total, .. } = self.last.get();
        format!("{done} of {total}")
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
