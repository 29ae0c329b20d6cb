//! Measures the cost of sessions: every operation, compared with the same Redis commands sent by hand (the *floor*).
//!
//! ```text
//! cargo bench --all-features --bench throughput
//! cargo bench --all-features --bench throughput -- --level store,session --rounds 101
//! cargo bench --all-features --bench throughput -- --chart docs/throughput.svg
//! cargo bench --all-features --bench throughput -- --short
//! ```
//!
//! The program starts a Redis server. Floor and crate take turns in paired rounds. A ratio is the median of the ratios of all
//! rounds, with their quartiles. `floor/floor` compares the floor with itself: smaller differences than its spread mean nothing.
//! Columns with two figures have the floor first. CPU is the time of this program and of Redis for one operation. At the level
//! of HTTP, this program contains both the server and its clients.
//!
//! The benchmark `reaper` measures reaping.

#[path = "throughput/by_hand.rs"]
mod by_hand;
#[path = "throughput/chart.rs"]
mod chart;
#[path = "throughput/contest.rs"]
mod contest;
#[path = "throughput/floor.rs"]
mod floor;
#[path = "throughput/growth.rs"]
mod growth;
#[path = "throughput/http.rs"]
mod http;
#[path = "throughput/measure.rs"]
mod measure;
#[path = "throughput/report.rs"]
mod report;
#[path = "throughput/session.rs"]
mod session;
#[path = "throughput/store.rs"]
mod store;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "throughput/syscalls.rs"]
mod syscalls;
#[path = "throughput/visit.rs"]
mod visit;

use std::env;
use std::path::PathBuf;

use report::Report;
use support::RedisServer;

type Level = fn(&mut Report, &RedisServer);

const LEVELS: [(&str, Level); 6] = [
    ("store", store::run),
    ("session", session::run),
    ("http", http::run),
    ("syscalls", syscalls::run),
    ("growth", growth::run),
    ("contest", contest::run),
];

struct Options {
    /// Only prove that it runs.
    short: bool,
    rounds: usize,
    levels: Vec<String>,
    /// Only rows that have this in their section or name.
    only: Option<String>,
    chart: Option<PathBuf>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { short: false, rounds: 0, levels: Vec::new(), only: None, chart: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match &*arg {
                "--short" => options.short = true,
                "--rounds" => options.rounds = value()?.parse().map_err(|_| "--rounds wants a number".to_owned())?,
                "--level" => options.levels.extend(value()?.split(',').map(str::to_owned)),
                "--only" => options.only = Some(value()?),
                "--chart" => options.chart = Some(value()?.into()),
                "--bench" => {} // from cargo
                _ => return Err(format!("{arg} is not known")),
            }
        }
        if let Some(level) = options.levels.iter().find(|level| !LEVELS.iter().any(|(name, _)| name == level)) {
            return Err(format!("there is no level {level}, only {}", LEVELS.map(|(name, _)| name).join(", ")));
        }
        if options.rounds == 0 {
            options.rounds = if options.short { 1 } else { 31 };
        }
        Ok(options)
    }
}

fn main() {
    let mut args = env::args().skip(1);
    if let Some(task) = syscalls::Task::read(&mut env::args().skip(1)) {
        return task.run();
    }
    let options = Options::read(&mut args).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2)
    });
    let mut report = Report::new(options);
    for (name, run) in LEVELS {
        let levels = &report.options().levels;
        if levels.is_empty() || levels.iter().any(|level| level == name) {
            run(&mut report, &RedisServer::start());
        }
    }
    if let Some(path) = &report.options().chart {
        std::fs::write(path, chart::draw(&report.rows)).expect("the chart can be written");
        println!("\n{} is written", path.display());
    }
}
