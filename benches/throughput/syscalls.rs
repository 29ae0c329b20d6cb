//! Counts the system calls of an operation. strace runs this program twice, with little work and with more; the difference counts.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use super::by_hand::Operation;
use super::measure::Load;
use super::report::Report;
use super::store::Bench;
use super::support::RedisServer;

const TASK: &str = "--task";

/// The work of the program that is started under strace.
pub(crate) struct Task {
    url: String,
    operation: Operation,
    by_hand: bool,
    times: usize,
}

impl Task {
    pub(crate) fn read(args: &mut impl Iterator<Item = String>) -> Option<Self> {
        args.next().filter(|arg| arg == TASK)?;
        let [url, operation, side, times] = [(); 4].map(|()| args.next().expect("four arguments"));
        let operation = Operation::ALL.into_iter().find(|known| known.name() == operation);
        let (operation, times) = (operation.expect("an operation"), times.parse().expect("a number"));
        Some(Self { url, operation, by_hand: side == "floor", times })
    }

    pub(crate) fn run(self) {
        let bench = Bench::new(&self.url, 1, false, 1024);
        let (hand, load) = (bench.by_hand(self.operation), Load { threads: 1, each: self.times });
        let mut acts = match self.by_hand {
            true => bench.floor_acts(&hand, self.operation, load),
            false => bench.store_acts(self.operation, load),
        };
        (0..self.times).for_each(|_| acts[0]());
    }
}

pub(crate) fn run(report: &mut Report, server: &RedisServer) {
    report.section("system calls of an operation, store, plain, TCP");
    let (few, many) = if report.options().short { (10, 30) } else { (500, 1500) };
    let operations = if report.options().short { &[Operation::Read][..] } else { &Operation::ALL };
    for &operation in operations.iter() {
        if !report.wants(operation.name()) {
            continue;
        }
        for side in ["floor", "crate"] {
            let calls = [few, many].map(|times| count(&server.url(), operation, side, times));
            let line = match calls {
                [Ok(few_calls), Ok(many_calls)] => {
                    let per = |(name, calls): (String, f64)| {
                        let per = (calls - few_calls.get(&name).unwrap_or(&0.0)) / (many - few) as f64;
                        // Some are made once in a while, by the threads of a pool.
                        (per > 0.05).then(|| format!("{name} {per:.2}"))
                    };
                    many_calls.into_iter().filter_map(per).collect::<Vec<_>>().join(", ")
                }
                [Err(why), _] | [_, Err(why)] => return report.line(&format!("not counted: {why}")),
            };
            report.line(&format!("{:34} {side}: {line}", operation.name()));
        }
    }
}

fn count(url: &str, operation: Operation, side: &str, times: usize) -> Result<BTreeMap<String, f64>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (summary, own) = (dir.path().join("summary"), env::current_exe().map_err(|error| error.to_string())?);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&summary).arg(own);
    strace.args([TASK, url, operation.name(), side, &times.to_string()]);
    let output = strace.output().map_err(|_| "strace is not installed".to_owned())?;
    if !output.status.success() {
        return Err(format!("strace failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let summary = std::fs::read_to_string(summary).map_err(|error| error.to_string())?;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(((*fields.last()?).to_owned(), fields.get(3)?.parse().ok()?))
    };
    Ok(summary.lines().filter_map(line).filter(|(name, _)| name != "total").collect())
}
