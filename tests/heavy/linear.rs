//! Records what eight clients see of one session while its server fails, and checks that each history is linearizable: every
//! operation takes effect at one point between its invocation and its return.
//!
//! `linear/checker.rs` has the rules. `scripts/proof` sets `PROOF` to a seed, and then many more rounds run. A seed repeats the
//! calls and the faults of a round, but not the timing of the threads. So a seed that failed is kept in `linear.seeds`, and runs
//! several times before all others.

#[path = "linear/checker.rs"]
mod checker;
#[path = "linear/client.rs"]
mod client;
#[path = "linear/controls.rs"]
mod controls;
#[path = "linear/model.rs"]
mod model;
#[path = "histories/random.rs"]
mod random;
#[path = "linear/rig.rs"]
mod rig;
#[path = "linear/rules.rs"]
mod rules;
#[path = "linear/seeds.rs"]
mod seeds;
#[path = "../support/mod.rs"]
mod support;

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use checker::Verdict;
use controls::Breaks;
use model::Operation;
use rig::Rig;

/// How often a kept seed runs.
const REPETITIONS: usize = 3;

/// The most rounds until a broken store is noticed.
const ROUNDS_OF_A_CONTROL: u64 = 40;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    histories: usize,
    operations: usize,
    unknown: usize,
    resent: usize,
    /// Histories that only the rules for calls that were sent twice explain.
    retried: usize,
}

impl Counts {
    fn add(&mut self, history: &[Operation]) {
        self.histories += 1;
        self.operations += history.len();
        self.unknown += history.iter().filter(|operation| operation.outcome.is_none()).count();
        self.resent += history.iter().filter(|operation| operation.resent).count();
        let once: Vec<Operation> = history.iter().map(|operation| Operation { resent: false, ..*operation }).collect();
        self.retried += usize::from(checker::check(&once) == Verdict::Violated);
    }
}

/// Returns the first seed and the number of rounds.
fn extent() -> (u64, u64) {
    match env::var("PROOF") {
        Err(_) => (RandomState::new().hash_one(0) >> 16, 8),
        Ok(seed) => (seed.parse().expect("PROOF is a seed"), 1000),
    }
}

/// Shows a history, in the order of its invocations.
fn shown(history: &[Operation]) -> String {
    let mut history = history.to_vec();
    history.sort_by_key(|operation| operation.invoked);
    let line = |operation: &Operation| {
        let Operation { client, call, invoked, returned, outcome, resent } = operation;
        let resent = if *resent { ", perhaps sent twice" } else { "" };
        format!("{invoked:3}..{returned:3} client {client}: {call:?} -> {outcome:?}{resent}\n")
    };
    history.iter().map(line).collect()
}

fn check(kind: &str, expiring: bool) {
    let (rig, start, mut counts) = (Rig::new(expiring, Breaks::Nothing), Instant::now(), Counts::default());
    let (first, rounds) = extent();
    println!("{kind}: seeds from {first}");
    let kept = seeds::kept(kind).into_iter().flat_map(|seed| [seed; REPETITIONS]);
    for seed in kept.chain(first..first + rounds) {
        let histories = catch_unwind(AssertUnwindSafe(|| rig.round(seed))).unwrap_or_else(|panic| {
            seeds::keep(kind, seed);
            resume_unwind(panic)
        });
        for history in histories {
            counts.add(&history);
            let verdict = checker::check(&history);
            if verdict != Verdict::Linearizable {
                seeds::keep(kind, seed);
                panic!("{kind}, seed {seed}: {verdict:?}\n{}", shown(&checker::shortest(&history)));
            }
        }
    }
    println!("{kind}: {counts:?} in {:.1} s", start.elapsed().as_secs_f64());
    assert!(counts.unknown > 0 && counts.resent > 0, "the faults were noticed: {counts:?}");
}

/// Returns `true` if the checker rejects a history of a broken store.
fn is_noticed(breaks: Breaks) -> bool {
    let rig = Rig::new(true, breaks);
    let (first, _) = extent();
    let mut histories = (first..first + ROUNDS_OF_A_CONTROL).flat_map(|seed| rig.round(seed));
    let noticed = histories.position(|history| checker::check(&history) == Verdict::Violated);
    println!("{breaks:?}: history {noticed:?} is rejected, seeds from {first}");
    noticed.is_some()
}

#[test]
fn plain_store_is_linearizable_under_faults() {
    check("plain", false);
}

#[test]
fn expiring_store_is_linearizable_under_faults() {
    check("expiring", true);
}

#[test]
fn store_ignoring_versions_is_noticed() {
    assert!(is_noticed(Breaks::Versions));
}

#[test]
fn store_leaving_deleted_sessions_is_noticed() {
    assert!(is_noticed(Breaks::Deletions));
}

#[test]
fn store_hiding_doubts_is_noticed() {
    assert!(is_noticed(Breaks::Doubts));
}
