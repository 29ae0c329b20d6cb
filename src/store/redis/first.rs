//! Reading the first live session of several ids.
//!
//! The trait implementation of the store calls it for a request that names several ids, and only after the first of them was
//! found dead. The invariant: whatever the number of dead ids is, they cost one round trip for each hash slot.

use redis::{Cmd, Value};

use super::net::commands::command;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::time_left;
use super::{RedisSessionStore, reason};
use crate::store::{Found, Touch};
use crate::{EndReason, Result, SessionId, operation};

/// The kind of key that Redis has for an id.
#[derive(Clone, Copy, PartialEq)]
enum Trace {
    Session,
    Tombstone,
    /// A note why the session ended.
    Reason(EndReason),
    Nothing,
}

/// Reads the first live session of the ids after the first one, which is dead.
pub(super) fn after_dead(store: &RedisSessionStore, ids: &[SessionId], touch: Touch) -> (usize, Result<Found>) {
    let traces = match traces(store, ids) {
        Ok(traces) => traces,
        Err(error) => return (0, Err(error)),
    };
    for (at, id) in ids.iter().enumerate().skip(1) {
        if traces[at] != Trace::Session {
            continue;
        }
        match store.read_live(id, &store.keys.session(id), touch) {
            Ok(None) => (),
            Ok(Some(stored)) => return (at, Ok(Found::Live(stored))),
            Err(error) => return (at, Err(error)),
        }
    }
    match traces.iter().position(|trace| *trace == Trace::Tombstone) {
        Some(at) => (at, Ok(Found::Renewed)),
        None => first_reason(&traces),
    }
}

fn first_reason(traces: &[Trace]) -> (usize, Result<Found>) {
    let reasons = traces.iter().enumerate().filter_map(|(at, trace)| match trace {
        Trace::Reason(reason) => Some((at, Ok(Found::Ended(*reason)))),
        _ => None,
    });
    reasons.into_iter().next().unwrap_or((0, Ok(Found::Absent)))
}

/// Looks up what each id has, without reading or touching a session.
fn traces(store: &RedisSessionStore, ids: &[SessionId]) -> Result<Vec<Trace>> {
    let mut traces = vec![Trace::Nothing; ids.len()];
    let slot = |id: &SessionId| if store.pool.is_cluster() { id.partition(store.keys.partitions()) } else { 0 };
    let mut slots: Vec<u32> = ids.iter().map(slot).collect();
    slots.sort_unstable();
    slots.dedup();
    for wanted in slots {
        let together: Vec<usize> = (0..ids.len()).filter(|&at| slot(&ids[at]) == wanted).collect();
        for (at, trace) in together.iter().zip(traces_in_slot(store, ids, &together)?) {
            traces[*at] = trace;
        }
    }
    Ok(traces)
}

/// Looks up what the ids at these positions have, in one pipeline to their hash slot. The first id of all is dead, so its time
/// left matters only as the reason.
fn traces_in_slot(store: &RedisSessionStore, ids: &[SessionId], positions: &[usize]) -> Result<Vec<Trace>> {
    let keys: Vec<String> = positions.iter().map(|&at| store.keys.session(&ids[at])).collect();
    let mut commands: Vec<Cmd> = Vec::with_capacity(2 * keys.len());
    let asks_for_time_left = |at: usize| at > 0 || store.ends.remember.is_some();
    for (&at, key) in positions.iter().zip(&keys) {
        commands.push(match store.ends.remember {
            Some(_) => reason::notes(store, &ids[at], key),
            None => command("EXISTS", &store.keys.tombstone(key)),
        });
        if asks_for_time_left(at) {
            commands.push(command("PTTL", key));
        }
    }
    let to = To::Key(&keys[0]);
    let answer = store
        .pool
        .call(operation::READ, Effect::Reads, to, |connection| connection.pipeline(&commands).map(Value::Array))?;
    let Value::Array(replies) = answer.value else { return Ok(vec![Trace::Nothing; keys.len()]) };
    let mut replies = replies.into_iter();
    let traces = positions.iter().map(|&at| {
        let notes = replies.next().unwrap_or(Value::Nil);
        let left = asks_for_time_left(at).then(|| replies.next()).flatten().unwrap_or(Value::Nil);
        if at > 0 && time_left(&left, store.grace_millis()).is_some() {
            return Trace::Session;
        }
        match (notes, store.ends.remember) {
            (Value::Int(1), _) => Trace::Tombstone,
            (notes, Some(_)) => match reason::reason(store, &notes, &left) {
                Some(EndReason::Renewed) => Trace::Tombstone,
                Some(reason) => Trace::Reason(reason),
                None => Trace::Nothing,
            },
            (_, None) => Trace::Nothing,
        }
    });
    Ok(traces.collect())
}
