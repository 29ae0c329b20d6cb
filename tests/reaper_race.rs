//! Reapers during traffic, next to each other, and killed: they remove no live session and report each expired one once.

mod reaping;
mod support;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;
use reaping::{
    HOUR, Other, Reported, SEVEN, ask, create, entries, expiring, idle_for, is_live, keep_logs, load, logged_by,
    reap_all,
};
use support::{Cluster, Fault, PATIENCE, Proxy, RedisServer, eventually};
use threaded_sessions::store::{Created, Found, Saved, Touch, Write};
use threaded_sessions::{Handle, RedisSessionStore, SessionId, SessionStore};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The largest difference between two clocks that count milliseconds.
const TOLERANCE: Duration = Duration::from_millis(2);

/// The index lags by up to 5 ms of it.
const TTL: Duration = Duration::from_millis(320);

/// A session, and the bounds of its deadline: the operation that set it was sent and completed at these times.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    next_use: Instant,
    lives_until: Instant,
    gone_after: Instant,
    id: SessionId,
}

/// One thread's sessions, each used again and again just before its deadline.
struct Visitors<'a> {
    store: &'a RedisSessionStore,
    sessions: BinaryHeap<Reverse<Known>>,
    created: Vec<(Handle, u64)>,
    random: u64,
}

impl Visitors<'_> {
    fn arrive(&mut self) {
        let (id, sent) = (self.store.fresh_id(None), Instant::now());
        let created = self.store.create(&id, Write::new(SEVEN.as_bytes(), TTL)).unwrap();
        assert!(matches!(created, Created::Stored(_)));
        self.created.push((self.store.handle(&id), 7));
        self.expect(id, sent, Instant::now());
    }

    fn expect(&mut self, id: SessionId, sent: Instant, answered: Instant) {
        // Mostly just before the deadline, sometimes again at once, so that the index lags, and sometimes a little late.
        let early = self.draw(6000);
        let next_use = match self.draw(8) {
            0 | 1 => answered + Duration::from_micros(early),
            2 => answered + TTL + Duration::from_micros(early),
            _ => sent + TTL - Duration::from_micros(early),
        };
        self.sessions.push(Reverse(Known { next_use, lives_until: sent + TTL, gone_after: answered + TTL, id }));
    }

    fn use_one(&mut self) {
        let Reverse(known) = self.sessions.pop().expect("there is one for each that was taken");
        thread::sleep(known.next_use.saturating_duration_since(Instant::now()));
        let (choice, sent) = (self.draw(4), Instant::now());
        let lives = match choice {
            0 => match self.store.save(&known.id, Write::new(SEVEN.as_bytes(), TTL), None).unwrap() {
                Saved::Stored(_) => true,
                Saved::Missing => false,
                other => panic!("{other:?}"),
            },
            choice => {
                let touch = [Touch::Set(TTL), Touch::Extend(TTL), Touch::No][choice as usize - 1];
                match self.store.read(&known.id, touch).unwrap() {
                    Found::Live(_) => true,
                    Found::Absent => false,
                    other => panic!("{other:?}"),
                }
            }
        };
        let answered = Instant::now();
        if lives {
            assert!(sent <= known.gone_after + TOLERANCE, "live {:?} too late", sent - known.gone_after);
            let moved = choice != 3;
            let (sent, answered) =
                if moved { (sent, answered) } else { (known.lives_until - TTL, known.gone_after - TTL) };
            self.expect(known.id, sent, answered);
        } else {
            let missing = known.lives_until.saturating_duration_since(answered);
            assert!(missing <= TOLERANCE, "absent {missing:?} before its deadline");
            self.arrive();
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // Knuth's generator.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }
}

/// The test compares only the times of requests and replies, so a slow machine cannot fail it.
#[test]
fn reaper_spares_used_and_reports_expired_sessions_once() {
    if Other::is_this() {
        return;
    }
    let server = RedisServer::start();
    let test = "reaper_spares_used_and_reports_expired_sessions_once";
    race(test, &server.url(), 1, || ask::<u64>(&server, &["DBSIZE"]) == 0);
}

#[test]
fn cluster_reaper_spares_used_sessions() {
    if Other::is_this() {
        return;
    }
    let cluster = Cluster::start();
    race("cluster_reaper_spares_used_sessions", &cluster.url(), 4, || cluster.keys("").is_empty());
}

/// Visitors and reapers in this process and another one, until all is gone.
fn race(test: &str, url: &str, partitions: u32, is_empty: impl Fn() -> bool) {
    let builder = RedisSessionStore::builder().url(url).partitions(partitions).deadline(PATIENCE);
    let store = builder.expiring().build().unwrap();
    let sessions = idle_for(store.clone(), TTL);
    let (reported, done) = (Reported::default(), AtomicBool::new(false));
    let other = Other::start(test, url, "sessions", partitions, 50);
    let mut created = thread::scope(|scope| {
        for batch in [1, 10, 50] {
            let (sessions, reported, done) = (&sessions, &reported, &done);
            scope.spawn(move || {
                let reaper = sessions.reaper().resolution(MILLISECOND).batch(batch).gentle(false);
                let reaper = reaper.on_expired(reported.callback()).start().unwrap();
                while !done.load(Ordering::Relaxed) {
                    reaper.reap_now().unwrap();
                }
                // `reap_now` returns only after running callbacks.
                reaper.reap_now().unwrap();
            });
        }
        let visit = |seed| {
            let store = &store;
            move || {
                let mut visitors = Visitors { store, sessions: BinaryHeap::new(), created: Vec::new(), random: seed };
                let end = Instant::now() + Duration::from_secs(4);
                (0..100).for_each(|_| visitors.arrive());
                while Instant::now() < end {
                    visitors.use_one();
                }
                visitors.created
            }
        };
        let threads: Vec<_> = (1..=4).map(|seed| scope.spawn(visit(seed))).collect();
        let created = threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        // The remaining sessions expire, and then all reapers stop.
        let gone = eventually(PATIENCE, is_empty);
        done.store(true, Ordering::Relaxed);
        assert!(gone, "everything expired goes");
        created.into_iter().flat_map(Result::unwrap).collect::<Vec<_>>()
    });
    let mut all = [reported.sorted(), other.finish()].concat();
    all.sort();
    created.sort();
    assert!(all == created, "of {} sessions {} were reported", created.len(), all.len());
}

/// Kills a process that reaps, at this moment.
type Kill = fn(&RedisServer, &Proxy, Other);

#[test]
fn killed_reaper_loses_no_live_session() {
    if Other::is_this() {
        return;
    }
    const TEST: &str = "killed_reaper_loses_no_live_session";
    const OVERDUE: u32 = 10_000;
    let moments: [Kill; 3] = [
        // Between the removal and the reply.
        |_, proxy, other| {
            proxy.set_for(Fault::Stall, 1);
            assert!(eventually(PATIENCE, || proxy.fired() >= 1));
            other.kill();
        },
        // In the middle of telling a batch.
        |_, _, other| {
            other.wait_for_an_event();
            other.kill();
        },
        |server, _, other| {
            assert!(eventually(PATIENCE, || ask::<u64>(server, &["DBSIZE"]) < u64::from(OVERDUE) / 2));
            other.kill();
        },
    ];
    for kill in [moments, moments].concat() {
        let server = RedisServer::start();
        let proxy = Proxy::start(&server);
        let store = expiring(&server, "sessions", 1);
        let sessions = idle_for(store.clone(), HOUR);
        let live: Vec<SessionId> = (1..=50).map(|value| create(&sessions, value)).collect();
        // Live sessions whose entries look overdue.
        let lagging = load(&server, "sessions:", OVERDUE..OVERDUE + 50, 3_600_000, -1);
        let other = Other::start(TEST, &proxy.url(), "sessions", 1, 10);
        load(&server, "sessions:", 0..OVERDUE, -1, -1);
        kill(&server, &proxy, other);
        drop(proxy);

        assert_whole(&server);
        for (id, value) in live.iter().zip(1..) {
            assert_eq!(*sessions.open_id(id).unwrap().expect("it lives"), value);
        }
        reap_all(&store, 0);
        assert_whole(&server);
        let expected: BTreeSet<String> = live.iter().map(|id| store.key(id)).chain(lagging).collect();
        let left: BTreeSet<String> = entries(&server, "sessions:index").into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, expected);
    }
}

/// No data without an entry, no entry without data, and nothing else.
#[track_caller]
fn assert_whole(server: &RedisServer) {
    // At one moment: what the process had sent may still be carried out.
    let both = "return {redis.call('KEYS', '*'), redis.call('ZRANGE', 'sessions:index', 0, -1)}";
    let (mut keys, entries): (BTreeSet<String>, BTreeSet<String>) = ask(server, &["EVAL", both, "0"]);
    assert!(keys.remove("sessions:index"));
    assert!(keys == entries, "{} keys, {} entries", keys.len(), entries.len());
}

#[test]
fn reaper_outlives_its_redis_and_logs_once() {
    keep_logs();
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = expiring(&server, "sessions", 1);
    let sessions = idle_for(store.clone(), HOUR);
    let (reported, thread) = (Reported::default(), Arc::new(Mutex::new(None)));
    let (mut report, known) = (reported.callback(), thread.clone());
    let callback = move |session| {
        *known.lock().unwrap() = Some(thread::current().id());
        report(session);
    };
    let reaper = sessions.reaper().resolution(MILLISECOND * 10).on_expired(callback).start().unwrap();
    let stays = create(&sessions, 1);
    load(&server, "sessions:", 0..1, -1, -1);
    assert!(eventually(PATIENCE, || reported.sorted().len() == 1));
    let thread = thread.lock().unwrap().expect("the callback was called");

    for outage in 1..=3 {
        let before = reaper.stats();
        server.kill();
        assert!(eventually(PATIENCE, || reaper.stats().errors >= before.errors + 20));
        server.restart();
        assert!(eventually(PATIENCE, || reaper.stats().rounds > before.rounds + 3));
        load(&server, "sessions:", outage * 100..outage * 100 + 60, -1, -1);
        assert!(eventually(PATIENCE, || reported.sorted().len() == outage as usize * 60 + 1));
        assert!(is_live(&store, &stays));
        assert_eq!(ask::<u64>(&server, &["DBSIZE"]), 2);

        let said: Vec<_> = logged_by(thread).into_iter().filter(|(_, text)| text.contains("reap")).collect();
        let levels: Vec<Level> = said.iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Warn, Level::Info].repeat(outage as usize), "{said:?}");
    }
}
