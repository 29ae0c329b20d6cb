//! The model: a session that moves from id to id, the calls on it, and the recorded operations.
//!
//! The clients record operations, and `checker.rs` explains them by this model. The invariant: the state decides about the outcome
//! of each call, by the contract of a store alone.

/// A call. Ids and payloads are numbers, in the order in which the clients took them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read { id: u8 },
    Save { id: u8, value: u8, expected: Option<u8> },
    Rotate { old: u8, new: u8, value: u8, expected: Option<u8> },
    Delete { id: u8 },
}

/// The outcome of a call. Numbers are payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Live(u8),
    Renewed,
    Absent,
    Stored,
    Missing,
    Conflict(u8),
    /// With the result of the deletion.
    Deleted(bool),
}

/// The session: the id that is live with its payload, and the ids from which it was moved, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    live: Option<(u8, u8)>,
    renewed: u128,
}

impl State {
    /// The session as it begins: id 0 with payload 0.
    pub(crate) const START: Self = Self { live: Some((0, 0)), renewed: 0 };

    /// Returns the state after a call, and the outcome of the call.
    pub(crate) fn after(self, call: Call) -> (Self, Outcome) {
        let stored = |id: u8| self.live.filter(|live| live.0 == id).map(|live| live.1);
        match call {
            Call::Read { id } => (self, self.read(id, stored(id))),
            Call::Save { id, value, expected } => match stored(id) {
                None => (self, Outcome::Missing),
                Some(other) if expected.is_some_and(|expected| expected != other) => (self, Outcome::Conflict(other)),
                Some(_) => (Self { live: Some((id, value)), ..self }, Outcome::Stored),
            },
            Call::Rotate { old, new, value, expected } => match stored(old) {
                None => (self, Outcome::Missing),
                Some(other) if expected.is_some_and(|expected| expected != other) => (self, Outcome::Conflict(other)),
                Some(_) => (Self { live: Some((new, value)), renewed: self.renewed | 1 << old }, Outcome::Stored),
            },
            Call::Delete { id } => match stored(id) {
                None => (self, Outcome::Deleted(false)),
                Some(_) => (Self { live: None, ..self }, Outcome::Deleted(true)),
            },
        }
    }

    /// Returns `true` if the session was moved away from the id under which a call leaves it.
    pub(crate) fn was_moved_after(self, call: Call) -> bool {
        let (Call::Read { id } | Call::Save { id, .. } | Call::Rotate { new: id, .. } | Call::Delete { id }) = call;
        self.renewed & 1 << id != 0
    }

    fn read(self, id: u8, stored: Option<u8>) -> Outcome {
        match stored {
            Some(value) => Outcome::Live(value),
            None if self.renewed & 1 << id != 0 => Outcome::Renewed,
            None => Outcome::Absent,
        }
    }
}

/// A call as a client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) call: Call,
    /// The time before the call.
    pub(crate) invoked: u64,
    /// The time after the call.
    pub(crate) returned: u64,
    /// `None` if the store does not know it (`MayHaveHappened`).
    pub(crate) outcome: Option<Outcome>,
    /// `true` if the store may have sent the call twice.
    pub(crate) resent: bool,
}
