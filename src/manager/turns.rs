//! Turns: threads of this process that conflict over one session save it one after the other.
//!
//! The optimistic loop in `save` takes a turn after its first conflict. Without turns, 32 threads that change one session spend most of
//! their time on attempts that fail. Invariant: a turn only saves attempts. The version of the session still decides, so a change is
//! neither lost nor blocked if a thread gets no turn in time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::SessionId;
use crate::sync::lock;

/// How long a thread waits for its turn. A thread that holds a turn may be waiting for a slow Redis.
const TURN_WAIT: Duration = Duration::from_millis(100);

/// The number of sessions that can have turns at a time without sharing them.
const TURN_SLOTS: u32 = 64;

/// The turns of one manager. Sessions share a slot by their ids.
pub(super) struct Turns(Vec<Slot>);

#[derive(Default)]
struct Slot {
    is_taken: Mutex<bool>,
    released: Condvar,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'t>(&'t Slot);

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..TURN_SLOTS).map(|_| Slot::default()).collect())
    }

    /// Waits for a turn. Returns `None` if [`TURN_WAIT`] is over: the caller then tries without a turn.
    pub(super) fn take(&self, id: &SessionId) -> Option<Turn<'_>> {
        let slot = &self.0[id.partition(TURN_SLOTS) as usize];
        let waited = slot.released.wait_timeout_while(lock(&slot.is_taken), TURN_WAIT, |is_taken| *is_taken);
        let (mut is_taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_taken {
            return None;
        }
        *is_taken = true;
        Some(Turn(slot))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.is_taken) = false;
        self.0.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn waiting_thread_gets_the_released_turn() {
        let (turns, id) = (Turns::new(), SessionId::random());
        let turn = turns.take(&id).expect("it is free");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take(&id).is_some());
            thread::sleep(Duration::from_millis(10));
            drop(turn);
            assert!(waiting.join().unwrap());
        });
        assert!(turns.take(&id).is_some());
    }

    #[test]
    fn thread_without_a_turn_continues_in_time() {
        let (turns, id) = (Turns::new(), SessionId::random());
        let _turn = turns.take(&id);
        let began = Instant::now();
        assert!(turns.take(&id).is_none());
        assert!(began.elapsed() >= TURN_WAIT);
    }
}
