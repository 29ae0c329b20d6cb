//! Finding the session that an operator names by a handle or by its first digits.
//!
//! `show` and `end` use it. Invariant: a prefix names a session only if no other session begins so: in the whole store, or
//! among the sessions of the user that the operator names.

use super::Context;
use super::output::shown;
use super::progress::Bar;
use super::rows::{owner, rfc3339};
use super::stop::{Stop, say};
use crate::store::{Belonging, Bytes, Ending, SessionKey, Snapshot};
use crate::{FoundByHandle, HandlePrefix, Result, SessionInfo, SessionStore, operation};
use std::time::SystemTime;

/// Returns the note for an operator if a user has no sessions.
pub(super) fn no_session_of(user: &str) -> String {
    let switch = if matches!(user, "true" | "false") { "a switch takes a value only after `=`, and " } else { "" };
    format!(
        "note: no live session is recorded for the user \"{}\"; {switch}names are compared exactly. If Redis lost keys, look for the \
         user in `list`",
        shown(user)
    )
}

/// A store lists at most this many sessions of a user in each partition.
pub(super) const LONGEST_USER_LIST: usize = 1000;

/// A session that an operator named.
pub(super) struct Target {
    pub(super) info: SessionInfo,
    /// The user and the payload, if the session was found among those of a user.
    of_user: Option<(String, Bytes)>,
}

impl Target {
    /// Ends the session. Returns `false` if it has ended before.
    pub(super) fn end(&self, context: &Context) -> Result<bool, Stop> {
        match &self.of_user {
            Some((user, _)) => {
                let index = context.index(operation::END)?;
                Ok(index.end(user, Ending::Only(self.info.handle))? > 0)
            }
            None => Ok(context.all().end(&self.info)?),
        }
    }

    /// Returns the payload, or `None` if the session has ended.
    pub(super) fn payload(&self, context: &Context) -> Result<Option<Bytes>> {
        if let Some((_, payload)) = &self.of_user {
            return Ok(Some(payload.clone()));
        }
        let snapshot = context.store.snapshots(std::slice::from_ref(self.info.key()))?.pop();
        snapshot.map(|snapshot| snapshot.payload).transpose()
    }

    /// Describes the session in one line. The question before it ends shows the line.
    pub(super) fn line(&self) -> String {
        let created = self.info.created.map_or_else(|| "–".to_owned(), rfc3339);
        let label = self.info.label.as_deref().map_or_else(|| "–".to_owned(), shown);
        format!("{}  owner {}, label {label}, created {created}", self.info.handle, owner(&self.info))
    }
}

/// Describes the sessions of a user.
pub(super) fn of_user(context: &Context, user: &str) -> Result<Vec<(SessionInfo, Bytes)>, Stop> {
    let now = SystemTime::now();
    let describe = |belonging: Belonging| {
        let payload = belonging.payload;
        // The list of a user has no keys. None is needed, because a user's session ends by its handle.
        let key = SessionKey::new(belonging.handle, 0, Vec::new());
        let mut info = SessionInfo::without_manager(Snapshot::new(key, payload.clone(), belonging.expires_in), now);
        info.owner = Some(user.to_owned());
        (info, payload)
    };
    let index = context.index(operation::LIST_BY_PRINCIPAL)?;
    Ok(index.list_by_principal(user)?.into_iter().map(describe).collect())
}

/// Finds a session. Returns `None` if no live session has the prefix.
pub(super) fn find(context: &Context, prefix: &HandlePrefix, user: Option<&str>) -> Result<Option<Target>, Stop> {
    Ok(find_each(context, std::slice::from_ref(prefix), user)?.pop().flatten())
}

/// Describes that a search among the sessions of this user, or among all, has found none.
pub(super) fn not_found(context: &Context, prefix: &HandlePrefix, user: Option<&str>) -> String {
    let handle = if prefix.is_whole() { "the handle" } else { "a handle that begins with" };
    match (user, context.store.index()) {
        (Some(_), _) => {
            format!("no session of this user has {handle} {prefix}: run it again without --user to search all sessions")
        }
        (None, Some(_)) => format!(
            "no live session in the index has {handle} {prefix}; if Redis lost keys, `verify` puts the missing sessions back"
        ),
        (None, None) => format!("no live session has {handle} {prefix}"),
    }
}

/// Finds sessions in one walk, or in one list of a user. Returns one result for each prefix, in their order.
pub(super) fn find_each(
    context: &Context,
    prefixes: &[HandlePrefix],
    user: Option<&str>,
) -> Result<Vec<Option<Target>>, Stop> {
    let found = match user {
        Some(user) => {
            let all = of_user(context, user)?;
            let of_user = |(info, payload): &(SessionInfo, Bytes)| Target {
                info: info.clone(),
                of_user: Some((user.to_owned(), payload.clone())),
            };
            let own = |prefix: &HandlePrefix| {
                all.iter().filter(|(info, _)| prefix.matches(info.handle)).map(of_user).collect()
            };
            prefixes.iter().map(own).collect()
        }
        None => find_in_all(context, prefixes)?,
    };
    prefixes.iter().zip(found).map(|(prefix, found)| only(prefix, found)).collect()
}

/// Returns the only session with a prefix, if there is one.
fn only(prefix: &HandlePrefix, mut found: Vec<Target>) -> Result<Option<Target>, Stop> {
    match (found.pop(), found.is_empty()) {
        (target, true) => Ok(target),
        (last, false) => {
            for target in found.iter().chain(&last) {
                say(&target.line());
            }
            Err(Stop::Negative(format!("{prefix} is the beginning of several handles: give more digits")))
        }
    }
}

fn find_in_all(context: &Context, prefixes: &[HandlePrefix]) -> Result<Vec<Vec<Target>>, Stop> {
    let bar = Bar::new("searching");
    let found = context.all().find_each(prefixes, |progress| {
        bar.set(progress);
        context.interrupt.flow()
    })?;
    let looked_at = bar.clear();
    let interrupted = || Stop::Interrupted(format!("looked at {looked_at}"));
    let target = |info| Target { info, of_user: None };
    let targets = |found| match found {
        FoundByHandle::One(info) => Ok(vec![target(*info)]),
        FoundByHandle::NoMatch => Ok(Vec::new()),
        FoundByHandle::Ambiguous(infos) => Ok(infos.into_iter().map(target).collect()),
        FoundByHandle::Interrupted => Err(interrupted()),
    };
    found.ok_or_else(interrupted)?.into_iter().map(targets).collect()
}
