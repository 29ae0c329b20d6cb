//! The seeds of rounds that failed once, in `linear.seeds`, one a line with the kind of the store.
//!
//! `linear.rs` runs them first. The invariant: a failed round adds its seed, and only a person removes it.

use std::fs::{self, OpenOptions};
use std::io::Write;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../linear.seeds");

/// Returns the kept seeds of a kind.
pub(crate) fn kept(kind: &str) -> Vec<u64> {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    lines.map(|seed| seed.trim().parse().expect("a line has a kind and a seed")).collect()
}

/// Keeps the seed of a round that failed.
pub(crate) fn keep(kind: &str, seed: u64) {
    if !kept(kind).contains(&seed) {
        let file = OpenOptions::new().append(true).create(true).open(FILE);
        let kept = file.and_then(|mut file| writeln!(file, "{kind} {seed}"));
        // The failure itself is more important.
        kept.unwrap_or_else(|error| println!("cannot keep {kind} {seed} in {FILE}: {error}"));
    }
}
