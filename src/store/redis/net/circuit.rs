//! The circuit of one kind of command: when commands are sent, and when they fail fast.
//!
//! A [breaker](super::breaker) has one circuit for read-only commands and one for all others, because Redis can pause writes
//! and still serve reads. [`next`] is the whole table of transitions, which `docs/design.md` repeats.
//!
//! Invariant: a circuit that a command opened is closed only by a reply to a command of its kind. At most one caller at a time
//! waits as the probe.

use std::time::Duration;

use redis::RedisError;

use crate::sync::modelled::Instant;

/// A kind of command. Redis, or a proxy, may serve one kind and not the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Read-only commands.
    Reads,
    /// All other commands. A script counts as one that may write, as it does for Redis.
    Others,
}

impl Kind {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Reads => Self::Others,
            Self::Others => Self::Reads,
        }
    }
}

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Closed,
    /// Commands got no reply. The next caller becomes the probe.
    HalfOpen,
    /// One caller waits for a reply.
    Probing,
}

/// An event that a circuit reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A caller asks whether it may send a command.
    Call,
    /// A reply to a command of this kind came, to the probe or to an earlier caller. An error reply is a reply.
    Reply,
    /// A command of this kind got no reply within the deadline.
    Silence,
    /// The probe ended: by its deadline, a cut connection, or a panic.
    ProbeEnded,
    /// Connections lead to another server from now on.
    NewServer,
}

/// The consequence of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// The caller sends its command.
    Send,
    /// The caller sends its command as the probe.
    Probe,
    /// The caller fails with the last error.
    FailFast,
    Open,
    Close,
}

/// The table of transitions.
pub(crate) fn next(state: State, event: Event) -> (State, Action) {
    match (state, event) {
        (State::Closed, Event::Call) => (State::Closed, Action::Send),
        (State::HalfOpen, Event::Call) => (State::Probing, Action::Probe),
        (State::Probing, Event::Call) => (State::Probing, Action::FailFast),
        (State::Closed, Event::Silence) => (State::HalfOpen, Action::Open),
        (State::HalfOpen | State::Probing, Event::Reply) => (State::Closed, Action::Close),
        (State::Probing, Event::ProbeEnded | Event::NewServer) => (State::HalfOpen, Action::Nothing),
        (state, _) => (state, Action::Nothing),
    }
}

/// A circuit with what its breaker has to remember.
#[derive(Default)]
pub(crate) struct Circuit {
    state: State,
    /// When it opened, and the error that opened it. Absent while it is closed.
    opened: Option<(Instant, RedisError)>,
    /// When it closed last.
    closed: Option<Instant>,
    /// When the first probe began, since it opened.
    probed: Option<Instant>,
    /// The number of the latest probe, by which the end of an earlier one is recognised.
    probe: u64,
}

impl Circuit {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Returns when it opened, if it is not closed.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.opened.as_ref().map(|(since, _)| *since)
    }

    /// Returns `true` if the first probe has begun within this time.
    pub(crate) fn was_probed_within(&self, grace: Duration) -> bool {
        self.state == State::Probing && self.probed.is_some_and(|probed| probed.elapsed() < grace)
    }

    /// Asks for permission to send a command.
    ///
    /// # Errors
    ///
    /// Returns the last error if the caller must fail fast, and otherwise the number of the probe if the caller is the probe.
    pub(crate) fn call(&mut self) -> Result<Option<u64>, RedisError> {
        match (self.on(Event::Call), &self.opened) {
            (Action::FailFast, Some((_, error))) => Err(error.clone()),
            (Action::Probe, _) => {
                self.probed.get_or_insert_with(Instant::now);
                self.probe += 1;
                Ok(Some(self.probe))
            }
            _ => Ok(None),
        }
    }

    /// Returns `true` if a reply closed it.
    pub(crate) fn on_reply(&mut self) -> bool {
        let closes = self.on(Event::Reply) == Action::Close;
        if closes {
            self.opened = None;
            self.closed = Some(Instant::now());
        }
        closes
    }

    /// Returns `true` if a command that was sent at `begun` and got no reply opened it.
    pub(crate) fn on_silence(&mut self, begun: Instant, error: &RedisError) -> bool {
        // The circuit closed after the command was sent, so the silence is older news.
        if self.closed >= Some(begun) {
            return false;
        }
        let opens = self.on(Event::Silence) == Action::Open;
        if opens {
            self.opened = Some((Instant::now(), error.clone()));
            self.probed = None;
        }
        opens
    }

    pub(crate) fn on_probe_ended(&mut self, probe: u64) {
        if probe == self.probe {
            self.on(Event::ProbeEnded);
        }
    }

    pub(crate) fn on_new_server(&mut self) {
        // The end of a probe that waits for the old server concerns this circuit no longer.
        self.probe += 1;
        self.on(Event::NewServer);
    }

    fn on(&mut self, event: Event) -> Action {
        let (state, action) = next(self.state, event);
        self.state = state;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 5] = [Event::Call, Event::Reply, Event::Silence, Event::ProbeEnded, Event::NewServer];

    #[test]
    fn transitions_follow_the_table() {
        use Action::{Close, FailFast, Nothing, Open, Probe, Send};
        use State::{Closed, HalfOpen, Probing};
        let table = [
            //         Call                 Reply              Silence              ProbeEnded           NewServer
            (Closed, [(Closed, Send), (Closed, Nothing), (HalfOpen, Open), (Closed, Nothing), (Closed, Nothing)]),
            (
                HalfOpen,
                [(Probing, Probe), (Closed, Close), (HalfOpen, Nothing), (HalfOpen, Nothing), (HalfOpen, Nothing)],
            ),
            (
                Probing,
                [(Probing, FailFast), (Closed, Close), (Probing, Nothing), (HalfOpen, Nothing), (HalfOpen, Nothing)],
            ),
        ];
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(next(state, event), expected, "{state:?}, {event:?}");
            }
        }
    }

    #[test]
    fn every_state_has_an_exit() {
        for state in [State::HalfOpen, State::Probing] {
            assert_eq!(next(state, Event::Reply).0, State::Closed);
        }
        assert_eq!(next(State::Probing, Event::ProbeEnded).0, State::HalfOpen);
    }

    fn silence() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::TimedOut).into()
    }

    #[test]
    fn end_of_earlier_probe_keeps_later_probe() {
        let mut circuit = Circuit::default();
        assert!(circuit.on_silence(Instant::now(), &silence()));
        let first = circuit.call().unwrap().unwrap();
        circuit.on_new_server();
        let second = circuit.call().unwrap().unwrap();
        circuit.on_probe_ended(first);
        assert!(circuit.call().is_err(), "the second probe still waits");
        circuit.on_probe_ended(second);
        assert!(circuit.call().unwrap().is_some());
    }

    #[test]
    fn silence_from_before_a_reply_opens_no_circuit() {
        let mut circuit = Circuit::default();
        let begun = Instant::now();
        assert!(circuit.on_silence(begun, &silence()));
        assert!(circuit.on_reply());
        assert!(!circuit.on_silence(begun, &silence()));
        assert_eq!(circuit.state(), State::Closed);
        std::thread::sleep(Duration::from_millis(1));
        assert!(circuit.on_silence(Instant::now(), &silence()));
    }
}
