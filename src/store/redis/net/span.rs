//! One deadline for an operation that sends several commands.
//!
//! The store begins a span around such an operation, and the pool ends every command of the thread at its end. Invariant: a span
//! within a span does not prolong it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Instant;

thread_local! {
    static END: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time of one operation of this thread. Dropping it ends the span.
pub(crate) struct Span {
    outer: Option<Instant>,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Span {
    /// Begins a span that ends at `until`, unless the thread has one that ends earlier.
    pub(crate) fn begin(until: Instant) -> Self {
        let outer = END.get();
        END.set(Some(outer.map_or(until, |end| end.min(until))));
        Self { outer, thread: PhantomData }
    }

    /// Returns the end of the thread's span, if it is in one.
    pub(crate) fn end() -> Option<Instant> {
        END.get()
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        END.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn inner_span_ends_with_the_outer_one() {
        let now = Instant::now();
        let [early, late] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        assert_eq!(Span::end(), None);
        for (outer, inner, end) in [(early, late, early), (late, early, early)] {
            let _outer = Span::begin(outer);
            {
                let _inner = Span::begin(inner);
                assert_eq!(Span::end(), Some(end));
            }
            assert_eq!(Span::end(), Some(outer));
        }
        assert_eq!(Span::end(), None);
    }
}
