//! Runs histories on a store and on the model, and compares every result and every final state.
//!
//! `histories.rs` calls it. The invariant: each counted history was carried out, or continues from a state in which another history
//! has ended.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use crate::ground::{EMPTY, Ground};
use crate::model::{Kind, Model};
use crate::operations::{Operation, enabled};
use crate::random::Random;
use crate::state::State;

/// The size of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) histories: u64,
    /// States that differ for the model. Counted only if states are merged.
    pub(crate) states: u64,
    /// Operations that the store carried out.
    pub(crate) operations: u64,
}

pub(crate) struct Explorer {
    ground: Ground,
    kind: Kind,
    /// The number of histories from a state, by how many operations may follow. `None` if states are not merged.
    known: Option<HashMap<(Model, usize), u64>>,
    path: Vec<Operation>,
    counts: Counts,
}

impl Explorer {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with_model(kind, kind)
    }

    /// Compares a store with the model of another kind of store.
    pub(crate) fn with_model(store: Kind, kind: Kind) -> Self {
        Self { ground: Ground::new(store), kind, known: None, path: Vec::new(), counts: Counts::default() }
    }

    /// Runs all histories up to a length. With `merge`, histories that end in one state continue as one.
    pub(crate) fn all(mut self, length: usize, merge: bool) -> Counts {
        self.known = merge.then(HashMap::new);
        let empty = self.ground.look(Some(EMPTY));
        self.counts.histories = self.all_after(&Model::new(self.kind), &empty, length);
        if let Some(known) = self.known {
            let states: HashSet<_> = known.into_keys().map(|(model, _)| model).collect();
            self.counts.states = states.len() as u64;
        }
        self.counts
    }

    /// Runs all histories that continue from a state, and returns their number. The server has the state, also afterwards.
    fn all_after(&mut self, model: &Model, look: &str, length: usize) -> u64 {
        let mut histories = 0;
        for operation in enabled(model) {
            self.path.push(operation);
            let (after, more) = (self.take(operation, model), length - 1);
            let known = self.known.as_ref().and_then(|known| known.get(&(after.canonical(), more)).copied());
            let continues = more > 0 && known.is_none();
            let found = self.ground.look((!continues).then_some(look));
            self.compare(&after, &found);
            histories += 1;
            if let Some(known) = known {
                histories += known;
            } else {
                let following = if continues { self.all_after(&after, &found, more) } else { 0 };
                histories += following;
                if let Some(known) = &mut self.known {
                    known.insert((after.canonical(), more), following);
                }
                if continues {
                    self.ground.look(Some(look));
                }
            }
            self.path.pop();
        }
        histories
    }

    /// Runs random histories of these lengths.
    pub(crate) fn random(mut self, histories: u64, lengths: RangeInclusive<usize>, seed: u64) -> Counts {
        let mut random = Random::new(seed);
        for _ in 0..histories {
            let length = lengths.start() + random.below(lengths.end() - lengths.start() + 1);
            let mut model = Model::new(self.kind);
            self.path.clear();
            for _ in 0..length {
                let operations = enabled(&model);
                let operation = operations[random.below(operations.len())];
                self.path.push(operation);
                model = self.take(operation, &model);
            }
            let found = self.ground.look(Some(EMPTY));
            self.compare(&model, &found);
        }
        self.counts.histories = histories;
        self.counts
    }

    fn take(&mut self, operation: Operation, before: &Model) -> Model {
        self.counts.operations += 1;
        let mut after = before.clone();
        let expected = after.take(operation);
        let got = self.ground.take(operation, before);
        assert_eq!(got, expected, "the answer (left) to the last of {:#?} on {:?}", self.path, self.kind);
        after
    }

    fn compare(&self, model: &Model, look: &str) {
        let (found, expected) = (State::found(&self.ground, look), State::expected(model));
        assert_eq!(found, expected, "the state (left) after {:#?} on {:?}", self.path, self.kind);
    }
}
