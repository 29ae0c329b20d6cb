//! The commands that correct the store: `verify` and `reap`.
//!
//! [`OperatorArgs`](super::OperatorArgs) calls them. Invariant: neither ends a live session.

use serde_json::{Map, Value, json};

use super::Context;
use super::progress::Bar;
use super::stop::{Done, Stop};
use super::table::{Column, Table};
use crate::operation;
use crate::store::{Progress, Verified, VerifyOptions};

/// The number of expired sessions that one step deletes. Its script takes Redis about 0.5 ms.
const REAP_STEP: usize = 250;

/// The findings with their names, as JSON and tables show them.
fn findings(verified: &Verified) -> [(&'static str, u64); 12] {
    [
        ("added", verified.added),
        ("corrected", verified.corrected),
        ("dropped", verified.dropped),
        ("owners_restored", verified.owners_restored),
        ("owners_dropped", verified.owners_dropped),
        ("owned_restored", verified.owned_restored),
        ("owned_dropped", verified.owned_dropped),
        ("companions_corrected", verified.companions_corrected),
        ("companions_dropped", verified.companions_dropped),
        ("tombstones_corrected", verified.tombstones_corrected),
        ("displaced", verified.displaced),
        ("kept_aside", verified.kept_aside),
    ]
}

pub(super) fn verify(context: &mut Context, dry_run: bool) -> Done {
    let bar = Bar::new("verifying");
    let on_progress = |_: &Verified, progress| {
        bar.set(progress);
        context.interrupt.flow()
    };
    let options = VerifyOptions::new().dry_run(dry_run).on_progress(&on_progress);
    let verified = context.index(operation::VERIFY)?.verify(options)?;
    let looked_at = bar.clear();
    let findings = findings(&verified);
    let output = &mut context.output;
    if output.is_json() {
        let named = findings.iter().map(|(name, count)| ((*name).to_owned(), json!(count)));
        output.object(&named.collect::<Map<String, Value>>())?;
    } else {
        let columns = [Column::fixed("FINDING"), Column::fixed("COUNT")];
        let row = |(name, count): &(&str, u64)| vec![name.replace('_', " "), count.to_string()];
        let rows: Vec<_> = findings.iter().map(row).collect();
        let table = Table::new(&columns, &rows, output.width());
        output.line(&table.header(&columns))?;
        rows.iter().try_for_each(|row| output.line(&table.line(row)))?;
    }
    output.flush()?;
    if verified.interrupted {
        let done = if dry_run { "counted" } else { "corrected" };
        return Err(Stop::Interrupted(format!("looked at {looked_at}, and {done} the findings so far")));
    }
    let sum: u64 = findings.iter().map(|(_, count)| count).sum();
    match sum {
        sum if dry_run && sum > 0 => Err(Stop::Negative(format!("{sum} finding(s), and nothing was corrected"))),
        _ => Ok(()),
    }
}

pub(super) fn reap(context: &mut Context) -> Done {
    let bar = Bar::new("reaping");
    let mut removed = 0;
    let mut is_whole = true;
    let index = context.index(operation::REAP)?;
    let due = context.store.backlog(operation::REAP)?;
    'partitions: for partition in 0..index.partitions() {
        loop {
            let reaped = index.reap(partition, REAP_STEP, false)?;
            removed += reaped.removed;
            bar.set(Progress::new(removed, due));
            if context.interrupt.came() {
                is_whole = false;
                break 'partitions;
            }
            if reaped.backlog == 0 {
                break;
            }
        }
    }
    let looked_at = bar.clear();
    let output = &mut context.output;
    if output.is_json() {
        output.object(&json!({ "removed": removed }))?
    } else {
        output.line(&removed.to_string())?
    }
    output.flush()?;
    if is_whole { Ok(()) } else { Err(Stop::Interrupted(format!("deleted {looked_at} expired sessions"))) }
}
