//! Each fault of the table in `docs/outages.md`: operations have the documented result within the documented time. Afterwards every
//! session is complete, and listed for its owner.

#[path = "faults/rig.rs"]
mod rig;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use rig::{KEEPS, OPS, Op, PARTLY, PASSWORD, PLAIN, PROXIED, Rig, SHORT, Setting, Subject, WAITS};
use support::{DeadEnd, Fault, PATIENCE, Proxy, RedisServer, Signals, Victims, eventually, in_child};
use threaded_sessions::store::Touch;
use threaded_sessions::{Error, RedisSessionStore, SessionStore, redis};

/// Far more than any operation takes that does not wait for its deadline.
const PROMPT: Duration = Duration::from_secs(5);

/// The rows of the table by their first column: reads, touches, writes, deletes, then. A cell may allow two results.
static TABLE: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("../docs/outages.md").lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| line.split('|').map(|cell| cell.trim());
    // The first piece is what precedes the first bar.
    lines.map(|line| (cells(line).nth(1).unwrap(), cells(line).skip(2).take(5).collect())).collect()
});

fn assert_documented(row: &str, op: Op, reported: &str, context: &dyn Debug) {
    let column = match op {
        Op::Read => 0,
        Op::Touch => 1,
        Op::Delete => 3,
        _ => 2,
    };
    let cell = TABLE[row][column];
    let is_documented = cell.split(" or ").any(|result| result.trim_matches('`') == reported);
    assert!(is_documented, "Redis {row}, {op:?}: {reported}, documented is {cell}: {context:?}");
}

/// How a fault is brought about around an operation, and ended.
struct Case {
    setting: Setting,
    strike: fn(&Rig, &(dyn Fn() + Sync)),
    lift: fn(&Rig),
    keeps_data: bool,
}

fn check(row: &str, case: &Case) {
    for expiring in [false, true] {
        let rig = Rig::new(&case.setting, expiring);
        // So that the server knows the scripts.
        OPS.iter().for_each(|&op| Subject::prepare(&rig, op).run(&rig.admin, true).unwrap());
        for op in OPS {
            let context = format!("Redis {row}, {op:?}, {}", if expiring { "expiring" } else { "plain" });
            check_op(&rig, row, case, op, &context);
        }
        if case.keeps_data {
            assert_eq!(rig.payload(&rig.bystander).as_deref(), Some(&b"bystander"[..]));
        }
    }
}

fn check_op(rig: &Rig, row: &str, case: &Case, op: Op, context: &str) {
    let (subject, others) = (Subject::prepare(rig, op), [Op::Read, Op::Delete].map(|op| Subject::prepare(rig, op)));
    assert!(eventually(PATIENCE, || rig.serves()), "{context}: {:?}", rig.store.health());
    let slot = Mutex::new(None);
    (case.strike)(rig, &|| {
        let start = Instant::now();
        let result = subject.run(&rig.store, case.keeps_data);
        *slot.lock().unwrap() = Some((result, start.elapsed()));
    });
    let (result, took) = slot.into_inner().unwrap().unwrap();

    let reported = result.as_ref().map_or_else(kind, |()| "ok".to_owned());
    assert_documented(row, op, &reported, &(context, &result));
    // The store waits for its deadline, if that is short, or for nothing.
    assert!(took < SHORT + PROMPT, "{context}: took {took:?}");
    if let Err(error) = &result {
        assert_holds_no_secret(error, &subject);
    }
    match TABLE[row][4] {
        "" => {}
        "at once" => assert_fails_at_once(rig, row, context),
        "the same" => {
            for other in others {
                let again = other.run(&rig.store, true);
                let reported = again.as_ref().map_or_else(kind, |()| "ok".to_owned());
                assert_documented(row, other.op, &reported, &(context, again));
            }
        }
        other => panic!("what is {other:?} in the table?"),
    }

    (case.lift)(rig);
    assert!(eventually(PATIENCE, || rig.admin.read(&subject.id, Touch::No).is_ok()), "{context}");
    let (undone, done) = subject.outcomes(case.keeps_data);
    let found = (rig.payload(&subject.id), rig.payload(&subject.new));
    match reported.as_str() {
        "ok" => assert_eq!(found, done, "{context}"),
        "MayHaveHappened" => assert!(found == undone || found == done, "{context}: {found:?}"),
        _ => assert_eq!(found, undone, "{context}"),
    }
}

fn kind(error: &Error) -> String {
    format!("{:?}", error.kind())
}

fn assert_fails_at_once(rig: &Rig, row: &str, context: &str) {
    let read = || rig.store.read(&rig.bystander, Touch::No);
    assert!(eventually(PATIENCE, || read().is_err() && !rig.store.health().is_healthy()), "{context}");
    // The first probe is granted a moment.
    thread::sleep(Duration::from_millis(50));
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            let reported = kind(&read().unwrap_err());
            if reported != "Unavailable" {
                assert_documented(row, Op::Read, &reported, &context);
            }
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    // A caller that waits for a connection checks the circuit breaker only after this time.
    assert!(times[50] < Duration::from_millis(10), "{context}: fails in {:?}", times[50]);
}

fn assert_holds_no_secret(error: &Error, subject: &Subject) {
    let reported = format!("{error} {error:?} {:?}", std::error::Error::source(error).map(ToString::to_string));
    for secret in [&subject.id.expose(), &subject.new.expose(), &subject.before, &subject.after, PASSWORD] {
        assert!(!reported.contains(secret), "{reported}");
    }
}

macro_rules! faults {
    ($($name:ident: $row:literal, $setting:expr, $strike:expr, $lift:expr $(, $keeps_data:literal)?;)*) => {
        $(
            #[test]
            fn $name() {
                let keeps_data = true $(&& $keeps_data)?;
                check($row, &Case { setting: $setting, strike: $strike, lift: $lift, keeps_data });
            }
        )*

        #[test]
        fn every_row_of_the_table_is_checked() {
            let checked: BTreeSet<&str> = [$($row,)* A_CLUSTER, NEITHER, FORKED].into();
            assert_eq!(checked, TABLE.keys().copied().collect());
        }
    };
}

const NOTHING: fn(&Rig) = |_| {};

faults! {
    known_to_be_away: "is known to be unreachable", KEEPS,
        |rig, act| {
            rig.server.kill();
            assert!(eventually(PATIENCE, || !rig.serves() && !rig.store.health().is_healthy()));
            act();
        },
        |rig| rig.server.restart();
    killed_during_the_command: "is killed during the command", Setting { proxied: true, ..KEEPS },
        |rig, act| {
            rig.server.stop();
            let before = rig.proxy.fired();
            // Does nothing but count the request.
            rig.proxy.set_for(Fault::Drip(Duration::ZERO), 1);
            thread::scope(|scope| {
                scope.spawn(act);
                assert!(eventually(PATIENCE, || rig.proxy.fired() > before));
                rig.server.kill();
            });
        },
        |rig| rig.server.restart();
    killed_while_idle: "was killed since the last command", KEEPS,
        |rig, act| {
            rig.server.kill();
            act();
        },
        |rig| rig.server.restart();
    restarted: "was restarted since, with its data", KEEPS,
        |rig, act| {
            rig.server.restart();
            act();
        },
        NOTHING;
    restarted_empty: "was restarted since, without its data", PLAIN,
        |rig, act| {
            rig.server.restart();
            act();
        },
        NOTHING, false;
    hanging: "hangs", WAITS,
        |rig, act| {
            rig.server.stop();
            act();
        },
        |rig| rig.server.resume();
    dripping: "responds in drips", PROXIED, |rig, act| strike_once(rig, Fault::Drip(Duration::from_millis(1)), act), NOTHING;
    interrupted: "replies while signals interrupt the thread", PROXIED,
        |rig, act| {
            let before = rig.proxy.fired();
            rig.proxy.set(Fault::Delay(Duration::from_millis(30)));
            let signals = Signals::start(Victims::ThisThread);
            act();
            drop(signals);
            assert!(rig.proxy.fired() > before);
        },
        |rig| rig.proxy.set(Fault::None);
    forgotten: "is behind a firewall that forgot the idle connections", Setting { idle: SHORT / 5, connections: 1, ..PARTLY },
        |rig, act| {
            let before = rig.proxy.swallowed();
            rig.proxy.forget();
            thread::sleep(SHORT);
            act();
            assert!(rig.proxy.swallowed() > before);
        },
        NOTHING;
    dead_first_address: "has a name whose first address is dead", PARTLY,
        |rig, act| {
            let (dead, live) = (DeadEnd::start(), Proxy::start(&rig.server));
            *rig.addresses.lock().unwrap() = vec![dead.address(), live.address()];
            rig.kill_clients();
            act();
            assert!(live.accepted() > 0);
            // From here on without the dead one.
            *rig.addresses.lock().unwrap() = vec![live.address()];
            rig.kept.lock().unwrap().push(live);
        },
        NOTHING;
    cut_before: "cuts the connection before the command arrives", PROXIED,
        |rig, act| strike_once(rig, Fault::CutBeforeRequest, act), NOTHING;
    cut_mid_reply: "cuts the connection in the middle of the reply", PROXIED,
        |rig, act| strike_once(rig, Fault::CutReplyAt(2), act), NOTHING;
    cut_after: "cuts the connection after the command, before the reply", PROXIED,
        |rig, act| strike_once(rig, Fault::CutAfterExecuted, act), NOTHING;
    cut_always: "cuts every connection after the command", PROXIED,
        |rig, act| {
            rig.proxy.set(Fault::CutAfterExecuted);
            act();
        },
        |rig| rig.proxy.set(Fault::None);
    clients_killed: "had all connections killed (`CLIENT KILL`)", PLAIN,
        |rig, act| {
            rig.kill_clients();
            act();
        },
        NOTHING;
    scripts_flushed: "forgot its scripts (`SCRIPT FLUSH`)", PLAIN,
        |rig, act| {
            rig.cmd(&["SCRIPT", "FLUSH"]);
            act();
        },
        NOTHING;
    loading: "loads its data (`LOADING`)", PLAIN,
        |rig, act| {
            rig.server.load();
            act();
        },
        |rig| rig.server.finish_loading();
    without_primary: "is a replica without a primary (`MASTERDOWN`)", PLAIN,
        |rig, act| {
            rig.cmd(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
            rig.server.demote();
            act();
        },
        |rig| rig.server.promote();
    paused: "takes no writes for a while (`CLIENT PAUSE … WRITE`)", WAITS,
        |rig, act| {
            rig.cmd(&["CLIENT", "PAUSE", "600000", "WRITE"]);
            act();
        },
        |rig| drop(rig.cmd(&["CLIENT", "UNPAUSE"]));
    busy: "is busy with a script (`BUSY`)", PLAIN,
        |rig, act| {
            rig.server.occupy();
            act();
        },
        |rig| rig.server.interrupt();
    read_only: "is a replica, or was demoted (`READONLY`)", PLAIN,
        |rig, act| {
            rig.server.demote();
            act();
        },
        |rig| rig.server.promote();
    disk: "cannot write to its disk (`MISCONF`)", PLAIN,
        |rig, act| {
            rig.server.lose_disk();
            act();
        },
        |rig| rig.server.regain_disk();
    replicas: "has too few replicas (`NOREPLICAS`)", PLAIN,
        |rig, act| {
            rig.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
            act();
        },
        |rig| drop(rig.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]));
    out_of_memory: "is at `maxmemory` (`OOM`)", PLAIN,
        |rig, act| {
            rig.server.fill();
            act();
        },
        |rig| rig.server.make_room();
    not_permitted: "permits nothing to this user (`NOPERM`)", PLAIN,
        |rig, act| {
            rig.cmd(&["ACL", "SETUSER", "default", "-@all"]);
            act();
        },
        |rig| drop(rig.cmd(&["ACL", "SETUSER", "default", "+@all"]));
    password: "wants a password (`NOAUTH`)", PLAIN, |rig, act| change_password(rig, "new", act), |rig| set_password(rig, "");
    other_password: "wants another password (`WRONGPASS`)",
        Setting { args: &["--requirepass", PASSWORD], password: PASSWORD, ..PLAIN },
        |rig, act| change_password(rig, "new", act),
        |rig| set_password(rig, PASSWORD);
}

fn strike_once(rig: &Rig, fault: Fault, act: &(dyn Fn() + Sync)) {
    let before = rig.proxy.fired();
    rig.proxy.set_for(fault, 1);
    act();
    assert_eq!(rig.proxy.fired(), before + 1);
}

fn set_password(rig: &Rig, password: &str) {
    rig.cmd(&["CONFIG", "SET", "requirepass", password]);
}

fn change_password(rig: &Rig, password: &str, act: &(dyn Fn() + Sync)) {
    set_password(rig, password);
    // Connections that are open stay as they are.
    rig.kill_clients();
    assert!(eventually(PATIENCE, || rig.store.read(&rig.bystander, Touch::No).is_err_and(|e| kind(&e) == "Denied")));
    act();
}

/// Every operation on this store is refused as documented.
fn assert_all_refused(row: &str, store: &RedisSessionStore) {
    for op in OPS {
        let error = Subject::absent(op).run(store, false).unwrap_err();
        assert_documented(row, op, &kind(&error), &(store, &error));
    }
}

const FORKED: &str = "is used after `fork`";

#[test]
fn used_after_fork() {
    let rig = Rig::new(&PLAIN, true);
    assert!(rig.serves());
    let said = in_child(|| {
        assert_all_refused(FORKED, &rig.store);
        "as documented".to_owned()
    });
    assert_eq!(said.as_deref(), Some("as documented"));
    assert!(rig.serves());
}

const A_CLUSTER: &str = "is a cluster (`MOVED`)";

#[test]
fn a_cluster() {
    let args = ["--cluster-enabled", "yes"];
    let (asked, owner) = (RedisServer::with(&args), RedisServer::with(&args));
    owner.cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    asked.cmd(&["CLUSTER", "MEET", "127.0.0.1", &owner.port().to_string()]);
    let moved = || {
        redis::cmd("GET").arg("key").query::<Value>(&mut asked.connection()).is_err_and(|e| e.code() == Some("MOVED"))
    };
    assert!(eventually(PATIENCE, moved));
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(asked.url()).deadline(PATIENCE);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        assert_all_refused(A_CLUSTER, &store);
        assert!(store.health().is_healthy(), "it is healthy");
    }
}

const NEITHER: &str = "is no Redis, or no Sentinel, as the URL promises";

#[test]
fn plain_server_as_cluster_or_sentinel_is_rejected() {
    let server = RedisServer::start();
    let port = server.port();
    for url in ["redis-cluster://127.0.0.1:PORT", "redis-sentinel://127.0.0.1:PORT?sentinelServiceName=master"] {
        let builder = RedisSessionStore::builder().url(url.replace("PORT", &port.to_string())).deadline(PATIENCE);
        let store = builder.expiring().build().unwrap();
        assert_all_refused(NEITHER, &store);
    }
}
