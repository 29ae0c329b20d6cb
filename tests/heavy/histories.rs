//! Compares every short history of operations on a store in Redis with a simple model.
//!
//! `scripts/proof` sets `PROOF` to a seed. Then all histories of four operations run one by one, those of five operations run
//! merged, and a million random ones have five to eight operations. Without it, the histories of four operations run merged:
//! histories that end in one state continue as one.

#[path = "histories/explore.rs"]
mod explore;
#[path = "histories/ground.rs"]
mod ground;
#[path = "histories/model.rs"]
mod model;
#[path = "histories/operations.rs"]
mod operations;
#[path = "histories/random.rs"]
mod random;
#[path = "histories/state.rs"]
mod state;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::time::Instant;

use explore::{Counts, Explorer};
use model::{Cap, Kind};

const PLAIN: Kind = Kind { expiring: false, companions: false, cap: Cap::None };
const EXPIRING: Kind = Kind { expiring: true, companions: false, cap: Cap::None };

/// Runs histories, and prints what was done.
fn report(what: &str, kind: Kind, run: impl FnOnce(Explorer) -> Counts) {
    let start = Instant::now();
    let counts = run(Explorer::new(kind));
    println!("{what} on {kind:?}: {counts:?} in {:.1} s", start.elapsed().as_secs_f64());
}

fn check(kind: Kind) {
    // The number of random histories for each of six kinds, and their seed.
    let (histories, seed) = match env::var("PROOF") {
        Err(_) => (200, 0),
        Ok(seed) => {
            report("all of five operations, merged,", kind, |explorer| explorer.all(5, true));
            report("all of four operations", kind, |explorer| explorer.all(4, false));
            (170_000, seed.parse().expect("PROOF is a seed"))
        }
    };
    report("all of four operations, merged,", kind, |explorer| explorer.all(4, true));
    report(&format!("random from seed {seed}"), kind, |explorer| explorer.random(histories, 5..=8, seed));
}

#[test]
fn plain_store_matches_the_model() {
    check(PLAIN);
}

#[test]
fn plain_store_with_companions_matches_the_model() {
    check(Kind { companions: true, ..PLAIN });
}

#[test]
fn expiring_store_matches_the_model() {
    check(EXPIRING);
}

#[test]
fn expiring_store_with_companions_matches_the_model() {
    check(Kind { companions: true, ..EXPIRING });
}

#[test]
fn expiring_store_with_cap_matches_the_model() {
    check(Kind { cap: Cap::EndsTheFirst, ..EXPIRING });
}

#[test]
fn login_rejecting_expiring_store_matches_the_model() {
    check(Kind { cap: Cap::RefusesTheSecond, ..EXPIRING });
}

#[test]
#[should_panic(expected = "the answer (left) to the last of")]
fn store_admitting_too_many_is_noticed() {
    Explorer::with_model(EXPIRING, Kind { cap: Cap::RefusesTheSecond, ..EXPIRING }).all(4, true);
}

#[test]
#[should_panic(expected = "the state (left) after")]
fn store_ending_too_few_is_noticed() {
    Explorer::with_model(EXPIRING, Kind { cap: Cap::EndsTheFirst, ..EXPIRING }).all(4, true);
}
