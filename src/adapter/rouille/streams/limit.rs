//! The limit on open streams, in all and for each session.
//!
//! A handler takes a [`Permit`] before it begins a stream, and the stream keeps it. Invariant: the counts are those of the
//! permits that live.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::Handle;
use crate::sync::lock;

pub(super) struct Limit {
    total: usize,
    per_session: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Default)]
struct OpenStreams {
    total: usize,
    of: HashMap<Handle, usize>,
}

impl Limit {
    pub(super) fn new(total: usize, per_session: usize) -> Arc<Self> {
        Arc::new(Self { total, per_session, open: Mutex::default() })
    }

    pub(super) fn open(&self) -> usize {
        lock(&self.open).total
    }

    /// Counts a stream of this session. Returns `None` if a limit is reached.
    pub(super) fn enter(self: &Arc<Self>, handle: Handle) -> Option<Permit> {
        let mut open = lock(&self.open);
        let of_session = open.of.get(&handle).copied().unwrap_or(0);
        if open.total >= self.total || of_session >= self.per_session {
            return None;
        }
        open.total += 1;
        open.of.insert(handle, of_session + 1);
        Some(Permit { limit: self.clone(), handle })
    }
}

/// An open stream, as the limit counts it.
pub(super) struct Permit {
    limit: Arc<Limit>,
    handle: Handle,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = lock(&self.limit.open);
        open.total -= 1;
        let left = open.of.get(&self.handle).map_or(0, |count| count - 1);
        match left {
            0 => drop(open.of.remove(&self.handle)),
            left => drop(open.of.insert(self.handle, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_in_all_and_per_session() {
        let limit = Limit::new(3, 2);
        let handle = |digit: &str| digit.repeat(64).parse::<Handle>().unwrap();
        let (first, second) = (limit.enter(handle("a")), limit.enter(handle("a")));
        assert!(first.is_some() && second.is_some());
        assert!(limit.enter(handle("a")).is_none(), "the session has two");
        let third = limit.enter(handle("b"));
        assert!(third.is_some() && limit.enter(handle("c")).is_none(), "three are open");
        drop((first, third));
        assert_eq!(limit.open(), 1);
        assert!(limit.enter(handle("a")).is_some());
        drop(second);
        assert_eq!(limit.open(), 0);
        assert!(lock(&limit.open).of.is_empty());
    }
}
