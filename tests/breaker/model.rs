//! The circuit breaker under a model checker, which runs the threads in many orders.
//!
//! The properties are in `world.rs`: one probe at a time; no caller is refused while Redis is known to be up; no outage ends while
//! the server is dead; every caller is served again, and every outage ends, after Redis has returned.
//!
//! `BREAKER_RUNS` sets the number of orders for each test. A failure prints a schedule, which `shuttle::replay` repeats.

use std::env;

use threaded_sessions_breaker::world::{Fault, run};

/// Runs the model in random orders, and in orders that favour rare interruptions.
fn check(fault: Fault) {
    let runs = env::var("BREAKER_RUNS").map_or(200, |runs| runs.parse().expect("BREAKER_RUNS is a number"));
    shuttle::check_random(move || run(fault), runs);
    shuttle::check_pct(move || run(fault), runs, 3);
}

#[test]
fn callers_survive_a_killed_server() {
    check(Fault::Killed);
}

#[test]
fn callers_survive_a_hanging_server() {
    check(Fault::Hangs);
}

#[test]
fn callers_survive_paused_writes() {
    check(Fault::PausesWrites);
}
