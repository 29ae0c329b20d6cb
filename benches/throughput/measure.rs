//! Rounds in which the sides of a comparison take turns, so that noise of the machine affects all of them.

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::support::RedisServer;

/// One operation of a thread.
pub(crate) type Act<'a> = Box<dyn FnMut() + Send + 'a>;

/// One side of a comparison: prepares, off the clock, what each of `threads` threads is to do `each` times.
pub(crate) type Side<'s, 'a> = &'s (dyn Fn(Load) -> Vec<Act<'a>> + 's);

/// How much one batch does.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) threads: usize,
    pub(crate) each: usize,
}

impl Load {
    /// Turns that are long enough to be timed, and short enough that the machine hardly changes before the other side's turn.
    pub(crate) fn usual(threads: usize) -> Self {
        Self { threads, each: if threads == 1 { 1000 } else { 4000 / threads } }
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) load: Load,
    /// The number of parts of a turn. The clock stops while the next part is prepared. Small parts keep the prepared data in the
    /// cache of the processor, as within a request.
    pub(crate) batches: usize,
}

/// One side in one round, or the medians of all rounds. Times are microseconds, of an operation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU time of this program, and of Redis.
    pub(crate) client: f64,
    pub(crate) server: f64,
}

/// Median, first and third quarter.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4]);
        Self { low, median, high }
    }
}

/// The result of the rounds. The first side is the floor, and runs again at the end of each round.
pub(crate) struct Outcome {
    /// Of each side but the repeated floor.
    pub(crate) figures: Vec<Figures>,
    /// Throughput of each side but the floor, relative to the mean of the floors before and after it.
    pub(crate) ratios: Vec<Spread>,
    /// The floor at the end of a round relative to itself at the beginning: what no ratio can be finer than.
    pub(crate) noise: Spread,
}

impl Plan {
    pub(crate) fn run(&self, server: &RedisServer, sides: &[Side<'_, '_>]) -> Outcome {
        let turns: Vec<_> = sides.iter().chain(&sides[..1]).copied().collect();
        // Opens connections and makes the scripts known.
        for side in &turns {
            self.turn(server, *side);
        }
        let rounds: Vec<Vec<Figures>> =
            (0..self.rounds).map(|_| turns.iter().map(|side| self.turn(server, *side)).collect()).collect();

        let last = sides.len();
        let ratio = |round: &Vec<Figures>, side: usize| {
            let floor = (1.0 / round[0].per_second + 1.0 / round[last].per_second) / 2.0;
            round[side].per_second * floor
        };
        Outcome {
            figures: (0..last).map(|side| medians(rounds.iter().map(|round| round[side]).collect())).collect(),
            ratios: (1..last).map(|side| Spread::of(rounds.iter().map(|round| ratio(round, side)).collect())).collect(),
            noise: Spread::of(rounds.iter().map(|round| round[last].per_second / round[0].per_second).collect()),
        }
    }

    fn turn(&self, server: &RedisServer, side: Side<'_, '_>) -> Figures {
        let (mut took, mut times) = (Duration::ZERO, Vec::new());
        let mut cpu = [0.0; 2];
        for _ in 0..self.batches {
            let acts = side(self.load);
            let before = [cpu_of_client(), cpu_of_server(server)];
            took += batch(acts, self.load.each, &mut times);
            let after = [cpu_of_client(), cpu_of_server(server)];
            (0..2).for_each(|end| cpu[end] += after[end] - before[end]);
        }
        let operations = times.len() as f64;
        times.sort_unstable();
        let percentile = |percent: usize| f64::from(times[(times.len() - 1) * percent / 100]) / 1e3;
        Figures {
            per_second: operations / took.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            client: cpu[0] / operations,
            server: cpu[1] / operations,
        }
    }
}

/// Carries out each act `each` times, adds the nanoseconds of each time, and returns the total time.
pub(crate) fn batch(acts: Vec<Act<'_>>, each: usize, times: &mut Vec<u32>) -> Duration {
    let work = |mut act: Act<'_>, ready: &Barrier| {
        let mut times = Vec::with_capacity(each);
        ready.wait();
        let began = Instant::now();
        let mut last = began;
        for _ in 0..each {
            act();
            let now = Instant::now();
            times.push((now - last).as_nanos() as u32);
            last = now;
        }
        (began, last, times)
    };
    let ready = Barrier::new(acts.len());
    let done: Vec<_> = match <[Act<'_>; 1]>::try_from(acts) {
        Ok([alone]) => vec![work(alone, &ready)],
        Err(acts) => thread::scope(|scope| {
            let threads: Vec<_> = acts.into_iter().map(|act| scope.spawn(|| work(act, &ready))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no operation fails")).collect()
        }),
    };
    let began = done.iter().map(|(began, ..)| *began).min().expect("there is a thread");
    let ended = done.iter().map(|(_, ended, _)| *ended).max().expect("there is a thread");
    done.into_iter().for_each(|(.., mut some)| times.append(&mut some));
    ended - began
}

fn medians(rounds: Vec<Figures>) -> Figures {
    let median = |figure: fn(&Figures) -> f64| Spread::of(rounds.iter().map(figure).collect()).median;
    Figures {
        per_second: median(|figures| figures.per_second),
        p50: median(|figures| figures.p50),
        p99: median(|figures| figures.p99),
        client: median(|figures| figures.client),
        server: median(|figures| figures.server),
    }
}

/// Microseconds of CPU time of this program so far.
fn cpu_of_client() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Microseconds of CPU time of Redis so far, by the scheduler's account where there is one: asking Redis costs it some.
fn cpu_of_server(server: &RedisServer) -> f64 {
    let account = fs::read_to_string(format!("/proc/{}/schedstat", server.pid())).ok();
    let nanos = account.and_then(|account| account.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or_else(|| cpu_by_info(server), |nanos| nanos / 1e3)
}

fn cpu_by_info(server: &RedisServer) -> f64 {
    let info: String = redis::from_redis_value(server.cmd(&["INFO", "cpu"])).expect("it is text");
    let used = |line: &str| {
        let (name, seconds) = line.split_once(':')?;
        ["used_cpu_sys", "used_cpu_user"].contains(&name).then(|| seconds.parse::<f64>().ok())?
    };
    info.lines().filter_map(used).sum::<f64>() * 1e6
}

/// Where threads that are started from now on, and Redis, run.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// All on one core. This shows the length of the path, because no thread is woken up on another core.
    Together,
    /// Redis on one core, the threads on the others.
    Apart,
}

/// Moves this thread, and Redis, there if the system allows it.
#[cfg(target_os = "linux")]
pub(crate) fn go(place: Place, server: &RedisServer) {
    use std::sync::LazyLock;

    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    static CORES: LazyLock<Vec<usize>> = LazyLock::new(|| {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
    });
    let Some((last, others)) = CORES.split_last() else { return };
    let set = |cores: &[usize]| {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        set
    };
    let own = match place {
        Place::Apart if !others.is_empty() => others,
        _ => std::slice::from_ref(last),
    };
    let server = Pid::from_raw(server.pid() as i32);
    let moved = sched_setaffinity(server, &set(&[*last])).and_then(|()| sched_setaffinity(None, &set(own)));
    if let Err(error) = moved {
        println!("(nothing is kept on a core: {error})");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn go(_: Place, _: &RedisServer) {
    println!("(nothing is kept on a core: this system has no way)");
}
