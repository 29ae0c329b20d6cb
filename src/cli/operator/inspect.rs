//! The commands that only look: `check`, `count`, `list` and `show`.
//!
//! [`OperatorArgs`](super::OperatorArgs) calls them. Invariant: they change no session. (`check` creates and deletes its own.)

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::output::shown;
use super::progress::Bar;
use super::rows::{Row, Rows, brief};
use super::stop::{Done, Stop, say};
use super::table::{Column, Table};
use super::{Context, payload, resolve};
use crate::store::{KeyPage, Progress, Snapshot};
use crate::{
    AllSessions, Error, ErrorKind, HandlePrefix, Reason, RedisSessionStore, RedisWarning, Result, SessionInfo,
    SessionStore, operation,
};

pub(super) fn check(context: &mut Context, strict: bool) -> Done {
    // This tool announces ends in case the hosts listen. Only they know whether they do, and they warn at their start.
    let concerns_tool = |warning: &RedisWarning| !matches!(warning, RedisWarning::Unannounced { .. });
    let warnings: Vec<String> =
        context.store.check()?.into_iter().filter(concerns_tool).map(|warning| warning.to_string()).collect();
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    // The check has recorded the kind, unless the user may not.
    let kind = context.store.recorded_kind()?.map(|kind| kind.to_string());
    let output = &mut context.output;
    if output.is_json() {
        output.object(&json!({ "kind": kind, "warnings": warnings }))?;
    } else {
        output.line(&format!("the store works: {}", kind.as_deref().unwrap_or("its kind is not recorded")))?;
        output.line(&context.store.place())?;
    }
    output.flush()?;
    match warnings.len() {
        count if strict && count > 0 => Err(Stop::Negative(format!("failed because of {count} warning(s): --strict"))),
        _ => Ok(()),
    }
}

pub(super) fn count(context: &mut Context, by_partition: bool) -> Done {
    let counts = match context.store.index() {
        Some(index) => index.count_by_partition()?,
        None => walked_counts(context)?,
    };
    let sum = counts.iter().sum::<u64>();
    if sum == 0 {
        say(context.note_if_empty());
    }
    let output = &mut context.output;
    match (by_partition, output.is_json()) {
        (false, true) => output.object(&json!({ "sessions": sum })),
        (false, false) => output.line(&sum.to_string()),
        (true, true) => counts.iter().enumerate().try_for_each(|(partition, sessions)| {
            output.object(&json!({ "partition": partition, "sessions": sessions }))
        }),
        (true, false) => {
            let columns = [Column::fixed("PARTITION"), Column::fixed("SESSIONS")];
            let row = |(partition, sessions): (usize, &u64)| vec![partition.to_string(), sessions.to_string()];
            let rows: Vec<_> = counts.iter().enumerate().map(row).collect();
            let table = Table::new(&columns, &rows, output.width());
            output.line(&table.header(&columns))?;
            rows.iter().try_for_each(|row| output.line(&table.line(row)))
        }
    }
}

/// Counts the sessions of a plain store, which takes a walk over all keys.
fn walked_counts(context: &Context) -> Result<Vec<u64>, Stop> {
    let (bar, all) = (Bar::new("counting"), context.all());
    let mut counts = vec![0_u64; context.store.partition_count() as usize];
    let flow = all.each_page(|page| {
        bar.set(page.progress);
        for key in &page.keys {
            if let Some(count) = counts.get_mut(key.partition() as usize) {
                *count += 1;
            }
        }
        context.interrupt.flow()
    })?;
    let looked_at = bar.clear();
    match flow {
        ControlFlow::Continue(()) => Ok(counts),
        ControlFlow::Break(()) => {
            let sum: u64 = counts.iter().sum();
            Err(Stop::Interrupted(format!("found {sum} sessions in {looked_at} keys")))
        }
    }
}

pub(super) fn list_user(context: &mut Context, user: &str, with_data: bool) -> Done {
    let sessions = resolve::of_user(context, user)?;
    let mut rows = Rows::new(&mut context.output);
    for (session, payload) in &sessions {
        rows.push(session, with_data.then(|| payload::value(payload)))?;
    }
    rows.finish(&resolve::no_session_of(user))?;
    if sessions.len() >= resolve::LONGEST_USER_LIST {
        say("note: a list has at most 1000 sessions of each partition, so there may be more");
    }
    Ok(())
}

/// The number of pages that each stage of a list is ahead of the next one.
const PAGES_AHEAD: usize = 4;

/// A page of sessions, and how far the walk is.
type Page = (Vec<Snapshot>, Progress);

pub(super) fn list_all(context: &mut Context, with_data: bool) -> Done {
    let note_if_none = context.note_if_empty();
    let Context { store, output, interrupt } = context;
    let (bar, mut rows) = (Bar::beside_rows("listing"), Rows::new(output));
    let (sender, named) = sync_channel(PAGES_AHEAD);
    let (reader, pages) = sync_channel(PAGES_AHEAD);
    let no_thread = |error| Error::new(ErrorKind::Other, operation::WALK).with_source(error);
    thread::scope(|scope| {
        // Redis always has a command to work on, and the output does not wait for it. A failed send ends a thread, because its
        // receiver has ended.
        thread::Builder::new().spawn_scoped(scope, || name_pages(store, sender)).map_err(no_thread)?;
        thread::Builder::new().spawn_scoped(scope, || read_pages(store, named, reader)).map_err(no_thread)?;
        for page in pages {
            let (snapshots, progress) = page?;
            let now = SystemTime::now();
            for snapshot in snapshots {
                let value = || snapshot.payload.as_ref().map_or(Ok(Value::Null), |payload| payload::value(payload));
                let data = with_data.then(value);
                rows.push(&SessionInfo::without_manager(snapshot, now), data)?;
            }
            bar.set(progress);
            if interrupt.came() {
                let (looked_at, listed) = (bar.clear(), rows.count);
                rows.finish(note_if_none)?;
                return Err(Stop::Interrupted(format!("listed {listed} sessions, and looked at {looked_at}")));
            }
        }
        bar.clear();
        rows.finish(note_if_none)
    })
}

/// Walks all sessions, and sends the pages of their names until the receiver ends.
fn name_pages(store: &RedisSessionStore, pages: SyncSender<Result<KeyPage>>) {
    let walked = AllSessions::new(store).each_page(|page| match pages.send(Ok(page)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    if let Err(error) = walked {
        let _ = pages.send(Err(error));
    }
}

/// Reads the sessions of each page, until the receiver ends or an error was sent.
fn read_pages(store: &RedisSessionStore, named: Receiver<Result<KeyPage>>, pages: SyncSender<Result<Page>>) {
    for page in named {
        let read = page.and_then(|page| Ok((store.snapshots(&page.keys)?, page.progress)));
        let is_last = read.is_err();
        if pages.send(read).is_err() || is_last {
            return;
        }
    }
}

pub(super) fn show(context: &mut Context, prefix: &HandlePrefix, user: Option<&str>, with_data: bool) -> Done {
    let not_found = || Stop::Negative(resolve::not_found(context, prefix, user));
    let target = resolve::find(context, prefix, user)?.ok_or_else(not_found)?;
    let data = match with_data {
        true => Some(payload::value(&target.payload(context)?.ok_or_else(not_found)?).map_err(cannot_show)?),
        false => None,
    };
    let (session, output) = (&target.info, &mut context.output);
    if output.is_json() {
        return output.object(&Row::of(session, data.map(Ok)));
    }
    let details = serde_json::to_value(Row::of(session, None)).map_err(std::io::Error::from)?;
    for name in ["handle", "owner", "owner_hash", "label", "created", "last_used", "expires", "unreadable"] {
        if let Some(text) = details[name].as_str() {
            output.line(&format!("{:<12}{}", name.replace('_', " "), shown(text)))?;
        }
    }
    output.line(&format!("{:<12}{}", "expires in", expires_in(session)))?;
    data.map_or(Ok(()), |data| output.pretty(&data))
}

fn cannot_show(why: Reason) -> Error {
    Error::new(ErrorKind::Unsupported, operation::DECODE).with_source(why)
}

fn expires_in(session: &SessionInfo) -> String {
    session.expires_in.map_or_else(|| "never".to_owned(), brief)
}
