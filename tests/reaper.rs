//! The reaper removes each expired session once, in time, at a bounded cost, and reports it to the callback.

mod reaping;
#[path = "reaper/stop.rs"]
mod stop;
mod support;
#[path = "reaper/survival.rs"]
mod survival;

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use reaping::{HOUR, Other, Reported, SEVEN, ask, create, expiring, idle_for, index, is_live, load, prefix_of};
use support::{Monitor, PATIENCE, RedisServer, eventually, shared, unique};
use threaded_sessions::store::SessionIndex;
use threaded_sessions::{Clock, ErrorKind, Handle, MemorySessionStore, ReaperStats, RedisSessionStore, SessionManager};

/// So that only `reap_now` reaps; nor does a resolution of ages do any harm.
const NEVER: Duration = Duration::MAX;

const MINUTE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn session_expires_exactly_one_idle_timeout_after_use() {
    // With rrss's README: a `duration` of one hour, a `resolution` of one minute.
    for (idle, resolution) in [(HOUR, MINUTE), (MILLISECOND * 2, MILLISECOND), (HOUR * 24 * 7, NEVER)] {
        for touched in [false, true] {
            let clock = Clock::manual();
            let store = MemorySessionStore::new().with_clock(clock.clone());
            let sessions = SessionManager::<u64>::builder(store.clone())
                .idle_timeout(idle)
                .touch_on_read(touched)
                .clock(clock.clone())
                .build()
                .unwrap();
            let reported = Reported::default();
            let reaper = sessions.reaper().resolution(resolution).on_expired(reported.callback()).start().unwrap();
            let id = create(&sessions, 1);
            let mut left = idle;
            clock.advance(idle / 2);
            let handle = sessions.handle(&sessions.open_id(&id).unwrap().unwrap()).unwrap();
            if !touched {
                left -= idle / 2;
            }
            clock.advance(left - MILLISECOND);
            assert_eq!(reaper.reap_now().unwrap(), 0, "{idle:?}, {touched}");
            assert!(is_live(&store, &id), "{idle:?}, {touched}");
            assert_eq!((index(&store).count().unwrap(), reported.sorted()), (1, vec![]));

            clock.advance(MILLISECOND);
            assert!(!is_live(&store, &id), "{idle:?}, {touched}");
            // Its own round may have come first, if the resolution is short.
            reaper.reap_now().unwrap();
            assert_eq!(reported.sorted(), [(handle, 1)], "{idle:?}, {touched}");
            assert_eq!((index(&store).count().unwrap(), reaper.stats().removed), (0, 1));
        }
    }
}

#[test]
fn sessions_expired_before_first_round_are_reported() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let sessions = idle_for(store.clone(), MINUTE);
    let reported = Reported::default();
    let reaper = sessions.reaper().resolution(NEVER).on_expired(reported.callback()).start().unwrap();
    let id = create(&sessions, 1);
    clock.advance(MINUTE);
    // Traffic removes what has expired from memory.
    assert!(!is_live(&store, &id));
    assert_eq!(reaper.reap_now().unwrap(), 1);
    assert_eq!(reported.sorted(), [(sessions.store().handle(&id), 1)]);
}

#[test]
fn destroyed_session_is_reported_only_if_expired_before() {
    let server = shared();
    let store = expiring(server, &unique("destroyed"), 1);
    let sessions = idle_for(store.clone(), HOUR);
    let reported = Reported::default();
    let reaper = sessions.reaper().resolution(NEVER).on_expired(reported.callback()).start().unwrap();
    let (destroyed, expired) = (create(&sessions, 1), create(&sessions, 2));
    let late = sessions.open_id(&expired).unwrap().unwrap();
    let expire = |key: &str| server.cmd(&["PEXPIRE", key, &(reaping::GRACE - 1).to_string()]);
    let index = format!("{}index", store.key(&expired).strip_suffix(&expired.expose()).unwrap());
    expire(&store.key(&expired));
    server.cmd(&["ZADD", &index, "1", &store.key(&expired)]);
    for mut session in [sessions.open_id(&destroyed).unwrap().unwrap(), late] {
        session.destroy();
        let _ = sessions.commit(session).unwrap();
    }
    assert!(!is_live(&store, &destroyed) && !is_live(&store, &expired));
    assert_eq!(reaper.reap_now().unwrap(), 1);
    assert_eq!(reported.sorted(), [(sessions.store().handle(&expired), 2)]);
    assert_eq!(ask::<u64>(server, &["EXISTS", &index, &store.key(&expired)]), 0);
}

#[test]
fn concurrent_reapers_report_each_session_once() {
    if Other::is_this() {
        return;
    }
    const TEST: &str = "concurrent_reapers_report_each_session_once";
    for partitions in [1, 5] {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", partitions);
        let sessions = idle_for(store.clone(), Duration::from_millis(50));
        let reported = Reported::default();
        let other = Other::start(TEST, &server.url(), "sessions", partitions, 7);
        let start = || {
            let reaper = sessions.reaper().resolution(MILLISECOND).batch(7).gentle(false);
            reaper.on_expired(reported.callback()).start().unwrap()
        };
        let reapers: Vec<_> = (0..3).map(|_| start()).collect();
        let created = thread::scope(|scope| {
            let create_some = |thread: u64| {
                let sessions = &sessions;
                scope.spawn(move || -> Vec<(Handle, u64)> {
                    (1..=200)
                        .map(|n| thread * 1000 + n)
                        .map(|value| (sessions.store().handle(&create(sessions, value)), value))
                        .collect()
                })
            };
            let threads: Vec<_> = (0..4).map(create_some).collect();
            let mut created: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            created.sort();
            created
        });
        assert!(eventually(PATIENCE, || ask::<u64>(&server, &["DBSIZE"]) == 0));
        // `reap_now` returns only after running callbacks.
        for reaper in &reapers {
            reaper.reap_now().unwrap();
        }
        let mut all = [reported.sorted(), other.finish()].concat();
        all.sort();
        assert_eq!(all, created, "{partitions} partitions");
    }
}

#[test]
fn concurrent_memory_reapers_report_each_session_once() {
    let clock = Clock::manual();
    let sessions = idle_for(MemorySessionStore::new().with_clock(clock.clone()), MINUTE);
    let reported = Reported::default();
    let start = || sessions.reaper().resolution(NEVER).batch(3).on_expired(reported.callback()).start().unwrap();
    let reapers = [start(), start(), start(), start()];
    let created: Vec<_> = (1..=500).map(|value| (sessions.store().handle(&create(&sessions, value)), value)).collect();
    clock.advance(MINUTE);
    let at_once = Barrier::new(reapers.len());
    let removed: u64 = thread::scope(|scope| {
        let reap = |reaper| {
            let at_once = &at_once;
            let reaper: &threaded_sessions::Reaper = reaper;
            scope.spawn(move || {
                at_once.wait();
                reaper.reap_now().unwrap()
            })
        };
        let threads: Vec<_> = reapers.iter().map(reap).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let mut expected = created;
    expected.sort();
    assert_eq!((removed, reported.sorted()), (500, expected));
}

#[test]
fn callback_gets_session_data_and_owner() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::<u64>::builder(store).clock(clock.clone()).idle_timeout(HOUR);
    let sessions = builder.build().unwrap();
    let (report, reported) = mpsc::channel();
    let reaper = sessions.reaper().resolution(NEVER).on_expired(move |session| report.send(session).unwrap());
    let reaper = reaper.start().unwrap();
    let began = clock.now();
    for (value, bound) in [(1, None), (2, Some(("ada", "telephone")))] {
        let mut session = sessions.open_id(&create(&sessions, 7)).unwrap().unwrap();
        *session = value;
        // Changed later than it began.
        clock.advance(MINUTE);
        if let Some((principal, label)) = bound {
            session.bind(principal, label);
        }
        let handle = sessions.handle(&session).unwrap();
        let _ = sessions.commit(session).unwrap();
        clock.advance(HOUR);
        assert_eq!(reaper.reap_now().unwrap(), 1);
        let expired = reported.recv().unwrap();
        assert_eq!((expired.handle, expired.data), (handle, value));
        assert_eq!(expired.created, clock.now() - HOUR - MINUTE);
        assert!(expired.created >= began);
        assert_eq!(expired.principal.as_deref().zip(expired.label.as_deref()), bound);
        assert_eq!(expired.principal.is_some(), expired.label.is_some());
    }
}

#[test]
fn statistics_count_the_work_done() {
    let server = RedisServer::start();
    let sessions = idle_for(expiring(&server, "sessions", 1), HOUR);
    load(&server, "sessions:", 0..5, -1, -1);
    let ((entered, entries), (go_on, gate)) = (mpsc::channel(), mpsc::channel());
    let gated = move |_| {
        entered.send(()).unwrap();
        gate.recv().unwrap();
    };
    let reaper = sessions.reaper().resolution(NEVER).batch(2).on_expired(gated).start().unwrap();
    assert_eq!(reaper.stats(), ReaperStats::default());

    let before = SystemTime::now();
    thread::scope(|scope| {
        let reaping = scope.spawn(|| reaper.reap_now());
        let mut seen = Vec::new();
        for _ in 0..5 {
            entries.recv_timeout(PATIENCE).unwrap();
            let stats = reaper.stats();
            assert!((before..=SystemTime::now()).contains(&stats.last_round.unwrap()));
            seen.push((stats.removed, stats.backlog, stats.rounds));
            go_on.send(()).unwrap();
        }
        // The first batch reports two of five sessions, the second two more; the last batch finds no backlog.
        assert_eq!(seen, [(2, 3, 0), (2, 3, 0), (4, 1, 0), (4, 1, 0), (5, 0, 0)]);
        assert_eq!(reaping.join().unwrap().unwrap(), 5);
    });
    let stats = reaper.stats();
    assert_eq!((stats.rounds, stats.removed, stats.errors, stats.backlog), (1, 5, 0, 0));
    assert!(stats.last_duration > Duration::ZERO);

    server.kill();
    assert!(reaper.reap_now().is_err());
    let stats = reaper.stats();
    assert_eq!((stats.rounds, stats.removed, stats.errors), (1, 5, 1));
}

#[test]
fn a_plain_store_has_nothing_to_reap() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("plain")).build().unwrap();
    let refused = SessionManager::<u64>::new(store).reaper().start().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

#[test]
fn idle_reaper_costs_one_command_per_partition() {
    for partitions in [1, 5] {
        let server = RedisServer::start();
        let sessions = idle_for(expiring(&server, "sessions", partitions), HOUR);
        for value in 1..20 {
            create(&sessions, value);
        }
        let reaper = sessions.reaper().resolution(NEVER).on_expired(|_| ()).start().unwrap();
        reaper.reap_now().unwrap();
        let monitor = Monitor::start(&server);
        for _ in 0..3 {
            assert_eq!(reaper.reap_now().unwrap(), 0);
            let commands = monitor.commands();
            let names: Vec<&str> = commands.iter().map(|command| &*command[0]).collect();
            assert_eq!(names, vec!["EVALSHA"; partitions as usize]);
        }
    }
}

#[test]
fn rounds_run_once_per_resolution_and_partition() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 3);
    let sessions = idle_for(store.clone(), HOUR);
    for partition in 0..3 {
        load(&server, &prefix_of(&store, partition), 0..2, -1, -1);
    }
    let reaper = sessions.reaper().resolution(Duration::from_millis(30)).start().unwrap();
    assert!(eventually(PATIENCE, || reaper.stats().rounds >= 9));
    assert_eq!(reaper.stats().removed, 6);
    assert_eq!(ask::<u64>(&server, &["DBSIZE"]), 0);
}

#[test]
fn batch_size_limits_examined_entries() {
    for (partitions, batch, scripts) in [(1, 50, 20), (5, 50, 20), (1, 300, 4), (1, 1000, 1), (1, 1, 1000)] {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", partitions);
        let sessions = idle_for(store.clone(), HOUR);
        let reaper = sessions.reaper().resolution(NEVER).batch(batch).start().unwrap();
        reaper.reap_now().unwrap();
        for partition in 0..partitions {
            load(&server, &prefix_of(&store, partition), 0..1000 / partitions, -1, -1);
        }
        let monitor = Monitor::start(&server);
        assert_eq!(reaper.reap_now().unwrap(), 1000);
        let commands = monitor.commands();
        assert!(commands.iter().all(|command| command[0] == "EVALSHA"));
        assert_eq!(commands.len(), scripts, "{partitions} partitions, batches of {batch}");
    }
}
