//! Prints the table, and keeps its rows for the chart.

use std::io::{self, Write};

use super::Options;
use super::measure::{Load, Outcome, Plan, Side};
use super::support::RedisServer;

pub(crate) struct Report {
    options: Options,
    section: String,
    printed: String,
    pub(crate) rows: Vec<Row>,
}

/// One row of the chart: a comparison of two sides.
pub(crate) struct Row {
    pub(crate) section: String,
    pub(crate) name: String,
    pub(crate) ratio: f64,
}

impl Report {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, section: String::new(), printed: String::new(), rows: Vec::new() }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// A plan of so much, or of little where it only has to be proved that it runs.
    pub(crate) fn plan(&self, load: Load, batches: usize) -> Plan {
        let rounds = self.options.rounds;
        if self.options.short {
            Plan { rounds, load: Load { each: load.each.min(10), ..load }, batches: 1 }
        } else {
            Plan { rounds, load, batches }
        }
    }

    pub(crate) fn section(&mut self, title: &str) {
        self.section = title.to_owned();
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.options.only.as_ref().is_none_or(|only| format!("{}: {name}", self.section).contains(only))
    }

    pub(crate) fn compare<'a>(
        &mut self,
        name: &str,
        plan: Plan,
        server: &RedisServer,
        floor: Side<'_, 'a>,
        other: Side<'_, 'a>,
    ) {
        if !self.wants(name) {
            return;
        }
        let outcome = plan.run(server, &[floor, other]);
        self.row(name, &outcome);
        let name = name.to_owned();
        self.rows.push(Row { section: self.section.clone(), name, ratio: outcome.ratios[0].median });
    }

    /// Prints something that is no comparison of two.
    pub(crate) fn line(&mut self, line: &str) {
        self.heading("");
        println!("{line}");
        let _ = io::stdout().flush();
    }

    fn heading(&mut self, columns: &str) {
        if self.printed != self.section {
            self.printed.clone_from(&self.section);
            println!("\n{}{columns}", self.section);
        }
    }

    fn row(&mut self, name: &str, outcome: &Outcome) {
        self.heading(&format!(
            "\n{:34}{:>15} {:>20} {:>14} {:>13} {:>15} {:>13} {:>13}",
            "", "ops/s", "of the floor", "floor/floor", "p50 µs", "p99 µs", "CPU µs", "Redis CPU µs"
        ));
        let [floor, other] = [outcome.figures[0], outcome.figures[1]];
        let [ratio, noise] = [outcome.ratios[0], outcome.noise];
        println!(
            "{name:34}{:>7.0} {:>7.0} {:>6.3} ({:.3}–{:.3}) {:>14} {:>6.1} {:>6.1} {:>7.1} {:>7.1} {:>6.2} {:>6.2} {:>6.2} {:>6.2}",
            floor.per_second,
            other.per_second,
            ratio.median,
            ratio.low,
            ratio.high,
            format!("{:.3}±{:.3}", noise.median, (noise.high - noise.low) / 2.0),
            floor.p50,
            other.p50,
            floor.p99,
            other.p99,
            floor.client,
            other.client,
            floor.server,
            other.server,
        );
        let _ = io::stdout().flush();
    }
}
