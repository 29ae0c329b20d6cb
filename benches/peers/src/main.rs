//! Compares this crate with other session libraries: the same payload, the same operations and the same Redis, in alternating rounds.
//!
//! `benches/peers/run` installs the peers and starts this program, which starts a private Redis and the servers. The program
//! draws the chart of the README and writes the table of `docs/comparison.md`. In each round every peer has its turn between two
//! turns of this crate, so whatever disturbs the machine disturbs both; a ratio is the median of the ratios of the rounds.
//!
//! ```text
//! benches/peers/run
//! benches/peers/run --rounds 31 --chart /tmp/peers.svg
//! benches/peers/run --short
//! ```

mod browsers;
mod chart;
mod levels;
#[path = "../../throughput/measure.rs"]
#[allow(dead_code, reason = "the other benchmark also reports CPU time and percentiles")]
mod measure;
mod report;
mod rounds;
mod servers;
mod stores;
mod support;
#[path = "../../throughput/visit.rs"]
mod visit;

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

use report::Report;
use support::RedisServer;

struct Options {
    /// Only prove that it runs. Writes nothing unless told where.
    short: bool,
    rounds: usize,
    chart: Option<PathBuf>,
    table: Option<PathBuf>,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut short, mut rounds, mut chart, mut table) = (false, None, None, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match &*arg {
                "--short" => short = true,
                "--rounds" => rounds = Some(value()?.parse().map_err(|_| "--rounds wants a number".to_owned())?),
                "--chart" => chart = Some(value()?.into()),
                "--table" => table = Some(value()?.into()),
                _ => return Err(format!("{arg} is not known")),
            }
        }
        let usual = |path: &str| (!short).then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(path));
        let options = Self {
            short,
            rounds: rounds.unwrap_or(if short { 1 } else { 15 }).max(1),
            chart: chart.or_else(|| usual("peers.svg")),
            table: table.or_else(|| usual("comparison.md")),
        };
        // Better now than after minutes of measuring.
        options.table.as_deref().map(report::around_tables).transpose()?;
        Ok(options)
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [serve, name, port, url] = &*args
        && serve == servers::SERVE
    {
        return servers::serve(name, port.parse().expect("a port"), url);
    }
    let options = Options::read(args.into_iter()).unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    let mut report = Report::default();
    let redis = RedisServer::start();
    levels::stores(&mut report, &options, &redis);
    levels::pages(&mut report, &options, &redis);
    report.check();
    if let Some(path) = &options.chart {
        std::fs::write(path, chart::draw(&report)).expect("the chart can be written");
    }
    if let Some(path) = &options.table {
        report.write_into(path);
    }
}
