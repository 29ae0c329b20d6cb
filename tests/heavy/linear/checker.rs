//! A linearizability checker (Wing and Gong, with Lowe's memory of what was tried).
//!
//! `linear.rs` gives it each recorded history. It looks for an order of the operations that respects their times and explains all
//! outcomes. The invariant: it accepts a history if and only if there is such an order under the rules below.
//!
//! - An operation with a known outcome takes effect once, between its invocation and its return.
//! - An operation of unknown outcome takes effect at any time after its invocation, or never.
//! - A store retries a call whose connection was lost, and the outcome is that of the second attempt. The first attempt may have
//!   had an effect as well, which explains two outcomes that a single attempt does not have:
//!   - A save without a version replaces any stored version, also at the second attempt. So it may replace a change that another
//!     request made since the first attempt (`docs/outages.md`).
//!   - If the first attempt took effect, and then the session was ended, the outcome of a save or a rotation is `Missing`. The
//!     outcome of a deletion is `false` if its first attempt took effect.
//!
//!   No first attempt explains a conflict, or a session that is missing because it was moved to another id: in both cases the store
//!   cannot know what the first attempt did, and the outcome is unknown.

use std::collections::HashSet;

use crate::model::{Call, Operation, Outcome, State};

/// The most positions that the checker visits in a history.
const MOST_POSITIONS: usize = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    Violated,
    /// The history has too many possible orders.
    Undecided,
}

/// A point at which a call may take effect.
struct Point {
    call: Call,
    from: u64,
    until: u64,
    /// The outcome that the call must have there. `None` if the point may also be left out.
    outcome: Option<Outcome>,
    /// The operation.
    of: u64,
}

impl Point {
    fn is_optional(&self) -> bool {
        self.outcome.is_none()
    }
}

/// Checks a history.
pub(crate) fn check(history: &[Operation]) -> Verdict {
    let points = points(history);
    let required = (0..points.len()).filter(|&at| !points[at].is_optional()).fold(0, |bits, at| bits | 1 << at);
    let mut search = Search { points, required, visited: HashSet::new() };
    match search.succeeds(0, State::START) {
        true => Verdict::Linearizable,
        false if search.visited.len() >= MOST_POSITIONS => Verdict::Undecided,
        false => Verdict::Violated,
    }
}

/// Returns the shortest beginning of a violated history that is violated as well. Operations that return later have an unknown outcome.
pub(crate) fn shortest(history: &[Operation]) -> Vec<Operation> {
    let until = |end: u64| -> Vec<Operation> {
        let begun = history.iter().filter(|operation| operation.invoked < end);
        let cut = |operation: &Operation| match operation.returned < end {
            true => *operation,
            false => Operation { outcome: None, ..*operation },
        };
        begun.map(cut).collect()
    };
    let mut ends: Vec<u64> = history.iter().map(|operation| operation.returned + 1).collect();
    ends.sort_unstable();
    let at = ends.partition_point(|&end| check(&until(end)) == Verdict::Linearizable);
    ends.get(at).map_or_else(|| history.to_vec(), |&end| until(end))
}

/// Returns the points of all operations, those first whose time ends first.
fn points(history: &[Operation]) -> Vec<Point> {
    let mut points = Vec::new();
    for operation in history {
        let Operation { call, invoked: from, returned, outcome, resent, .. } = *operation;
        let until = if outcome.is_some() { returned } else { u64::MAX };
        if outcome.is_some() {
            points.push(Point { call, from, until, outcome, of: from });
        }
        let attempts = match (call, outcome) {
            (Call::Read { .. }, _) => 0,
            // It may have been sent twice. After the first effect, only a save can have another one.
            (Call::Save { .. }, None) => 2,
            (_, None) => 1,
            (Call::Save { .. }, Some(Outcome::Stored)) => usize::from(resent),
            (_, Some(Outcome::Missing | Outcome::Deleted(false))) => usize::from(resent),
            (_, Some(_)) => 0,
        };
        if matters(call, history) {
            points.extend((0..attempts).map(|_| Point { call, from, until, outcome: None, of: from }));
        }
    }
    points.sort_by_key(|point| point.until);
    assert!(points.len() <= 128, "{} points", points.len());
    points
}

/// Returns `true` if an effect that may be left out can explain anything. The effect of a save explains nothing if no operation
/// found its payload or expected it: any order is as good without it.
fn matters(call: Call, history: &[Operation]) -> bool {
    let Call::Save { value, .. } = call else { return true };
    history.iter().any(|operation| {
        let expected = match operation.call {
            Call::Save { expected, .. } | Call::Rotate { expected, .. } => expected,
            Call::Read { .. } | Call::Delete { .. } => None,
        };
        let found = match operation.outcome {
            Some(Outcome::Live(value) | Outcome::Conflict(value)) => Some(value),
            _ => None,
        };
        expected == Some(value) || found == Some(value)
    })
}

struct Search {
    points: Vec<Point>,
    /// The points that no order leaves out, as bits.
    required: u128,
    /// The positions from which no order succeeds: points that are passed, and the state after them.
    visited: HashSet<(u128, State)>,
}

impl Search {
    /// Returns `true` if the rest has an order that explains it.
    fn succeeds(&mut self, passed: u128, state: State) -> bool {
        if passed & self.required == self.required {
            return true;
        }
        if self.visited.len() >= MOST_POSITIONS || !self.visited.insert((passed, state)) {
            return false;
        }
        // The points are in the order of their ends, so no later point may come before the first one has passed.
        let open: Vec<usize> = (0..self.points.len()).filter(|at| passed & 1 << at == 0).collect();
        let first = open[0];
        let end = self.points[first].until;
        let steps: Vec<(usize, State)> = open
            .iter()
            .filter(|&&at| self.points[at].from < end)
            .filter_map(|&at| self.step(passed, at, state))
            .collect();
        // A call that is explained here and changes nothing is in no other's way.
        if let Some(&(at, _)) = steps.iter().find(|(_, next)| *next == state) {
            return self.succeeds(passed | 1 << at, state);
        }
        steps.into_iter().any(|(at, next)| self.succeeds(passed | 1 << at, next))
            || self.points[first].is_optional() && self.succeeds(passed | 1 << first, state)
    }

    /// Returns the state after a point, or `None` if the point explains nothing here.
    fn step(&self, passed: u128, at: usize, state: State) -> Option<(usize, State)> {
        let point = &self.points[at];
        // The first attempt of a call is left out only after the second one, so here it had an effect if it has passed.
        let passed_of_call = |other: usize| self.points[other].of == point.of && passed & 1 << other != 0;
        let lives_on = point.outcome == Some(Outcome::Missing) && state.was_moved_after(point.call);
        if lives_on && (0..self.points.len()).any(passed_of_call) {
            return None;
        }
        let (next, outcome) = state.after(point.call);
        let fits = point.outcome.map_or(next != state, |expected| expected == outcome);
        fits.then_some((at, next))
    }
}
