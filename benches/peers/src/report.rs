//! The figures: printed as they come, kept for the chart, and written into the guide as tables.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::rounds::Summary;

/// The lines of the guide between which the tables stand.
const BEGIN: &str = "<!-- measured by benches/peers/run -->\n";
const END: &str = "<!-- end of what is measured -->\n";

/// One operation, by all libraries. The first one is this crate.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    /// Whether all clients change one session, so that increments can be lost.
    pub(crate) contended: bool,
    pub(crate) rows: Vec<(&'static str, Summary)>,
}

impl Section {
    pub(crate) fn new(
        name: &'static str,
        clients: usize,
        contended: bool,
        rows: impl Iterator<Item = (&'static str, Summary)>,
    ) -> Self {
        Self { name, clients, contended, rows: rows.collect() }
    }

    pub(crate) fn title(&self) -> String {
        let clients = if self.clients == 1 { "client" } else { "clients" };
        format!("{}, {} {clients}", self.name, self.clients)
    }

    fn cell(&self, number: usize) -> String {
        let (_, summary) = &self.rows[number];
        let (ratio, kept) = (summary.ratio, self.kept(summary));
        match number {
            0 => format!("{}/s ±{:.2}{kept}", thousands(summary.per_second), (ratio.high - ratio.low) / 2.0),
            _ => format!("{:.2} ({:.2}–{:.2}){kept}", ratio.median, ratio.low, ratio.high),
        }
    }

    fn kept(&self, summary: &Summary) -> String {
        if self.contended { format!(", {:.0} % kept", 100.0 * summary.kept) } else { String::new() }
    }
}

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
}

impl Report {
    pub(crate) fn add(&mut self, section: Section) {
        println!("\n{}", section.title());
        for (number, (library, summary)) in section.rows.iter().enumerate() {
            println!("  {library:26} {:>8}/s   {}", thousands(summary.per_second), section.cell(number));
        }
        let _ = io::Write::flush(&mut io::stdout());
        self.sections.push(section);
    }

    /// Panics if a figure is missing, or if this crate lost an increment.
    pub(crate) fn check(&self) {
        for section in &self.sections {
            for (library, summary) in &section.rows {
                let speed = summary.per_second;
                assert!(speed.is_finite() && speed > 0.0, "{}: {library} did nothing", section.title());
                let own = library.starts_with("this crate");
                let lossless = (summary.kept - 1.0).abs() < f64::EPSILON;
                assert!(!own || !section.contended || lossless, "{library} kept {} of the increments", summary.kept);
            }
        }
    }

    /// Replaces the tables of the guide.
    pub(crate) fn write_into(&self, path: &Path) {
        let [before, after] = around_tables(path).expect("the guide has a place for the tables");
        let guide = format!("{before}{BEGIN}\n{}\n{END}{after}", self.tables());
        fs::write(path, guide).expect("the guide can be written");
    }

    /// A table for each list of libraries.
    fn tables(&self) -> String {
        let (mut tables, mut libraries) = (String::new(), Vec::new());
        for section in &self.sections {
            let names: Vec<_> = section.rows.iter().map(|(library, _)| *library).collect();
            if names != libraries {
                let gap = if libraries.is_empty() { "" } else { "\n" };
                let _ = writeln!(tables, "{gap}| | {} |\n|---{}|", names.join(" | "), "|---".repeat(names.len()));
                libraries = names;
            }
            let cells: Vec<_> = (0..section.rows.len()).map(|number| section.cell(number)).collect();
            let _ = writeln!(tables, "| {} | {} |", section.title(), cells.join(" | "));
        }
        tables
    }
}

/// The text of the guide before and after the tables. An error says what is missing.
pub(crate) fn around_tables(path: &Path) -> Result<[String; 2], String> {
    let name = path.display();
    let guide = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let parts = guide.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{name} lacks the lines {BEGIN}{END}"))?;
    Ok([before.to_owned(), after.to_owned()])
}

/// The number to three digits, with commas.
pub(crate) fn thousands(number: f64) -> String {
    let step = 10_f64.powf(number.log10().floor() - 2.0).max(1.0);
    let rounded = ((number / step).round() * step) as u64;
    let (millions, thousands, ones) = (rounded / 1_000_000, rounded / 1000 % 1000, rounded % 1000);
    match (millions, thousands) {
        (0, 0) => format!("{ones}"),
        (0, _) => format!("{thousands},{ones:03}"),
        _ => format!("{millions},{thousands:03},{ones:03}"),
    }
}
