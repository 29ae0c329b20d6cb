//! Fences around code of the application that this crate calls.
//!
//! Every module that calls a closure, a callback or the application's logger does it through here, if a panic would end a
//! thread of the crate or leave something half-done. `docs/design.md` lists the calls.
//!
//! Invariant: a panic ends at the fence. It is not reported again, because the panic hook of the program has reported it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls code of the application. Returns `None` if it panicked.
pub(crate) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

/// Logs through the application's logger, which may panic, as `eprintln!` does if stderr is a closed pipe. The message can have
/// key-value pairs in front, as in `log::log!`.
macro_rules! log {
    ($level:ident, $($message:tt)+) => {{
        let target = $crate::target::of(module_path!());
        let _ = $crate::fence::call(|| ::log::log!(target: target, ::log::Level::$level, $($message)+));
    }};
}

pub(crate) use log;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_ends_at_the_fence() {
        assert_eq!(call(|| 1), Some(1));
        assert_eq!(call(|| panic!("as a logger may")), None::<()>);
    }
}
