//! Measures reaping: its time compared with the method of rrss, the longest time that a script holds Redis, and the latency of
//! other clients.
//!
//! `cargo bench --bench reaper` prints a table of a full run; `-- --short` only shows that the benchmark runs.

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use support::RedisServer;
use threaded_sessions::{RedisSessionStore, SessionManager, SessionStore};

/// Adds sessions with this payload, whose deadline is so many milliseconds away, to the index. The ids are spread, so that the
/// index and the keyspace have them in different orders.
const LOAD: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for number = ARGV[1], ARGV[2] - 1 do
        local key = 'sessions:' .. string.format('%08x-0000-4000-8000-000000000000', number * 2654435761 % 4294967296)
        local left = tonumber(ARGV[3]) - number % 1000
        redis.call('SET', key, ARGV[4], 'PX', left + 86400000)
        redis.call('ZADD', KEYS[1], now + left, key)
    end";

const INDEX: &str = "sessions:index";
const HOUR: i64 = 3_600_000;

struct Size {
    overdue: u32,
    live: [u32; 2],
    repeats: u32,
    /// How long clients are watched without a reaper.
    quiet: Duration,
}

const FULL: Size = Size { overdue: 100_000, live: [1000, 1_000_000], repeats: 3, quiet: Duration::from_secs(2) };
const SHORT: Size = Size { overdue: 3000, live: [1000, 20_000], repeats: 1, quiet: Duration::from_millis(200) };

fn main() {
    let size = if env::args().any(|arg| arg == "--short") { SHORT } else { FULL };
    let server = RedisServer::start();
    println!("{} overdue sessions of 1 KiB; medians of {} runs, lowest and highest", size.overdue, size.repeats);
    let runs: Vec<Run> = (0..size.repeats).map(|_| run(&server, &size)).collect();
    let row = |name: &str, unit: &str, figure: &dyn Fn(&Run) -> f64| {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures[0], figures[figures.len() - 1]);
        println!("{name:58} {:>9.3} {unit:3} ({low:.3} to {high:.3})", figures[figures.len() / 2]);
    };
    row("rrss's way", "s", &|run| run.rrss);
    row("flat out", "s", &|run| run.flat_out.took);
    row("  times faster than rrss's (at least 20)", "", &|run| run.rrss / run.flat_out.took);
    row("  a script holds Redis for, median (at most 0.3)", "ms", &|run| run.flat_out.script);
    row("gentle, the default", "s", &|run| run.gentle.took);
    row("  times faster than rrss's (at least 4)", "", &|run| run.rrss / run.gentle.took);
    row("  a script holds Redis for, median", "ms", &|run| run.gentle.script);
    row("a client's GET without a reaper, p99", "ms", &|run| run.quiet);
    row("  next to a reaper at full speed", "ms", &|run| run.flat_out.p99);
    row("  next to a gentle reaper", "ms", &|run| run.gentle.p99);
    row("    times that without (at most 3)", "", &|run| run.gentle.p99 / run.quiet);
    println!("a round with nothing due, median of 1000");
    for live in size.live {
        println!("{:>50} sessions {:>9.3} ms", live, idle_round(&server, live));
    }
}

struct Run {
    /// Seconds.
    rrss: f64,
    flat_out: Reaping,
    gentle: Reaping,
    quiet: f64,
}

/// The seconds of a run, the milliseconds of one script, and those of a client's `GET` during the run.
struct Reaping {
    took: f64,
    script: f64,
    p99: f64,
}

fn run(server: &RedisServer, size: &Size) -> Run {
    let reaper = |gentle| {
        let reaper = sessions(server).reaper().resolution(Duration::MAX);
        reaper.gentle(gentle).start().unwrap()
    };
    let reap = |gentle| {
        let reaper = reaper(gentle);
        measure(server, size, || assert_eq!(reaper.reap_now().unwrap(), u64::from(size.overdue)))
    };
    load(server, "sessions:all", size.overdue, -1, &"x".repeat(1024));
    Run {
        rrss: seconds(server, || rrss(server)),
        flat_out: reap(false),
        quiet: p99_beside(server, || thread::sleep(size.quiet)).1,
        gentle: reap(true),
    }
}

/// How long it takes to reap everything.
fn seconds(server: &RedisServer, reap: impl Fn()) -> f64 {
    let started = Instant::now();
    reap();
    let took = started.elapsed().as_secs_f64();
    assert_eq!(server.cmd(&["DBSIZE"]), Value::Int(0));
    took
}

/// Measures the time of reaping alone first, then in a second run the scripts and the other clients.
fn measure(server: &RedisServer, size: &Size, reap: impl Fn()) -> Reaping {
    let load = || load(server, INDEX, size.overdue, -1, &"x".repeat(1024));
    load();
    let took = seconds(server, &reap);

    load();
    server.cmd(&["CONFIG", "SET", "slowlog-max-len", "10000"]);
    server.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    server.cmd(&["SLOWLOG", "RESET"]);
    reap();
    server.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
    let script = script_median(server);

    load();
    let ((), p99) = p99_beside(server, &reap);
    Reaping { took, script, p99 }
}

/// rrss's reaper: all that is overdue, then two commands for each, on one connection.
fn rrss(server: &RedisServer) {
    let mut connection = server.connection();
    let keys: Vec<String> =
        redis::cmd("ZRANGEBYSCORE").arg("sessions:all").arg("-inf").arg("+inf").query(&mut connection).unwrap();
    for key in keys {
        redis::cmd("ZREM").arg("sessions:all").arg(&key).exec(&mut connection).unwrap();
        redis::cmd("DEL").arg(&key).exec(&mut connection).unwrap();
    }
}

/// Milliseconds of a round that finds nothing.
fn idle_round(server: &RedisServer, live: u32) -> f64 {
    server.cmd(&["FLUSHALL"]);
    load(server, INDEX, live, HOUR, "x");
    let reaper = sessions(server).reaper().resolution(Duration::MAX).start().unwrap();
    let round = || {
        let started = Instant::now();
        assert_eq!(reaper.reap_now().unwrap(), 0);
        started.elapsed()
    };
    percentile((0..1000).map(|_| round()).collect(), 50)
}

fn sessions(server: &RedisServer) -> SessionManager<u64> {
    let store =
        RedisSessionStore::builder().url(server.url()).deadline(Duration::from_secs(60)).expiring().build().unwrap();
    // Connected, and the script known.
    store.index().unwrap().reap(0, 1, false).unwrap();
    SessionManager::new(store)
}

fn load(server: &RedisServer, index: &str, sessions: u32, left: i64, payload: &str) {
    let mut connection = server.connection();
    for start in (0..sessions).step_by(10_000) {
        let end = sessions.min(start + 10_000);
        let mut load = redis::cmd("EVAL");
        load.arg(LOAD).arg(1).arg(index).arg(start).arg(end).arg(left).arg(payload).exec(&mut connection).unwrap();
    }
}

/// Does it, while a client asks for a session as fast as it can; with the client's p99 in milliseconds.
fn p99_beside<R>(server: &RedisServer, act: impl FnOnce() -> R) -> (R, f64) {
    server.cmd(&["SET", "other", &"x".repeat(1024)]);
    let done = AtomicBool::new(false);
    let (done, mut connection) = (&done, server.connection());
    let result = thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut took = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                redis::cmd("GET").arg("other").exec(&mut connection).unwrap();
                took.push(asked.elapsed());
            }
            took
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        (result, percentile(client.join().unwrap(), 99))
    });
    server.cmd(&["DEL", "other"]);
    result
}

/// Milliseconds for which a script held the server, by its own account.
fn script_median(server: &RedisServer) -> f64 {
    let log: Vec<Vec<Value>> = redis::from_redis_value(server.cmd(&["SLOWLOG", "GET", "-1"])).unwrap();
    let script = |entry: Vec<Value>| {
        let [_, _, Value::Int(micros), Value::Array(command), ..] = &entry[..] else { panic!("{entry:?}") };
        let is_script = matches!(&command[0], Value::BulkString(name) if name == b"EVALSHA");
        is_script.then(|| Duration::from_micros(*micros as u64))
    };
    percentile(log.into_iter().filter_map(script).collect(), 50)
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> f64 {
    times.sort_unstable();
    let time = times.get(times.len() * percent / 100).copied().unwrap_or_default();
    time.as_secs_f64() * 1000.0
}
