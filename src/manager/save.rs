//! Saving: the one optimistic loop, and what it writes.
//!
//! `commit` and `update` store every session through this file. A change is applied to the version that it was made from. If
//! another request stored another version, the loop merges and retries, or reports the conflict. Only
//! [`OnConflict::LastWriteWins`] and a [reset](Session::reset) overwrite a version that this request has not read.
//! An envelope is the value with its times and its owner. A head is an envelope without the value.

use std::borrow::Cow;
use std::time::SystemTime;

use super::backoff::Backoff;
use super::{Inner, OnCap, OnConflict};
use crate::codec::{Envelope, Head};
use crate::observer::EndCause;
use crate::store::{Bind, Created, Found, ReadBack, Saved, Stored, Touch, Version, Write};
use crate::{BoxError, Error, ErrorKind, Reason, Result, Session, SessionId, operation};

/// The changes of a request, which a merge puts onto the changes of another request.
pub(crate) struct Changes<'a> {
    /// The head before the first change.
    pub(crate) before: Head,
    /// The head with the changes.
    pub(crate) after: Head,
    /// The changed value, encoded with the head `before`, so that it differs from the snapshot only by the value. `None` if the
    /// value did not change, for example at a login.
    pub(crate) value: Option<Cow<'a, [u8]>>,
}

/// A change of a session that is stored already.
pub(super) struct Save<'a> {
    pub(super) id: SessionId,
    /// The id that the session moves to, if it is renewed.
    pub(super) new_id: Option<SessionId>,
    /// The payload of the first attempt.
    pub(super) payload: Cow<'a, [u8]>,
    /// The version that the first attempt replaces. `None` overwrites any version.
    pub(super) expected: Option<Version>,
    /// The changes to keep in a merge. `None` if there are none.
    pub(super) changes: Option<Changes<'a>>,
    pub(super) merges: Merges,
    /// The time at which this request sends the cookie again, to be stored in the session.
    pub(super) cookie_sent: Option<SystemTime>,
}

/// The conflicts that lead to a merge and a retry. All others are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merges {
    Always,
    /// Only if one of the two requests changed nothing but bookkeeping: the times and the revision that the crate keeps by itself.
    /// The value, the owner, the beginning and whether the visitor is remembered are changes of the handler.
    Bookkeeping,
    Never,
}

impl<'a> Save<'a> {
    /// A save under the same id that replaces the version that the session was read with. It merges. If the session rejects
    /// conflicts and its value has changed, it merges only bookkeeping.
    pub(super) fn new<T: 'static>(
        id: SessionId,
        session: &Session<T>,
        payload: impl Into<Cow<'a, [u8]>>,
        changes: Option<Changes<'a>>,
    ) -> Self {
        let is_value_changed = changes.as_ref().is_some_and(|changes| changes.value.is_some());
        let merges = match session.on_conflict {
            OnConflict::Fail if is_value_changed => Merges::Bookkeeping,
            _ => Merges::Always,
        };
        Self {
            id,
            new_id: None,
            payload: payload.into(),
            expected: session.version().cloned(),
            changes,
            merges,
            cookie_sent: None,
        }
    }

    /// Moves the session to the id that was chosen for it.
    pub(super) fn with_next_id<T: 'static>(mut self, session: &Session<T>) -> Self {
        self.new_id = Some(session.next_id());
        self
    }
}

/// The outcome of a save. Nothing is stored unless it is `Stored`.
#[derive(Debug)]
pub(super) enum SaveOutcome {
    /// The session is stored under this id, with this version.
    Stored(SessionId, Version),
    /// No live session has the id.
    Missing,
    /// The lifetime of the session is over. If it was stored, it was deleted.
    Ended,
    /// Another version is stored, and this save does not merge.
    Conflict,
    /// The principal has as many sessions as the cap allows.
    OverCap,
}

/// The outcome of one attempt.
enum Attempt {
    Done(SaveOutcome),
    Conflict(Stored),
}

/// The error for a conflict that is not merged.
pub(super) fn conflict() -> Error {
    Error::new(ErrorKind::Conflict, operation::SAVE)
}

impl<T: 'static> Inner<T> {
    /// Tries to save until the session is stored, is missing, or has a conflict that must not be merged.
    ///
    /// One attempt is one command. After a conflict the session takes over what is stored, with the changes merged into it, and
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
        next_payload: impl FnMut(&mut Session<T>) -> Result<Vec<u8>>,
    ) -> Result<SaveOutcome> {
        // A save that never merges gives way to the other request, which is no loss: it has no change of a handler.
        let (old_id, new_id, yields) = (save.id, save.new_id, save.merges == Merges::Never);
        let mut conflicts = 0;
        let saved = self.retry_until_stored(session, save, next_payload, &mut conflicts);
        if conflicts > 0 {
            self.report_conflict(conflicts, yields, &saved);
        }
        if let (Some(new_id), Ok(SaveOutcome::Stored(..))) = (&new_id, &saved) {
            self.report_renewed(&old_id, new_id);
        }
        saved
    }

    /// The loop of [`save_until_stored`](Self::save_until_stored), which counts the conflicts.
    fn retry_until_stored(
        &self,
        session: &mut Session<T>,
        mut save: Save<'_>,
        mut next_payload: impl FnMut(&mut Session<T>) -> Result<Vec<u8>>,
        conflicts: &mut u32,
    ) -> Result<SaveOutcome> {
        let is_blind = save.expected.is_none();
        let (mut backoff, mut turn) = (Backoff::new(), None);
        loop {
            let theirs = match self.attempt(session, &save, is_blind)? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Conflict(theirs) => theirs,
            };
            *conflicts += 1;
            if save.merges == Merges::Never {
                return Ok(SaveOutcome::Conflict);
            }
            let stored = self.decode_limited(&theirs.payload)?;
            if save.merges == Merges::Bookkeeping && !self.is_bookkeeping(session, &save, &stored) {
                return Ok(SaveOutcome::Conflict);
            }
            // After the first conflict, queue up with the other threads of this process that save the same session. While this
            // thread waits, they store newer versions, so a second conflict is normal. Pause only after further conflicts, which
            // come from other processes, or if there is no queue.
            turn = turn.or_else(|| self.turns.take(&save.id));
            if turn.is_none() || *conflicts > 2 {
                backoff.wait()?;
            }
            self.merge_with(session, &save, &theirs.payload, stored)?;
            save.payload = Cow::Owned(next_payload(session)?);
            save.expected = Some(theirs.version);
        }
    }

    /// Sends one command, unless the lifetime of the session is over. `is_blind`: the save began without an expected version.
    fn attempt(&self, session: &Session<T>, save: &Save<'_>, is_blind: bool) -> Result<Attempt> {
        // Write the owner explicitly in two cases. A blind overwrite does not know the stored owner. A rotation can
        // restore an owner that Redis lost, at little extra cost.
        let restate_owner = is_blind || (save.new_id.is_some() && session.principal().is_some());
        let write = self.write(session, &save.payload, restate_owner);
        if write.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return self.end_overdue(session, save);
        }
        let saved = match &save.new_id {
            Some(new_id) => self.store.rotate(&save.id, new_id, write, save.expected.as_ref())?,
            None => self.store.save(&save.id, write, save.expected.as_ref())?,
        };
        Ok(match saved {
            Saved::Stored(version) => Attempt::Done(SaveOutcome::Stored(save.new_id.unwrap_or(save.id), version)),
            Saved::Missing => Attempt::Done(SaveOutcome::Missing),
            Saved::Conflict(theirs) => Attempt::Conflict(theirs),
            Saved::OverCap => Attempt::Done(SaveOutcome::OverCap),
        })
    }

    /// Deletes a session whose lifetime is over, unless another request has begun the lifetime anew.
    fn end_overdue(&self, session: &Session<T>, save: &Save<'_>) -> Result<Attempt> {
        let stored = match self.store.read(&save.id, Touch::No)? {
            Found::Live(stored) => stored,
            Found::Renewed | Found::Ended(_) | Found::Absent => return Ok(Attempt::Done(SaveOutcome::Missing)),
        };
        let theirs = self.decode_limited(&stored.payload)?;
        let is_theirs_alive = self.ttl(&theirs).is_none_or(|left| !left.is_zero());
        if is_theirs_alive && theirs.created != session.envelope.created {
            return Ok(Attempt::Conflict(stored));
        }
        self.clean_up(&save.id);
        Ok(Attempt::Done(SaveOutcome::Ended))
    }

    /// Decodes what is stored. Times that are later than now count as now.
    pub(super) fn decode_limited(&self, payload: &[u8]) -> Result<Envelope<T>> {
        let mut stored = self.decode(payload)?;
        stored.limit_times(self.clock.now());
        Ok(stored)
    }

    /// Returns `true` if one of the two requests changed only [bookkeeping](Merges::Bookkeeping).
    fn is_bookkeeping(&self, session: &Session<T>, save: &Save<'_>, stored: &Envelope<T>) -> bool {
        let (Some(changes), Some(base)) = (&save.changes, session.snapshot.as_deref()) else { return true };
        let is_mine_the_same = changes.value.as_ref().is_none_or(|mine| self.codec.is_same(base, mine));
        let before = &changes.before;
        let is_head_the_same = stored.bound == before.bound
            && (session.clock_was_ahead || stored.created == before.created)
            && stored.remembered.is_some() == before.remembered.is_some();
        is_mine_the_same || (is_head_the_same && self.is_unchanged(session, before, base, &stored.data))
    }

    /// Returns `true` if another request left the value as this request read it.
    fn is_unchanged(&self, session: &Session<T>, before: &Head, base: &[u8], value: &T) -> bool {
        session.encode_value(before, value).is_ok_and(|theirs| self.codec.is_same(base, &theirs))
    }

    /// Takes over what is stored, `theirs`, and merges the changes of this request into it.
    fn merge_with(&self, session: &mut Session<T>, save: &Save<'_>, theirs: &[u8], stored: Envelope<T>) -> Result<()> {
        if (save.changes.is_some() || save.new_id.is_some()) && self.codec.loses(theirs) {
            return Err(unmergeable("another version of the program stored fields that this one does not know"));
        }
        session.stored_principal = stored.bound.as_ref().map(|bound| bound.principal.clone());
        session.envelope = match &save.changes {
            None => stored,
            Some(changes) => {
                let mut merged = self.merge_value(session, changes, theirs, stored)?;
                merged.apply_head(&changes.before, &changes.after);
                merged
            }
        };
        if save.new_id.is_some() {
            self.note_renewal(session);
        }
        if let (Some(sent), Some(noted)) = (save.cookie_sent, &mut session.envelope.remembered) {
            *noted = sent;
        }
        Ok(())
    }

    /// Notes the age of the id that the session is about to get, if ids are renewed by age. It is no change of the request.
    pub(super) fn note_renewal(&self, session: &mut Session<T>) {
        if self.renew_every.is_some() {
            session.envelope.id_since = Some(session.now);
        }
    }

    /// Merges the value. If only one of the two requests changed it, its value is taken whole. So a login, which changes only the
    /// owner, never conflicts with a change of the value, even if values of this type cannot be merged.
    fn merge_value(
        &self,
        session: &Session<T>,
        changes: &Changes<'_>,
        theirs: &[u8],
        stored: Envelope<T>,
    ) -> Result<Envelope<T>> {
        let Some(mine) = changes.value.as_deref() else { return Ok(stored) };
        let base = session.snapshot.as_deref();
        let base = base.ok_or_else(|| unmergeable("what it was before could not be encoded"))?;
        if self.codec.is_same(base, mine) {
            return Ok(stored);
        }
        let merged = if self.is_unchanged(session, &changes.before, base, &stored.data) {
            Cow::from(mine)
        } else {
            Cow::from(self.merge(base, mine, theirs)?)
        };
        let decoded = self.codec.decode(&merged).map_err(|_| unmergeable("the result is no value of its type"))?;
        Ok(stored.with_data(decoded.data))
    }

    /// Encodes `theirs` with the changes from `base` to `mine`.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Result<Vec<u8>> {
        let merged = self.codec.merge(base, mine, theirs);
        let merged = merged.ok_or_else(|| unmergeable("the two changes do not go together"))?;
        if merged.len() > self.max_payload {
            return Err(unmergeable("the result is over the size limit"));
        }
        Ok(merged)
    }

    /// Stores a session that is not stored yet, under the id that was chosen for it.
    pub(super) fn create(&self, session: &Session<T>, payload: &[u8]) -> Result<SaveOutcome> {
        let (id, write) = (session.next_id(), self.write(session, payload, false));
        if write.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Ok(SaveOutcome::Ended);
        }
        match self.store.create(&id, write)? {
            Created::Stored(version) => {
                self.report_created(&id);
                Ok(SaveOutcome::Stored(id, version))
            }
            Created::OverCap => Ok(SaveOutcome::OverCap),
            Created::Taken if session.is_in_doubt => self.overwrite_attempt(session, &id, payload),
            // No two ids of 128 random bits are equal.
            Created::Taken => Err(Error::misconfigured(
                operation::CREATE,
                "the key of a fresh id is taken: does the key mapper give every id its own?",
            )),
        }
    }

    /// Stores a session over an earlier attempt of this request, of which the visitor does not know yet.
    fn overwrite_attempt(&self, session: &Session<T>, id: &SessionId, payload: &[u8]) -> Result<SaveOutcome> {
        Ok(match self.store.save(id, self.write(session, payload, true), None)? {
            Saved::Stored(version) => SaveOutcome::Stored(*id, version),
            Saved::Missing => SaveOutcome::Missing,
            Saved::OverCap => SaveOutcome::OverCap,
            Saved::Conflict(_) => SaveOutcome::Conflict,
        })
    }

    /// Replaces the stored session `id`, the old one, by `session`, the new one, in one step and over any version.
    ///
    /// - If the old session is gone, the new one is created.
    /// - If another request renewed the old session, the visitor has a live session under another id. Nothing is stored, and the
    ///   outcome is `Missing`.
    /// - If the lifetime of the new session is over, the old session is deleted, and the outcome is `Ended`.
    pub(super) fn replace(&self, session: &mut Session<T>, id: &SessionId, payload: &[u8]) -> Result<SaveOutcome> {
        let new_id = session.next_id();
        let write = self.write(session, payload, true);
        if write.ttl.is_some_and(|ttl| ttl.is_zero()) {
            let is_elsewhere = !self.delete_for(id, EndCause::Reset)? && self.was_renewed(id)?;
            return Ok(if is_elsewhere { SaveOutcome::Missing } else { SaveOutcome::Ended });
        }
        match self.store.rotate(id, &new_id, write, None)? {
            Saved::Stored(version) => {
                self.report_ended(id, EndCause::Reset);
                self.report_created(&new_id);
                return Ok(SaveOutcome::Stored(new_id, version));
            }
            // No version is expected, so no store of this crate reports a conflict.
            Saved::Conflict(_) => return Err(conflict()),
            Saved::OverCap => return Ok(SaveOutcome::OverCap),
            Saved::Missing if self.was_renewed(id)? => return Ok(SaveOutcome::Missing),
            Saved::Missing => {}
        }
        session.stored_principal = None;
        self.create(session, payload)
    }

    /// Returns `true` if another request moved the session to a new id a moment ago.
    pub(super) fn was_renewed(&self, id: &SessionId) -> Result<bool> {
        Ok(matches!(self.store.read(id, Touch::No)?, Found::Renewed))
    }

    /// Returns what a store writes for a session. `restate_owner` names the owner even if it has not changed.
    fn write<'a>(&'a self, session: &'a Session<T>, payload: &'a [u8], restate_owner: bool) -> Write<'a> {
        let restate_owner = restate_owner && self.store.index().is_some();
        let bind = match (session.principal(), session.stored_principal.as_deref()) {
            (now, before) if now == before && !restate_owner => Bind::Keep,
            (Some(principal), before) => match self.max_per_principal.filter(|_| before != Some(principal)) {
                Some(cap) if self.on_cap == OnCap::Refuse => Bind::WithinCap { principal, cap },
                cap => Bind::To { principal, cap },
            },
            (None, _) => Bind::Unbind,
        };
        let ttl = self.timeouts().stored_ttl(&session.envelope, self.clock.now());
        Write::new(payload, ttl).with_bind(bind).with_read_back(self)
    }

    /// Encodes the session with a new revision, a random number. Stores compare versions by payload, and so no two payloads are
    /// equal.
    pub(super) fn encode_revised(&self, session: &mut Session<T>) -> Result<Vec<u8>> {
        session.envelope.revise();
        self.storable(session.encode())
    }

    /// Returns the payload if it could be encoded, is not over the size limit, and can be read again.
    pub(super) fn storable(&self, encoded: Result<Vec<u8>, BoxError>) -> Result<Vec<u8>> {
        let payload = encoded.map_err(not_encodable)?;
        if payload.len() > self.max_payload {
            let why = format!("{} bytes are over the limit of {}", payload.len(), self.max_payload);
            return Err(not_encodable(Reason::computed(why).into()));
        }
        self.read_back(&payload)?;
        Ok(payload)
    }
}

/// Decodes a payload before it is stored, so that every stored session can be opened again. The manager decodes once before the
/// store has the payload, and once more if steps have changed it.
impl<T: 'static> ReadBack for Inner<T> {
    fn read_back(&self, payload: &[u8]) -> Result<()> {
        if self.read_back {
            let decoded = self.codec.decode(payload);
            decoded.map_err(|error| Error::new(ErrorKind::Payload, operation::READ_BACK).with_source(error))?;
        }
        Ok(())
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
