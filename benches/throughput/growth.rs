//! How the cost of an operation grows: with the number of sessions, the size of a payload, the number of threads.

use std::thread;
use std::time::Duration;

use threaded_sessions::store::{Found, Saved, Touch, Write};
use threaded_sessions::{RedisSessionStore, SessionId, SessionStore};

use super::by_hand::{ByHand, Operation, WEEK};
use super::floor::Floor;
use super::measure::{Act, Load, Place, Plan, Side, go};
use super::report::Report;
use super::store::Bench;
use super::support::RedisServer;

/// Stores sessions, with the payload and the milliseconds to live of ARGV; in an index if there is one.
const LOAD: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for number = ARGV[1], ARGV[2] - 1 do
        local key = string.format('sessions:%08x-0000-4000-8000-000000000000', number * 2654435761 % 4294967296)
        redis.call('SET', key, ARGV[3], 'PX', ARGV[4])
        if KEYS[1] then redis.call('ZADD', KEYS[1], now + ARGV[4] - 86400000, key) end
    end";

pub(crate) fn run(report: &mut Report, server: &RedisServer) {
    for expiring in [false, true] {
        sessions(report, expiring);
    }
    go(Place::Together, server);
    report.section("growth with the payload, store, plain, TCP, 1 thread");
    for (size, name, each) in
        [(100, "100 B", 1000), (1024, "1 KiB", 1000), (10 * 1024, "10 KiB", 500), (100 * 1024, "100 KiB", 200)]
    {
        let bench = Bench::new(&server.url(), 1, false, size);
        let plan = report.plan(Load { threads: 1, each }, 1);
        for operation in [Operation::Read, Operation::Save, Operation::SaveIfUnchanged] {
            bench.compare(report, &format!("{}, {name}", operation.name()), plan, server, operation);
        }
    }
    go(Place::Apart, server);
    report.section("growth with the threads, store, plain, TCP");
    for threads in [1, 2, 4, 8, 16, 32, 64] {
        let bench = Bench::new(&server.url(), threads, false, 1024);
        let plan = report.plan(Load::usual(threads), 1);
        bench.compare(report, &format!("read with touch, threads: {threads}"), plan, server, Operation::Touch);
    }
}

/// Stores of different sizes take turns, each in a separate Redis.
fn sessions(report: &mut Report, expiring: bool) {
    let kind = if expiring { "expiring" } else { "plain" };
    report.section(&format!("growth with the sessions, store, {kind}, TCP, 1 thread"));
    let operations = [Operation::Read, Operation::Touch, Operation::Save];
    if !operations.iter().any(|operation| report.wants(operation.name())) {
        return;
    }
    let sizes: &[u32] = if report.options().short { &[1000, 2000] } else { &[1000, 10_000, 100_000, 1_000_000] };
    let servers: Vec<RedisServer> = sizes.iter().map(|_| RedisServer::start()).collect();
    servers.iter().for_each(|server| go(Place::Together, server));
    let sized: Vec<Sized> =
        servers.iter().zip(sizes).map(|(server, size)| Sized::new(server, *size, expiring)).collect();
    if !report.options().short {
        // Until Redis has enlarged its tables in the background.
        thread::sleep(Duration::from_secs(5));
    }
    let plan = report.plan(Load::usual(1), 1);
    for operation in operations {
        let hands: Vec<ByHand> = sized.iter().map(|sized| sized.by_hand(operation)).collect();
        let floors: Vec<_> =
            sized.iter().zip(&hands).map(|(sized, hand)| |load| sized.floor_acts(hand, operation, load)).collect();
        let stores: Vec<_> = sized.iter().map(|sized| |load| sized.store_acts(operation, load)).collect();
        let floors: Vec<Side<'_, '_>> = floors.iter().map(|side| side as Side<'_, '_>).collect();
        let stores: Vec<Side<'_, '_>> = stores.iter().map(|side| side as Side<'_, '_>).collect();
        series(report, &format!("{}, by hand", operation.name()), plan, &servers[0], &floors, sizes);
        series(report, operation.name(), plan, &servers[0], &stores, sizes);
    }
}

/// Prints how the throughput of the sides compares to that of the first.
fn series(report: &mut Report, name: &str, plan: Plan, server: &RedisServer, sides: &[Side<'_, '_>], sizes: &[u32]) {
    if !report.wants(name) {
        return;
    }
    let outcome = plan.run(server, sides);
    let first = format!("{:>7.0}/s with {}", outcome.figures[0].per_second, sizes[0]);
    let times = outcome.ratios.iter().zip(&sizes[1..]).map(|(ratio, size)| format!("{:.3} with {size}", ratio.median));
    let times = times.collect::<Vec<_>>().join(", ");
    report.line(&format!("{name:34} {first}, {times} (noise {:.3})", outcome.noise.median));
}

/// So many sessions in a Redis.
struct Sized {
    store: RedisSessionStore,
    floor: Floor,
    index: Option<&'static str>,
    size: u32,
}

const PAYLOAD: [u8; 100] = [b'a'; 100];

impl Sized {
    fn new(server: &RedisServer, size: u32, expiring: bool) -> Self {
        let builder = RedisSessionStore::builder().url(server.url()).pool_size(1);
        let store = if expiring { builder.expiring() } else { builder }.build().expect("the settings are valid");
        let index = expiring.then_some("sessions:index");
        let mut connection = server.connection();
        for begin in (0..size).step_by(10_000) {
            let mut load = redis::cmd("EVAL");
            load.arg(LOAD).arg(index.iter().len()).arg(index.as_slice());
            load.arg(begin).arg(size.min(begin + 10_000)).arg(&PAYLOAD).arg(WEEK.as_millis() as u64 + 86_400_000);
            load.exec(&mut connection).expect("Redis responds");
        }
        Self { store, floor: Floor::new(&server.url(), 1), index, size }
    }

    fn by_hand(&self, operation: Operation) -> ByHand {
        ByHand::new(&self.floor, operation, self.index)
    }

    /// Sessions all over the place.
    fn ids(&self, load: Load) -> Vec<SessionId> {
        let mut number: u32 = 1;
        let mut id = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let spread = (number >> 8) % self.size;
            let id = format!("{:08x}-0000-4000-8000-000000000000", spread.wrapping_mul(2_654_435_761));
            id.parse().expect("it has the form of an id")
        };
        (0..load.each).map(|_| id()).collect()
    }

    fn floor_acts<'b>(&self, hand: &'b ByHand, operation: Operation, load: Load) -> Vec<Act<'b>> {
        let keys = self.ids(load).into_iter().map(|id| self.store.key(&id)).collect::<Vec<_>>();
        let mut keys = keys.into_iter();
        vec![Box::new(move || {
            let key = keys.next().expect("one for each time");
            match operation {
                Operation::Save => hand.write(&key, &PAYLOAD, &[]),
                _ => assert_eq!(hand.read(&key).len(), PAYLOAD.len()),
            }
        })]
    }

    fn store_acts(&self, operation: Operation, load: Load) -> Vec<Act<'_>> {
        let mut ids = self.ids(load).into_iter();
        vec![Box::new(move || {
            let id = ids.next().expect("one for each time");
            let (read, touch) = (Touch::No, Touch::Set(WEEK));
            if operation == Operation::Save {
                let saved = self.store.save(&id, Write::new(&PAYLOAD, WEEK), None).expect("Redis responds");
                assert!(matches!(saved, Saved::Stored(_)), "{saved:?}");
            } else {
                let touch = if operation == Operation::Touch { touch } else { read };
                let found = self.store.read(&id, touch).expect("Redis responds");
                assert!(matches!(found, Found::Live(_)), "{found:?}");
            }
        })]
    }
}
