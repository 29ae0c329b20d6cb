//! Tests of the circuit breaker on its own, without a server.
//!
//! `breaker` includes them. Invariant: no test opens a socket.

use std::thread;

use super::*;
use crate::Observer;

fn breaker() -> Arc<Breaker> {
    Arc::new(Breaker::new("nowhere".to_owned()))
}

fn refused() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn let_through(breaker: &Breaker) -> bool {
    let mut through = false;
    let _ = breaker.connect_or_probe::<()>(|_| {
        through = true;
        Err(refused())
    });
    through
}

fn connect(breaker: &Breaker) {
    breaker.connect_or_probe(|_| Ok(())).unwrap();
}

/// Lets a command of this kind get no reply over the current generation.
fn silence(breaker: &Arc<Breaker>, kind: Kind) {
    let permit = breaker.admit(kind).unwrap();
    let generation = breaker.generation.load(Ordering::Acquire);
    breaker.on_silence(permit, generation, Instant::now(), &timed_out());
}

#[test]
fn panicking_probe_counts_as_failed() {
    let breaker = breaker();
    let panicked = breaker.connect_or_probe::<()>(|_| panic!("as rustls does without a crypto provider"));
    assert_eq!(panicked.unwrap_err().to_string(), "connecting panicked");
    assert!(breaker.failing_since().is_some());
    assert_eq!(breaker.status().attempts, 0);
}

#[test]
fn second_probe_waits_for_pause_or_timeout() {
    let breaker = breaker();
    silence(&breaker, Kind::Others);
    let start = Instant::now();
    assert_eq!(breaker.begin(start).unwrap(), 1);
    assert!(breaker.begin(start + PROBE_TIMEOUT - Duration::from_millis(1)).is_err());
    assert!(breaker.begin(start + PROBE_TIMEOUT).is_ok());
    assert!(breaker.begin(start + PROBE_TIMEOUT * 2).is_err(), "two probes are enough");
    breaker.end(start, 1, Some(&refused()));
    assert!(breaker.begin(start).is_err(), "right after a failed probe");
    assert!(breaker.begin(Instant::now() + RECONNECT_PAUSE).is_ok());
}

#[test]
fn refused_connection_with_others_open_keeps_breaker_closed() {
    let breaker = breaker();
    connect(&breaker);
    assert!(let_through(&breaker));
    assert!(breaker.failing_since().is_none());
    breaker.on_close(0, false);
    breaker.end(Instant::now(), breaker.begin(Instant::now() + RECONNECT_PAUSE).unwrap(), Some(&refused()));
    assert!(breaker.failing_since().is_some());
}

#[test]
fn attempt_cut_with_all_connections_keeps_breaker_closed() {
    let breaker = breaker();
    connect(&breaker);
    let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
    let cut = RedisError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
    breaker.on_connection_lost(generation, &cut);
    breaker.end(before, generation, Some(&cut));
    assert!(breaker.failing_since().is_none(), "no attempt has begun since");
    assert!(let_through(&breaker));
    assert!(breaker.failing_since().is_some(), "an attempt has failed since");
}

#[test]
fn invalidating_connection_counts_in_its_new_generation() {
    let breaker = breaker();
    connect(&breaker);
    breaker
        .connect_or_probe(|generation| {
            *generation = breaker.invalidate_all();
            Ok(())
        })
        .unwrap();
    assert!(breaker.is_current(1) && !breaker.is_current(0));
    assert_eq!(breaker.status().open, 1);
    breaker.on_close(0, false);
    assert_eq!(breaker.status().open, 1);
}

#[test]
fn attempt_older_than_recovery_keeps_server_reachable() {
    let breaker = breaker();
    let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
    breaker.on_connection_lost(generation, &timed_out());
    assert!(breaker.failing_since().is_some());
    assert_eq!(breaker.connect_or_probe(|generation| Ok(*generation)).unwrap(), 1);
    breaker.on_close(1, false);
    breaker.end(before, generation, Some(&timed_out()));
    assert!(breaker.failing_since().is_none(), "a later attempt succeeded");
    assert!(let_through(&breaker));
}

#[test]
fn only_success_of_current_generation_ends_outage() {
    let cut = RedisError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
    for (name, error, is_refused, is_over) in [
        ("cut, then refused", &cut, true, false),
        ("silent", &timed_out(), false, false),
        ("silent, then refused", &timed_out(), true, false),
        ("cut, no attempt failed", &cut, false, true),
    ] {
        let breaker = breaker();
        connect(&breaker);
        let attempt = breaker.connect_or_probe(|_| {
            breaker.on_connection_lost(0, error);
            assert!(!is_refused || let_through(&breaker), "{name}");
            Ok(())
        });
        assert_eq!(breaker.failing_since().is_none(), is_over, "{name}");
        assert_eq!(attempt.is_ok(), is_over, "{name}: r2d2 tries again");
        thread::sleep(RECONNECT_PAUSE);
        assert!(breaker.check(None).is_ok(), "{name}: no probe is running");
        connect(&breaker);
        assert!(breaker.failing_since().is_none(), "{name}");
    }
}

#[test]
fn unreachable_server_rejects_only_after_probe() {
    let breaker = breaker();
    silence(&breaker, Kind::Others);
    thread::sleep(FIRST_PROBE_GRACE);
    assert!(breaker.check(Some(Kind::Others)).is_ok(), "no probe has begun");
    assert!(let_through(&breaker));
    thread::sleep(FIRST_PROBE_GRACE);
    assert!(breaker.check(Some(Kind::Others)).is_err());
    assert!(breaker.check(None).is_err());
}

#[test]
fn attempt_hung_before_outage_counts_as_probe() {
    let breaker = breaker();
    let generation = breaker.begin(Instant::now()).unwrap();
    breaker.on_connection_lost(generation, &timed_out());
    thread::sleep(FIRST_PROBE_GRACE);
    assert!(breaker.check(None).is_err());
}

#[test]
fn new_connection_leaves_outage_of_command_open() {
    let breaker = breaker();
    connect(&breaker);
    silence(&breaker, Kind::Others);
    connect(&breaker);
    assert!(breaker.failing_since().is_some() && breaker.waits_for_a_caller());
    let probe = breaker.admit(Kind::Others).unwrap();
    assert!(!breaker.waits_for_a_caller());
    assert!(breaker.admit(Kind::Others).is_err());
    assert!(breaker.check(Some(Kind::Others)).is_ok(), "the server is reachable");
    let read = breaker.admit(Kind::Reads).unwrap();
    breaker.on_reply(read);
    assert!(breaker.failing_since().is_some(), "a read proves nothing about writes");
    breaker.on_reply(probe);
    assert!(breaker.failing_since().is_none() && !breaker.failing.load(Ordering::Relaxed));
}

#[test]
fn callers_wait_a_moment_for_the_first_probe() {
    let breaker = breaker();
    connect(&breaker);
    silence(&breaker, Kind::Others);
    connect(&breaker);
    let probe = breaker.admit(Kind::Others).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| breaker.admit_soon(Kind::Others, in_an_hour()).is_ok());
        thread::sleep(FIRST_PROBE_GRACE / 10);
        breaker.on_reply(probe);
        assert!(waiting.join().unwrap(), "it was one connection that hung");
    });
    silence(&breaker, Kind::Others);
    let probe = breaker.admit(Kind::Others).unwrap();
    assert!(breaker.admit_soon(Kind::Others, in_an_hour()).is_err(), "the first probe takes long");
    drop(probe);
    let _second = breaker.admit(Kind::Others).unwrap();
    let begun = Instant::now();
    assert!(breaker.admit_soon(Kind::Others, in_an_hour()).is_err());
    assert!(begun.elapsed() < FIRST_PROBE_GRACE, "no caller waits for the second probe");
}

#[test]
fn caller_waits_for_probe_until_its_deadline() {
    let returns_at_once = || {
        let breaker = breaker();
        silence(&breaker, Kind::Others);
        let _probe = breaker.admit(Kind::Others).unwrap();
        assert!(breaker.admit_soon(Kind::Others, Instant::now()).is_err());
        breaker.status().circuits[Kind::Others as usize].was_probed_within(FIRST_PROBE_GRACE)
    };
    // A busy machine may stop the thread for longer than the grace.
    assert!((0..5).any(|_| returns_at_once()));
}

#[test]
fn dropped_probe_hands_over() {
    let breaker = breaker();
    silence(&breaker, Kind::Reads);
    let panicked = fence::call(|| {
        let _probe = breaker.admit(Kind::Reads).unwrap();
        panic!("in the middle of an exchange");
    });
    assert!(panicked.is_none());
    assert!(breaker.admit(Kind::Reads).is_ok());
}

/// Keeps the states that it learns of.
#[derive(Default)]
struct States(std::sync::Mutex<Vec<CircuitState>>);

impl Observer for States {
    fn on_circuit(&self, event: &CircuitEvent<'_>) {
        self.0.lock().unwrap().push(event.state);
    }
}

#[test]
fn observers_learn_of_a_failed_probe() {
    use CircuitState::{Closed, HalfOpen, Open};
    let breaker = breaker();
    let states = Arc::new(States::default());
    let observer: Arc<dyn Observer> = states.clone();
    breaker.watchers().add(&observer);
    let seen = || states.0.lock().unwrap().clone();
    connect(&breaker);
    silence(&breaker, Kind::Others);
    connect(&breaker);
    assert_eq!(seen(), [Open, HalfOpen]);
    silence(&breaker, Kind::Others);
    assert_eq!(seen(), [Open, HalfOpen], "the probe got no reply");
    // The connection of the probe is cut, and a new one is opened before the probe ends.
    let probe = breaker.admit(Kind::Others).unwrap();
    breaker.on_connection_lost(1, &refused());
    connect(&breaker);
    drop(probe);
    assert_eq!(seen().last(), Some(&HalfOpen), "{:?}", seen());
    breaker.on_reply(breaker.admit(Kind::Others).unwrap());
    assert_eq!(seen().last(), Some(&Closed));
}

#[test]
fn silent_probe_keeps_connections_and_hands_over() {
    let breaker = breaker();
    connect(&breaker);
    silence(&breaker, Kind::Others);
    connect(&breaker);
    let since = breaker.failing_since();
    for _ in 0..3 {
        silence(&breaker, Kind::Others);
    }
    assert!(breaker.is_current(1), "only the first silence invalidates the connections");
    assert_eq!(breaker.failing_since(), since);
    assert!(breaker.admit(Kind::Others).is_ok());
}

#[test]
fn reply_to_other_kind_keeps_server_reachable() {
    let breaker = breaker();
    connect(&breaker);
    let write = breaker.admit(Kind::Others).unwrap();
    breaker.on_reply(breaker.admit(Kind::Reads).unwrap());
    breaker.on_silence(write, 0, Instant::now(), &timed_out());
    assert!(breaker.status().unreachable.is_none());
    assert!(breaker.failing_since().is_some() && !breaker.is_current(0));
}

#[test]
fn reads_wait_longer_for_connection_while_writes_fail() {
    let breaker = breaker();
    silence(&breaker, Kind::Others);
    assert!(let_through(&breaker));
    let grace = |kind| breaker.status().grace(kind);
    assert_eq!(grace(Some(Kind::Reads)), UNAFFECTED_GRACE);
    assert_eq!([grace(Some(Kind::Others)), grace(None)], [FIRST_PROBE_GRACE; 2]);
}

#[test]
fn new_master_frees_probe_of_the_old_one() {
    let breaker = breaker();
    silence(&breaker, Kind::Others);
    let old = breaker.admit(Kind::Others).unwrap();
    breaker.invalidate_all();
    connect(&breaker);
    let new = breaker.admit(Kind::Others).expect("the old probe waits for another server");
    drop(old);
    assert!(breaker.admit(Kind::Others).is_err(), "the new probe still waits");
    breaker.on_reply(new);
    assert!(breaker.failing_since().is_none());
}

#[test]
fn old_silence_begins_no_outage() {
    let breaker = breaker();
    let permits = [(); 2].map(|()| breaker.admit(Kind::Others).unwrap());
    breaker.invalidate_all();
    for permit in permits {
        breaker.on_silence(permit, 0, Instant::now(), &timed_out());
    }
    assert!(breaker.failing_since().is_none());
}

#[test]
fn failed_operations_are_counted_once_an_interval() {
    let breaker = breaker();
    breaker.on_failed_operation();
    silence(&breaker, Kind::Others);
    for _ in 0..3 {
        breaker.on_failed_operation();
    }
    let counts = |breaker: &Breaker| breaker.status().outage.as_ref().map(|outage| (outage.failed, outage.uncounted));
    assert_eq!(counts(&breaker), Some((3, 3)), "an operation outside an outage does not count");
    let long_ago = Instant::now().checked_sub(REPORT_INTERVAL).expect("the machine has been up for long");
    breaker.status().outage.as_mut().unwrap().counted = long_ago;
    breaker.on_failed_operation();
    assert_eq!(counts(&breaker), Some((4, 0)));
}

#[test]
fn success_from_before_an_outage_ends_nothing() {
    let breaker = breaker();
    // No connection is open, so no loss of one begins a new generation.
    let late = breaker.connect_or_probe(|_| {
        let failed = breaker.connect_or_probe(|_| Err::<(), _>(refused()));
        assert!(failed.is_err() && breaker.failing_since().is_some());
        Ok(())
    });
    assert!(late.is_err(), "the reply may have come before the loss");
    assert!(breaker.failing_since().is_some());
    thread::sleep(RECONNECT_PAUSE);
    breaker.connect_or_probe(|_| Ok(())).unwrap();
    assert!(breaker.failing_since().is_none());
}
