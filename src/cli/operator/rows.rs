//! Sessions as rows of a table, and as JSON objects.
//!
//! `list`, `show` and `end` print them. Invariant: neither form has an id, and none has a value unless the operator asks for it.

use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::Serialize;
use serde_json::Value;

use super::output::{Output, shown};
use super::stop::{Done, say};
use super::table::{Column, Table};
use crate::{Reason, SessionInfo};

/// The digits of a handle that a narrow table shows. They are enough for `end --yes`.
const SHORT_HANDLE_DIGITS: usize = 12;

/// The terminal from which a table shows all times.
const MEDIUM_COLUMNS: usize = 120;

/// The terminal from which a table shows whole handles.
const WIDE_COLUMNS: usize = 180;

/// The number of rows that decide about the widths of the columns.
const FIRST_ROWS: usize = 100;

/// The number of rows after which the output is flushed.
const FLUSH_ROWS: usize = 100;

/// A text in place of a value that is not known.
const UNKNOWN: &str = "–";

/// A session, as JSON.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    handle: String,
    owner: Option<&'a str>,
    owner_hash: Option<&'a str>,
    label: Option<&'a str>,
    created: Option<String>,
    last_used: Option<String>,
    expires: Option<String>,
    unreadable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl<'a> Row<'a> {
    /// Describes a session, with its value if the operator asks for it. A value that cannot be shown is null, with the reason.
    pub(super) fn of(session: &'a SessionInfo, data: Option<Result<Value, Reason>>) -> Self {
        let unreadable = why_unreadable(session, &data).map(ToString::to_string);
        Self {
            handle: session.handle.to_string(),
            owner: session.owner.as_deref(),
            owner_hash: session.owner_hash.as_deref(),
            label: session.label.as_deref(),
            created: session.created.map(rfc3339),
            last_used: session.last_used.map(rfc3339),
            expires: expires(session),
            unreadable,
            data: data.map(Result::unwrap_or_default),
        }
    }
}

/// Returns why the session, or its value, cannot be read.
fn why_unreadable<'r>(session: &'r SessionInfo, data: &'r Option<Result<Value, Reason>>) -> Option<&'r Reason> {
    session.unreadable.as_ref().or_else(|| data.as_ref()?.as_ref().err())
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    format_rfc3339_seconds(time).to_string()
}

fn expires(session: &SessionInfo) -> Option<String> {
    // A time beyond the year 9999 has no text.
    const LATEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let end = SystemTime::now().checked_add(session.expires_in?.min(LATEST))?;
    Some(rfc3339(end))
}

/// Returns a duration with its two largest units, such as `6d 23h`.
pub(super) fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(seconds / 86400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let Some(first) = units.iter().position(|(count, _)| *count > 0) else { return "0s".to_owned() };
    let largest = units[first..].iter().take(2).filter(|(count, _)| *count > 0);
    largest.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// The form of a table of sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Narrow,
    Medium,
    Wide,
}

impl Form {
    fn of(terminal: Option<usize>) -> Self {
        match terminal {
            Some(columns) if columns < MEDIUM_COLUMNS => Self::Narrow,
            Some(columns) if columns < WIDE_COLUMNS => Self::Medium,
            _ => Self::Wide,
        }
    }

    fn columns(self) -> Vec<Column> {
        let mut columns = vec![Column::fixed("HANDLE"), Column::elastic("OWNER"), Column::elastic("LABEL")];
        columns.extend(match self {
            Self::Narrow => ["LAST USED", "EXPIRES IN"].map(Column::fixed).to_vec(),
            Self::Medium | Self::Wide => ["CREATED", "LAST USED", "EXPIRES"].map(Column::fixed).to_vec(),
        });
        columns
    }

    fn cells(self, session: &SessionInfo) -> Vec<String> {
        let unknown = || UNKNOWN.to_owned();
        let mut handle = session.handle.to_string();
        if self != Self::Wide {
            handle.truncate(SHORT_HANDLE_DIGITS);
        }
        let label = session.label.as_deref().map_or_else(unknown, shown);
        let last_used = session.last_used.map_or_else(unknown, rfc3339);
        let never = || "never".to_owned();
        let mut cells = vec![handle, owner(session), label];
        cells.extend(match self {
            Self::Narrow => vec![last_used, session.expires_in.map_or_else(never, brief)],
            Self::Medium | Self::Wide => {
                vec![session.created.map_or_else(unknown, rfc3339), last_used, expires(session).unwrap_or_else(never)]
            }
        });
        cells
    }
}

/// The owner, or the beginning of the owner's hash if the payload is unreadable.
pub(super) fn owner(session: &SessionInfo) -> String {
    match (&session.owner, &session.owner_hash) {
        (Some(owner), _) => shown(owner),
        (None, Some(hash)) => format!("#{}", &shown(hash).chars().take(SHORT_HANDLE_DIGITS).collect::<String>()),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// Prints sessions as they come, in a table or as JSON.
pub(super) struct Rows<'a> {
    output: &'a mut Output,
    form: Form,
    table: Option<Table>,
    /// The rows that come before the widths are known.
    first: Vec<Vec<String>>,
    pub(super) count: u64,
    unreadable: u64,
    why: Option<String>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        let form = Form::of(output.width());
        Self { output, form, table: None, first: Vec::new(), count: 0, unreadable: 0, why: None }
    }

    /// Prints a session. Only JSON has its value.
    pub(super) fn push(&mut self, session: &SessionInfo, data: Option<Result<Value, Reason>>) -> Done {
        self.count += 1;
        if let Some(why) = why_unreadable(session, &data) {
            self.unreadable += 1;
            self.why.get_or_insert_with(|| why.to_string());
        }
        if self.output.is_json() {
            self.output.object(&Row::of(session, data))?;
        } else {
            self.push_cells(self.form.cells(session))?;
        }
        if self.count.is_multiple_of(FLUSH_ROWS as u64) { self.output.flush() } else { Ok(()) }
    }

    fn push_cells(&mut self, cells: Vec<String>) -> Done {
        if let Some(table) = &self.table {
            return self.output.line(&table.line(&cells));
        }
        self.first.push(cells);
        if self.first.len() < FIRST_ROWS { Ok(()) } else { self.begin() }
    }

    /// Chooses the widths, and prints the titles and the first rows.
    fn begin(&mut self) -> Done {
        let columns = self.form.columns();
        let table = Table::new(&columns, &self.first, self.output.width());
        self.output.line(&table.header(&columns))?;
        for cells in self.first.drain(..) {
            self.output.line(&table.line(&cells))?;
        }
        self.table = Some(table);
        Ok(())
    }

    /// Prints what is left, and a note about sessions that could not be read.
    pub(super) fn finish(mut self, note_if_none: &str) -> Done {
        if !self.first.is_empty() {
            self.begin()?;
        }
        self.output.flush()?;
        if self.count == 0 {
            say(note_if_none);
        }
        if let Some(why) = &self.why {
            say(&format!("note: {} of {} sessions could not be read: {why}", self.unreadable, self.count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3600, "1h"), (3661, "1h 1m"), (604_799, "6d 23h")] {
            assert_eq!(brief(Duration::from_secs(seconds)), text);
        }
    }
}
