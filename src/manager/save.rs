//! Saving: the one optimistic loop, and what it writes.
//!
//! `commit` and `update` store every session through this file. A change goes on top of the version that it was made on: if
//! another request stored a version in between, the loop merges and retries, or reports the conflict. Only
//! [`OnConflict::LastWriteWins`] overwrites a version that this request has not read.

use std::borrow::Cow;

use super::backoff::Backoff;
use super::{Inner, OnConflict};
use crate::store::{Bind, Created, Saved, Version, Write};
use crate::{BoxError, Error, ErrorKind, Result, Session, SessionId, operation};

/// A change of a session that is stored already.
pub(super) struct Save<'a> {
    pub(super) id: SessionId,
    /// The id that the session moves to, if it is renewed.
    pub(super) new_id: Option<SessionId>,
    /// The payload of the first attempt.
    pub(super) payload: Cow<'a, [u8]>,
    /// The version that the first attempt replaces. `None` overwrites any version.
    pub(super) expected: Option<Version>,
    /// The session with the changes of this request, encoded. `None` if there are none to keep in a merge.
    pub(super) mine: Option<&'a [u8]>,
    /// Whether a conflict leads to a merge and a retry.
    pub(super) merges: bool,
}

impl<'a> Save<'a> {
    /// A save under the same id that replaces the version that the session was read with. It merges, unless the session
    /// rejects conflicts and has changes of its own.
    pub(super) fn new<T: 'static>(
        id: SessionId,
        session: &Session<T>,
        payload: impl Into<Cow<'a, [u8]>>,
        mine: Option<&'a [u8]>,
    ) -> Self {
        Self {
            id,
            new_id: None,
            payload: payload.into(),
            expected: session.version().cloned(),
            mine,
            merges: mine.is_none() || session.on_conflict != OnConflict::Fail,
        }
    }
}

/// The outcome of a save. Nothing is stored unless it is `Stored`.
#[derive(Debug)]
pub(super) enum SaveOutcome {
    /// The session is stored under this id, with this version.
    Stored(SessionId, Version),
    /// No live session has the id.
    Missing,
    /// Another version is stored, and this save does not merge.
    Conflict,
}

/// The error for a conflict that is not merged.
pub(super) fn conflict() -> Error {
    Error::new(ErrorKind::Conflict, operation::SAVE)
}

impl<T: 'static> Inner<T> {
    /// Tries to save until the session is stored, is missing, or has a conflict that must not be merged.
    ///
    /// One attempt is one command. After a conflict the session takes over what is stored, with `mine` merged into it, and
    /// `next_payload` encodes it for the next attempt. Only `session.envelope` and `session.stored_principal` change on the
    /// way; the caller restores them if it needs the session after a failure.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Conflict`] if the two changes cannot be merged, or if other requests keep changing the session.
    pub(super) fn save_until_stored(
        &self,
        session: &mut Session<T>,
        save: Save<'_>,
        mut next_payload: impl FnMut(&mut Session<T>) -> Result<Vec<u8>>,
    ) -> Result<SaveOutcome> {
        let Save { id, new_id, mut payload, mut expected, mine, merges } = save;
        let is_blind = expected.is_none();
        let mut backoff = Backoff::new();
        loop {
            // Write the owner explicitly in two cases. A blind overwrite does not know the stored owner. A rotation can
            // restore an owner that Redis lost, at little extra cost.
            let restate_owner = is_blind || (new_id.is_some() && session.principal().is_some());
            let write = self.write(session, &payload, restate_owner);
            let saved = match &new_id {
                Some(new_id) => self.store.rotate(&id, new_id, write, expected.as_ref())?,
                None => self.store.save(&id, write, expected.as_ref())?,
            };
            let theirs = match saved {
                Saved::Stored(version) => return Ok(SaveOutcome::Stored(new_id.unwrap_or(id), version)),
                Saved::Missing => return Ok(SaveOutcome::Missing),
                Saved::Conflict(_) if !merges => return Ok(SaveOutcome::Conflict),
                Saved::Conflict(theirs) => theirs,
            };
            backoff.wait()?;
            self.merge_with(session, mine, &theirs.payload)?;
            payload = Cow::Owned(next_payload(session)?);
            expected = Some(theirs.version);
        }
    }

    /// Takes over what is stored, `theirs`, and merges the changes of this request, `mine`, into it.
    fn merge_with(&self, session: &mut Session<T>, mine: Option<&[u8]>, theirs: &[u8]) -> Result<()> {
        let stored = self.decode(theirs)?;
        session.stored_principal = stored.bound.as_ref().map(|bound| bound.principal.clone());
        session.envelope = match mine {
            None => stored,
            Some(mine) => {
                let merged = self.merge(session.snapshot.as_deref(), mine, theirs)?;
                let decoded = self.codec.decode(&merged);
                decoded.map_err(|_| unmergeable("the result is no value of its type"))?
            }
        };
        Ok(())
    }

    /// Encodes `theirs` with the changes from `base` to `mine`.
    fn merge(&self, base: Option<&[u8]>, mine: &[u8], theirs: &[u8]) -> Result<Vec<u8>> {
        let base = base.ok_or_else(|| unmergeable("what it was before could not be encoded"))?;
        let merged = self.codec.merge(base, mine, theirs);
        let merged = merged.ok_or_else(|| unmergeable("it has no fields to tell apart"))?;
        if merged.len() > self.max_payload {
            return Err(unmergeable("the result is over the size limit"));
        }
        Ok(merged)
    }

    /// Stores a session that is not stored yet, under a fresh id.
    pub(super) fn create(&self, session: &Session<T>, payload: &[u8]) -> Result<(SessionId, Version)> {
        let id = self.store.fresh_id(None);
        match self.store.create(&id, self.write(session, payload, false))? {
            Created::Stored(version) => Ok((id, version)),
            // No two ids of 128 random bits are equal.
            Created::Taken => Err(Error::misconfigured(
                operation::CREATE,
                "the key of a fresh id is taken: does the key mapper give every id its own?",
            )),
        }
    }

    /// Returns what a store writes for a session. `restate_owner` names the owner even if it has not changed.
    fn write<'a>(&self, session: &'a Session<T>, payload: &'a [u8], restate_owner: bool) -> Write<'a> {
        let restate_owner = restate_owner && self.store.index().is_some();
        let bind = match (session.principal(), session.stored_principal.as_deref()) {
            (now, before) if now == before && !restate_owner => Bind::Keep,
            (Some(principal), before) => {
                Bind::To { principal, cap: self.max_per_principal.filter(|_| before != Some(principal)) }
            }
            (None, _) => Bind::Nobody,
        };
        Write::new(payload, self.ttl(&session.envelope)).with_bind(bind)
    }

    /// Encodes the session with a new revision, so that no other payload is equal to it.
    pub(super) fn encode_revised(&self, session: &mut Session<T>) -> Result<Vec<u8>> {
        session.envelope.revise();
        self.storable(session.encode())
    }

    /// Returns the payload if it could be encoded and is not over the size limit.
    pub(super) fn storable(&self, encoded: Result<Vec<u8>, BoxError>) -> Result<Vec<u8>> {
        let payload = encoded.map_err(not_encodable)?;
        if payload.len() > self.max_payload {
            let why = format!("{} bytes are over the limit of {}", payload.len(), self.max_payload);
            return Err(not_encodable(why.into()));
        }
        Ok(payload)
    }
}

pub(super) fn not_encodable(why: BoxError) -> Error {
    Error::new(ErrorKind::Payload, operation::ENCODE).with_source(why)
}

fn unmergeable(why: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, operation::MERGE).with_source(why)
}

#[cfg(test)]
mod tests;
