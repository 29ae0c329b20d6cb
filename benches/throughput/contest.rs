//! 32 connections change one session at once. Counts the acknowledged increments that the session holds afterwards, and the
//! increments per second.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use redis::Value;
use threaded_sessions::{RedisSessionStore, SessionManager};

use super::by_hand::{ByHand, Operation};
use super::floor::Floor;
use super::measure::{Place, go};
use super::report::Report;
use super::support::RedisServer;

const THREADS: usize = 32;

pub(crate) fn run(report: &mut Report, server: &RedisServer) {
    go(Place::Apart, server);
    report.section("one session, 32 connections at once");
    let each = if report.options().short { 5 } else { 500 };

    let floor = Floor::new(&server.url(), THREADS);
    let hand = ByHand::new(&floor, Operation::Read, None);
    floor.query(&hand.set("counter", b"0"));
    let took = all(each, || {
        let count: u64 = String::from_utf8_lossy(&hand.read("counter")).parse().expect("a number");
        floor.query(hand.set("counter", (count + 1).to_string().as_bytes()).arg("XX")) == Value::Okay
    });
    let kept = String::from_utf8_lossy(&hand.read("counter")).parse().expect("a number");
    line(report, "GET and SET by hand", took, kept);

    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(server.url()).pool_size(THREADS as u32);
        let builder = if expiring { builder.prefix("expiring").expiring() } else { builder };
        let sessions = SessionManager::<u64>::new(builder.build().expect("the settings are valid"));
        let mut session = sessions.fresh();
        session.renew();
        let id = *sessions.commit(session).expect("Redis responds").id().expect("it is stored");
        let took = all(each, || matches!(sessions.update(&id, |count| *count += 1), Ok(Some(()))));
        let kept = *sessions.open_id(&id).expect("Redis responds").expect("it lives");
        line(report, if expiring { "update, expiring" } else { "update, plain" }, took, kept);
        assert_eq!(kept, took.acknowledged, "every acknowledged increment is kept");
    }
}

#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    asked: u64,
    acknowledged: u64,
}

fn all(each: usize, increment: impl Fn() -> bool + Sync) -> Took {
    let ready = Barrier::new(THREADS + 1);
    let work = || {
        ready.wait();
        (0..each).filter(|_| increment()).count() as u64
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        ready.wait();
        let began = Instant::now();
        let acknowledged = threads.into_iter().map(|thread| thread.join().expect("no operation panics")).sum();
        Took { seconds: began.elapsed().as_secs_f64(), asked: (each * THREADS) as u64, acknowledged }
    })
}

fn line(report: &mut Report, name: &str, took: Took, kept: u64) {
    let share = 100.0 * kept as f64 / took.acknowledged as f64;
    let per_second = took.acknowledged as f64 / took.seconds;
    report.line(&format!(
        "{name:34} {per_second:>7.0}/s, {} of {} acknowledged, {share:.1} % of these kept",
        took.acknowledged, took.asked
    ));
}
