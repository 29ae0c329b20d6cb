//! The pages of a scan, looked at by several threads.
//!
//! `verify` uses this for its walks. While one thread waits for Redis, another decodes and compares, so that neither Redis nor
//! this process idles. The invariant: only the thread that called `verify` reports progress, because a callback need not allow
//! another thread; and after a break, an error or a panic of one thread, the others finish their page and begin no other.

use std::ops::ControlFlow;
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::{STEP, Verification};
use crate::store::OnVerified;
use crate::store::redis::net::pool::To;
use crate::sync::lock;
use crate::{Result, operation};

/// The number of threads. More would only make other clients of Redis wait.
const THREADS: usize = 3;

/// Reports the progress if this thread may, and returns whether to continue.
pub(super) type Tick<'t> = &'t dyn Fn() -> ControlFlow<()>;

/// The callback for the progress, on the thread that may call it.
pub(super) struct Reporter<'a> {
    verification: &'a Verification<'a>,
    progress: Option<&'a OnVerified<'a>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(verification: &'a Verification<'a>, progress: Option<&'a OnVerified<'a>>) -> Self {
        Self { verification, progress }
    }

    pub(super) fn report(&self) -> ControlFlow<()> {
        let Some(report) = self.progress else { return ControlFlow::Continue(()) };
        let state = self.verification.state();
        let (found, progress) = (state.found, state.progress);
        drop(state);
        report(&found, progress)
    }

    /// Passes each page of a command such as `SCAN` to `look`, with the next cursor. Several threads call `look` at once.
    pub(super) fn scan(
        &self,
        to: To<'_>,
        before: &[&str],
        look: impl Fn(Vec<Vec<u8>>, u64, Tick<'_>) -> Result<ControlFlow<()>> + Sync,
    ) -> Result<ControlFlow<()>> {
        let pages = Mutex::new(self.verification.store.scan_pages(operation::VERIFY, to, before, STEP));
        let stopped = AtomicBool::new(false);
        let is_stopped = || match stopped.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let next = || lock(&pages).next();
        let work = |tick: Tick<'_>| {
            let _stop = StopOnPanic(&stopped);
            let mut flow = Ok(ControlFlow::Continue(()));
            while let (Ok(ControlFlow::Continue(())), Some(page)) = (&flow, next()) {
                flow = page.and_then(|(next, found)| look(found, next, tick));
                flow = flow.map(|flow| if flow.is_break() { flow } else { tick() });
            }
            stopped.fetch_or(!matches!(flow, Ok(ControlFlow::Continue(()))), Ordering::Relaxed);
            flow
        };
        thread::scope(|scope| {
            // Without other threads, this one does all the work.
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, || work(&is_stopped)).ok();
            let helpers: Vec<_> = (1..THREADS).filter_map(spawn).collect();
            let here = work(&|| if is_stopped().is_break() { ControlFlow::Break(()) } else { self.report() });
            let join =
                |helper: ScopedJoinHandle<'_, _>| helper.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            // A thread that stops because of another returns a break, and the other one the reason.
            let flows: Vec<_> = [here].into_iter().chain(helpers.into_iter().map(join)).collect::<Result<_>>()?;
            if flows.iter().any(ControlFlow::is_break) { Ok(ControlFlow::Break(())) } else { Ok(self.report()) }
        })
    }
}

struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}
