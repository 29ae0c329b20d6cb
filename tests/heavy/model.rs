//! Random operations on sessions through several handles: every store behaves like a simple model.
//!
//! `PROPTEST_CASES` sets the number of random runs for each store. A run that failed once is kept: as a seed in
//! `model.proptest-regressions`, or as a test at the end of this file.

#[path = "model/ground.rs"]
mod ground;
#[path = "model/steps.rs"]
mod steps;
#[path = "../support/mod.rs"]
mod support;
#[path = "model/world.rs"]
mod world;

use std::env;
use std::time::Duration;

use ground::{Ground, Memory, Redis};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use steps::Step::{self, *};
use steps::steps;
use threaded_sessions::OnConflict::{Fail, LastWriteWins, Merge};
use world::World;

fn run(ground: impl Ground + 'static, steps: &[Step]) {
    let mut world = World::new(Box::new(ground));
    for step in steps {
        world.take(step);
        world.check();
    }
    world.end();
}

fn cases(default: u32) -> ProptestConfig {
    let cases = env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(default),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn memory(steps in steps()) {
        run(Memory::new(), &steps);
    }
}

proptest! {
    #![proptest_config(cases(25))]

    #[test]
    fn plain(steps in steps()) {
        run(Redis::plain(), &steps);
    }

    #[test]
    fn expiring(steps in steps()) {
        run(Redis::expiring(1), &steps);
    }

    #[test]
    fn expiring_in_partitions(steps in steps()) {
        run(Redis::expiring(3), &steps);
    }

    #[test]
    fn cached(steps in steps(), expiring in any::<bool>(), lease in 0..2_u64) {
        run(Redis::cached(expiring, Duration::from_secs(lease)), &steps);
    }
}

/// Runs what failed once on every store.
fn again(steps: &[Step]) {
    run(Memory::new(), steps);
    run(Redis::plain(), steps);
    run(Redis::expiring(1), steps);
    run(Redis::expiring(3), steps);
    run(Redis::cached(true, Duration::from_secs(1)), steps);
}

/// Two requests hold the first session of all, which belongs to Ada; more steps follow.
fn two_hold_adas_session(then: &[Step]) {
    let first =
        [Bind { hand: 0, who: 0, label: 0 }, Commit { hand: 0 }, Open { hand: 0, id: 0 }, Open { hand: 1, id: 0 }];
    again(&[&first, then].concat());
}

#[test]
fn new_label_races_new_principal() {
    two_hold_adas_session(&[
        Bind { hand: 0, who: 1, label: 1 },
        Commit { hand: 0 },
        Bind { hand: 1, who: 0, label: 2 },
        Commit { hand: 1 },
        EndAll { who: 0 },
    ]);
}

#[test]
fn a_last_write_over_another_principal() {
    for policy in [LastWriteWins, Merge, Fail] {
        for change in [Unbind { hand: 0 }, Bind { hand: 0, who: 1, label: 0 }] {
            let then = [
                change,
                Commit { hand: 0 },
                OnConflict { hand: 1, policy },
                Put { hand: 1, field: 0, value: 1 },
                Commit { hand: 1 },
                EndAll { who: 0 },
            ];
            two_hold_adas_session(&then);
        }
    }
}

#[test]
fn last_write_keeps_place_in_list() {
    two_hold_adas_session(&[
        Fresh { hand: 0 },
        Bind { hand: 0, who: 0, label: 1 },
        Commit { hand: 0 },
        OnConflict { hand: 1, policy: LastWriteWins },
        Put { hand: 1, field: 0, value: 1 },
        Commit { hand: 1 },
    ]);
}

#[test]
fn unchanged_renewal_races_a_change() {
    for policy in [LastWriteWins, Merge, Fail] {
        two_hold_adas_session(&[
            Put { hand: 0, field: 0, value: 1 },
            Commit { hand: 0 },
            OnConflict { hand: 1, policy },
            Renew { hand: 1 },
            Commit { hand: 1 },
        ]);
    }
}

#[test]
fn end_others_with_a_renewed_session() {
    two_hold_adas_session(&[Renew { hand: 0 }, Commit { hand: 0 }, EndOthers { hand: 1 }]);
}

#[test]
fn update_after_a_lost_change() {
    for policy in [LastWriteWins, Merge, Fail] {
        two_hold_adas_session(&[
            Put { hand: 0, field: 0, value: 1 },
            Commit { hand: 0 },
            OnConflict { hand: 1, policy },
            Put { hand: 1, field: 0, value: 7 },
            UpdateIn { hand: 1, field: 0 },
            Commit { hand: 1 },
        ]);
    }
}
