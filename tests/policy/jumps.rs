//! Clocks that jump: Redis's clock and the application's clock, stepped forwards and backwards, together and apart.
//!
//! Each test runs in a separate process, whose clock it can step. The table "Clocks that jump" in `docs/operating.md` names the
//! tests.

use std::time::Duration;

use threaded_sessions::{Outcome, RedisSessionStore, Session, SessionId, SessionManager, SessionManagerBuilder};

use super::support::{PATIENCE, RedisServer, SteppedClock, under_stepped_clock, unique};
use super::{DAY, HOUR, set_cookie};

type Settings = SessionManagerBuilder<u32>;

const MINUTE: Duration = Duration::from_secs(60);

/// How far the application's clock and Redis's clock are off, in hours.
const JUMPS: [(i64, i64); 8] = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)];

/// A Redis and an application, each with a clock that the test steps.
struct Rig<'a> {
    application: &'a SteppedClock,
    redis: SteppedClock,
    server: RedisServer,
}

/// Runs the test of this name in a process whose clock it can step.
fn with_clocks(test: &str, run: impl FnOnce(&Rig<'_>)) {
    under_stepped_clock(&format!("jumps::{test}"), |application| {
        let redis = SteppedClock::new();
        let server = RedisServer::with_environment(&redis.environment());
        run(&Rig { application, redis, server });
    });
}

impl Rig<'_> {
    /// Sets by how many minutes each clock is ahead of the system's.
    fn set_minutes(&self, application: i64, redis: i64) {
        self.application.set(application * 60_000);
        self.redis.set(redis * 60_000);
    }

    fn set_hours(&self, (application, redis): (i64, i64)) {
        self.set_minutes(application * 60, redis * 60);
    }

    fn visitors(&self, expiring: bool, partitions: u32, settings: impl FnOnce(Settings) -> Settings) -> Visitors {
        let builder = RedisSessionStore::builder().url(self.server.url()).prefix(unique("jumps")).deadline(PATIENCE);
        let builder = if expiring { builder.partitions(partitions).expiring() } else { builder };
        let sessions = settings(SessionManager::builder(builder.build().unwrap())).build().unwrap();
        Visitors(sessions)
    }

    /// Runs a test on each kind of store, with both clocks right.
    fn on_each_store(&self, settings: fn(Settings) -> Settings, test: impl Fn(&Visitors)) {
        for expiring in [false, true] {
            self.set_minutes(0, 0);
            let visitors = self.visitors(expiring, 1, settings);
            test(&visitors);
            assert_eq!(visitors.0.store().health().failed, 0, "no jump is an outage, or ends a deadline");
        }
    }
}

/// A manager, with what visitors do.
struct Visitors(SessionManager<u32>);

impl Visitors {
    fn store(&self, change: impl FnOnce(&mut Session<u32>)) -> SessionId {
        let mut session = self.0.fresh();
        *session = 1;
        change(&mut session);
        *self.0.commit(session).unwrap().id().unwrap()
    }

    fn log_in(&self, principal: &str, label: &str) -> SessionId {
        self.store(|session| session.bind(principal, label))
    }

    fn open(&self, id: &SessionId) -> Session<u32> {
        self.0.open([&*cookie(id)]).unwrap()
    }

    /// Returns how long the session lives, without a use of it; `None` if it is over.
    fn left(&self, id: &SessionId) -> Option<Duration> {
        let session = self.0.peek([&*cookie(id)]).unwrap();
        assert_ne!(session.is_new(), session.expires_in().is_some(), "every session of these tests has an end");
        session.expires_in()
    }

    #[track_caller]
    fn assert_left(&self, id: &SessionId, minutes: i64, case: impl std::fmt::Debug) {
        let left = self.left(id).unwrap_or_else(|| panic!("{case:?}: it lives"));
        let expected = MINUTE * u32::try_from(minutes).unwrap();
        assert!(left.abs_diff(expected) < PATIENCE, "{case:?}: {left:?} instead of {expected:?}");
    }

    fn labels(&self, principal: &str) -> Vec<String> {
        self.0.list(principal).unwrap().into_iter().map(|session| session.label).collect()
    }

    fn reap(&self) -> u64 {
        let index = self.0.store().index().unwrap();
        (0..index.partitions()).map(|partition| index.reap(partition, 100, false).unwrap().removed).sum()
    }

    fn count(&self) -> u64 {
        self.0.store().index().unwrap().count().unwrap()
    }
}

fn cookie(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

#[test]
fn idle_timeout_counts_on_redis_clock_alone() {
    with_clocks("idle_timeout_counts_on_redis_clock_alone", |rig| {
        rig.on_each_store(
            |builder| builder.idle_timeout(90 * MINUTE),
            |visitors| {
                for jump @ (application, redis) in JUMPS {
                    rig.set_minutes(0, 0);
                    let id = visitors.store(|_| ());
                    rig.set_hours(jump);
                    visitors.assert_left(&id, 90 - redis * 60, jump);
                    assert!(!visitors.open(&id).is_new());
                    visitors.assert_left(&id, 90, ("a use counts from the new time", jump));
                    rig.set_minutes(application * 60, redis * 60 + 91);
                    assert_eq!(visitors.left(&id), None, "{jump:?}: unused, it ends on time");
                    let id = visitors.store(|_| ());
                    rig.set_minutes(application * 60 + 600, redis * 60 + 91 + 89);
                    assert!(visitors.left(&id).is_some(), "{jump:?}: the application's clock ends nothing");
                }
            },
        );
    });
}

#[test]
fn throttled_touches_follow_redis_clock() {
    with_clocks("throttled_touches_follow_redis_clock", |rig| {
        rig.on_each_store(
            |builder| builder.idle_timeout(HOUR).touch_every(10 * MINUTE),
            |visitors| {
                for application in [-60, 0, 60] {
                    rig.set_minutes(0, 0);
                    let [ahead, back] = [visitors.store(|_| ()), visitors.store(|_| ())];
                    rig.set_minutes(application, 60);
                    visitors.open(&ahead);
                    visitors.assert_left(
                        &ahead,
                        60,
                        ("Redis ahead: 10 minutes were left, so a use touches", application),
                    );
                    rig.set_minutes(application, -60);
                    visitors.assert_left(&back, 120, ("Redis back: unused, it lives an hour longer", application));
                    visitors.open(&back);
                    visitors.assert_left(&back, 60, ("Redis back: a use corrects it", application));
                }
            },
        );
    });
}

/// Runs a test of a session with a lifetime of 2 hours, on each kind of store, with Redis's clock off by these minutes.
fn with_lifetime(test: &str, run: impl Fn(&Rig<'_>, &Visitors, &SessionId, i64)) {
    with_clocks(test, |rig| {
        rig.on_each_store(
            |builder| builder.idle_timeout(5 * HOUR).lifetime(2 * HOUR),
            |visitors| {
                for redis in [-60, 0, 60] {
                    rig.set_minutes(0, 0);
                    run(rig, visitors, &visitors.store(|_| ()), redis);
                }
            },
        );
    });
}

#[test]
fn lifetime_counts_on_application_clock() {
    with_lifetime("lifetime_counts_on_application_clock", |rig, visitors, id, redis| {
        rig.set_minutes(60, redis);
        visitors.assert_left(id, 60, ("the lifetime ends first", redis));
        rig.set_minutes(121, redis);
        assert!(visitors.open(id).is_new(), "{redis}: the lifetime is over");
        rig.set_minutes(0, 0);
        assert_eq!(visitors.left(id), None, "{redis}: a session that ended stays ended");
    });
}

#[test]
fn lifetime_begins_anew_if_application_clock_goes_back() {
    with_lifetime("lifetime_begins_anew_if_application_clock_goes_back", |rig, visitors, id, redis| {
        rig.set_minutes(-60, redis);
        let left = if redis > 0 { 60 } else { 120 };
        visitors.assert_left(id, left, ("a later beginning counts as now", redis));
        let mut session = visitors.open(id);
        *session += 1;
        assert_eq!(visitors.0.commit(session).unwrap().outcome(), Outcome::Stored);
        rig.set_minutes(-10, redis);
        visitors.assert_left(id, 70, ("the beginning is corrected at a save", redis));
        rig.set_minutes(61, redis);
        assert!(visitors.open(id).is_new(), "{redis}: two hours after the correction");
    });
}

#[test]
fn reaper_removes_sessions_by_redis_clock_alone() {
    with_clocks("reaper_removes_sessions_by_redis_clock_alone", |rig| {
        for jump @ (_, redis) in JUMPS {
            rig.set_minutes(0, 0);
            let visitors = rig.visitors(true, 4, |builder| builder.idle_timeout(HOUR / 2));
            let id = visitors.log_in("ada", "phone");
            rig.set_hours(jump);
            let expired = u64::from(redis > 0);
            assert_eq!((visitors.count(), visitors.reap(), visitors.reap()), (1 - expired, expired, 0), "{jump:?}");
            assert_eq!(visitors.left(&id).is_some(), redis <= 0, "{jump:?}");
            rig.set_minutes(0, 0);
            assert_eq!(visitors.left(&id).is_some(), redis <= 0, "{jump:?}: a reaped session stays away");
            assert_eq!(visitors.labels("ada").len() as u64, 1 - expired, "{jump:?}");

            rig.set_hours((0, -1));
            visitors.log_in("ada", "tablet");
            rig.set_hours((0, 0));
            assert_eq!(visitors.reap(), 1, "{jump:?}: a session of the wrong time is overdue at the right one");
            // Redis has dropped the session itself when the grace period is over too.
            visitors.log_in("ada", "desk");
            rig.set_hours((0, 30));
            visitors.reap();
            rig.set_hours((0, -30));
            assert_eq!((visitors.count(), visitors.labels("ada")), (0, vec![]), "{jump:?}: no entry is left");
        }
    });
}

#[test]
fn caps_and_lists_keep_order_across_jumps() {
    with_clocks("caps_and_lists_keep_order_across_jumps", |rig| {
        for partitions in [1, 4] {
            for jump in JUMPS {
                rig.set_minutes(0, 0);
                let visitors = rig.visitors(true, partitions, |builder| builder.idle_timeout(DAY).max_per_principal(2));
                let [first, second] = ["first", "second"].map(|label| visitors.log_in("ada", label));
                rig.set_hours(jump);
                let third = visitors.log_in("ada", "third");
                assert_eq!(visitors.labels("ada"), ["third", "second"], "{jump:?}");
                assert!(visitors.open(&first).is_new(), "{jump:?}: the oldest ended");
                rig.set_minutes(0, 0);
                let fourth = visitors.log_in("ada", "fourth");
                assert_eq!(visitors.labels("ada"), ["fourth", "third"], "{jump:?}: and back");
                assert!(visitors.open(&second).is_new(), "{jump:?}");
                assert!([third, fourth].iter().all(|id| !visitors.open(id).is_new()), "{jump:?}: no login ends itself");
            }
        }
    });
}

#[test]
fn remembered_session_outlives_jumps_of_an_hour() {
    with_clocks("remembered_session_outlives_jumps_of_an_hour", |rig| {
        rig.on_each_store(
            |builder| builder.idle_timeout(HOUR / 2).remember_for(30 * DAY),
            |visitors| {
                let sends_cookie =
                    |id: &SessionId| set_cookie(&visitors.0.commit(visitors.open(id)).unwrap()).is_some();
                for jump in JUMPS {
                    rig.set_minutes(0, 0);
                    let id = visitors.store(|session| session.remember(true));
                    rig.set_hours(jump);
                    assert!(visitors.open(&id).is_remembered() && !sends_cookie(&id), "{jump:?}");
                    rig.set_hours((16 * 24, jump.1));
                    assert!(sends_cookie(&id), "{jump:?}: half of the cookie's time has passed for the application");
                    rig.set_minutes(0, 0);
                    assert!(!sends_cookie(&id), "{jump:?}: the cookie was sent later than now, which counts as now");
                    rig.set_hours((0, 32 * 24));
                    assert!(visitors.open(&id).is_new(), "{jump:?}: over on Redis's clock");
                }
            },
        );
    });
}

#[test]
fn tombstone_lasts_on_redis_clock() {
    with_clocks("tombstone_lasts_on_redis_clock", |rig| {
        rig.on_each_store(
            |builder| builder.idle_timeout(DAY),
            |visitors| {
                for jump @ (_, redis) in JUMPS {
                    rig.set_minutes(0, 0);
                    let old = visitors.store(|_| ());
                    let mut session = visitors.open(&old);
                    session.renew();
                    let new = *visitors.0.commit(session).unwrap().id().unwrap();
                    rig.set_hours(jump);
                    let late = visitors.open(&old);
                    assert_eq!((late.is_detached(), late.is_new()), (redis <= 0, redis > 0), "{jump:?}");
                    assert_eq!((late.id(), *late), (None, 0), "{jump:?}: the old id opens nothing");
                    assert_eq!(*visitors.open(&new), 1, "{jump:?}");
                }
            },
        );
    });
}
