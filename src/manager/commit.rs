//! Committing: from a [`Session`] that the handler is done with to an [`Outcome`] and the headers of the response.
//!
//! Adapters and applications commit here. `plan` decides what happens, and only reads the session; `execute` does it. A commit
//! sends no command unless something must be stored or deleted, and a session that is gone stays gone.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::save::{Changes, Merges, Save, SaveOutcome, conflict};
use super::{Inner, OnConflict, SessionManager};
use crate::bearer::Carrier;
use crate::codec::Envelope;
use crate::cookie::COOKIE_MAX_AGE;
use crate::observer::EndCause;
use crate::session::{Change, Origin};
use crate::{BoxError, Error, ErrorKind, Handle, Result, Session, SessionId, SessionStore, operation};

/// The outcome of a commit, and the headers for the response.
#[derive(Clone)]
#[must_use = "the response needs the headers, and the outcome shows if the change was kept"]
pub struct Committed {
    outcome: Outcome,
    id: Option<SessionId>,
    store: Arc<dyn SessionStore>,
    carrier: Carrier,
    /// The value of `Set-Cookie`, or of the header for a token, if it changed.
    pub(super) credential: Option<String>,
}

/// The outcome of a commit: whether the changes of the request were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// There were no changes, or the request discarded them.
    Unchanged,
    /// The changes are stored, perhaps merged with those of another request.
    Stored,
    /// The session was destroyed, as the request asked.
    Destroyed,
    /// The changes were dropped, because the session was destroyed or expired while this request held it.
    Dropped,
    /// The changes were dropped, because another request renewed the session while this request held it, or just before. If a
    /// [token](SessionManager::open_bearer) named the session, this is the outcome even without changes.
    Detached,
    /// The changes were dropped, because the session was to be bound to a principal who has as many sessions as
    /// [`OnCap::Refuse`](crate::OnCap::Refuse) allows. The session is as it was, and keeps its id.
    Refused,
}

impl Outcome {
    /// Returns `true` if a change was lost. The response should then be a 409, not a 200.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Dropped | Self::Detached | Self::Refused)
    }
}

impl Committed {
    pub(super) fn new(
        outcome: Outcome,
        id: Option<SessionId>,
        store: Arc<dyn SessionStore>,
        credential: Option<String>,
    ) -> Self {
        Self { outcome, id, store, carrier: Carrier::Cookie, credential }
    }

    pub(crate) fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Returns whether the changes were kept.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the id under which the session is stored now; `None` if it is not stored.
    ///
    /// To name the session in a log, use its [handle](Self::handle).
    pub fn id(&self) -> Option<&SessionId> {
        self.id.as_ref()
    }

    /// Returns the handle under which logs and pages can show the session; `None` if it is not stored.
    pub fn handle(&self) -> Option<Handle> {
        self.id.map(|id| self.store.handle(&id))
    }

    /// Returns the headers for a response without other headers about cookies and caches, as names and values.
    ///
    /// They are `Set-Cookie` if the cookie changed, and always `Cache-Control: no-store` and `Vary: Cookie`, because a page
    /// that only reads the session is personal too. If the session was opened [by a token](SessionManager::open_bearer), they
    /// are [`TOKEN_HEADER`](crate::TOKEN_HEADER) and `Vary: Authorization` instead. If the handler may have set `Vary`, or
    /// headers that allow caches to store the response, use [`merge_into`](Self::merge_into), as the adapters do.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let credential = self.credential.as_deref().map(|value| (self.carrier.header(), value));
        [("Cache-Control", "no-store"), ("Vary", self.carrier.vary())].into_iter().chain(credential)
    }
}

/// Shows the names of the headers only: `Set-Cookie` holds the id.
impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("Committed")
            .field("outcome", &self.outcome)
            .field("id", &self.id)
            .field("headers", &headers)
            .finish()
    }
}

impl<T: 'static> SessionManager<T> {
    /// Stores or ends the session as the request asked, and returns the headers for the response.
    ///
    /// It sends one command if anything must be stored and no other request interferes, and none if nothing must be. After
    /// [`renew`](Session::renew) or [`destroy`](Session::destroy) it also ends the other sessions that the request's cookies
    /// name, at most four, by one command each. Otherwise the next request would open one of them.
    ///
    /// # Errors
    ///
    /// Nothing is stored after an error, with two exceptions. [`ErrorKind::MayHaveHappened`](crate::ErrorKind::MayHaveHappened)
    /// leaves it open. If another session of the request could not be ended, the change has happened; the operation of the
    /// error is then "ending the visitor's other sessions".
    ///
    /// - Returns the error of the store if a store operation fails.
    /// - Returns [`ErrorKind::Payload`](crate::ErrorKind::Payload) if the value cannot be encoded or is over the size limit.
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if another request changed the session, and the session
    ///   rejects conflicts or the two changes cannot be merged.
    pub fn commit(&self, mut session: Session<T>) -> Result<Committed> {
        self.commit_open(&mut session)
    }

    /// Commits a session that the caller keeps, for [`keep_stored`](Self::keep_stored) after an error.
    pub(crate) fn commit_open(&self, session: &mut Session<T>) -> Result<Committed> {
        let inner = &*self.0;
        let plan = inner.plan(session);
        let (outcome, id) = inner.execute(plan, session)?;
        inner.end_rivals(session.rivals_to_end(outcome, id.as_ref()))?;
        let credential = match (outcome, &id) {
            (Outcome::Destroyed, _) => (session.carrier == Carrier::Cookie).then(|| inner.cookie.take()),
            // The envelope has changes that are not stored.
            (Outcome::Refused, Some(id)) => inner.give_stored(session, id),
            (_, Some(id)) if session.needs_cookie(id) => inner.give(session.carrier, id, &session.envelope),
            _ => None,
        };
        Ok(Committed { carrier: session.carrier, ..Committed::new(outcome, id, inner.store.clone(), credential) })
    }

    /// Drops the changes that are not stored yet, and returns the headers for a session that `update_in` stored.
    ///
    /// It sends no command, unless `update_in` stored a renewal: the other sessions of the request's cookies then end here.
    ///
    /// # Errors
    ///
    /// Returns an error if another session of the request could not be ended.
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn keep_stored(&self, session: &Session<T>) -> Result<Committed> {
        let inner = &*self.0;
        if session.is_renewal_stored {
            inner.end_rivals(&session.rivals)?;
        }
        let id = session.id().copied();
        let credential = id.and_then(|id| inner.give_stored(session, &id));
        let committed = Committed::new(Outcome::Unchanged, id, inner.store.clone(), credential);
        Ok(Committed { carrier: session.carrier, ..committed })
    }
}

/// The action of a commit on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Stores nothing, because there is nothing to store.
    Keep,
    /// Stores nothing, because another request renewed the session. The changes are lost.
    Detach,
    /// Stores a session that did not change, because its cookie is sent again, or because its times must be corrected.
    Refresh(SessionId),
    /// Moves a session that did not change to a new id, because its id is old.
    RenewByAge(SessionId),
    /// Stores a session that is not stored yet.
    Create,
    /// Stores the changes under the same id.
    Save(SessionId),
    /// Moves the session, with its changes, to a new id.
    Rotate(SessionId),
    /// Ends the session, and stores a new one in the same step.
    Replace(SessionId),
    /// Ends the session.
    Delete(SessionId),
    /// Ends only the other sessions that the request's cookies name.
    EndRivals,
}

/// An action, and the findings of the decision.
struct Plan {
    action: Action,
    /// The session, encoded. Empty if it cannot have changed, because encoding costs time.
    encoded: Result<Vec<u8>, BoxError>,
    cookie_is_due: bool,
}

/// The outcome for a session, and the id under which it is stored now.
type Executed = (Outcome, Option<SessionId>);

impl<T: 'static> Inner<T> {
    /// Decides what a commit does. It does no I/O.
    fn plan(&self, session: &Session<T>) -> Plan {
        // A new session whose forms have a token must be stored, or no form would be accepted.
        let has_token = session.is_new() && session.has_token.load(Ordering::Relaxed);
        // The encoding that is compared with the session as it was is also the payload.
        let encoded = match session.change {
            Change::Value | Change::Renew | Change::Reset => session.encode(),
            Change::None if has_token => session.encode(),
            Change::None | Change::Discard | Change::Destroy => Ok(Vec::new()),
        };
        let change = match session.change {
            Change::Value if !session.differs(&encoded) => Change::None,
            change => change,
        };
        let cookie_is_due = self.cookie_is_due(session);
        let must_refresh = !session.is_peeked
            && (session.clock_was_ahead
                || (self.touch_on_read && (cookie_is_due || session.timeouts.differ(&session.envelope))));
        let action = match (change, &session.origin) {
            (Change::None, Origin::Stored { id, .. }) if session.is_renewal_due => Action::RenewByAge(*id),
            (Change::Value, Origin::Stored { id, .. }) if session.is_renewal_due => Action::Rotate(*id),
            (Change::None, Origin::Stored { id, .. }) if must_refresh && !session.loses_fields() => {
                Action::Refresh(*id)
            }
            (Change::None, Origin::New) if has_token => Action::Create,
            // A client with a token has no other way to learn that it has an old one.
            (Change::None | Change::Discard, Origin::Detached) if session.carrier == Carrier::Bearer => Action::Detach,
            // A session of the visitor that cannot be decoded ends as well.
            (Change::Destroy, Origin::New) if !session.rivals.is_empty() => Action::EndRivals,
            (Change::None | Change::Discard, _) | (Change::Destroy, Origin::New) => Action::Keep,
            (Change::Value | Change::Reset | Change::Destroy, Origin::Detached) => Action::Detach,
            (Change::Value | Change::Reset, Origin::New) => Action::Create,
            (Change::Renew, Origin::New | Origin::Detached) => Action::Create,
            (Change::Value, Origin::Stored { id, .. }) => Action::Save(*id),
            (Change::Renew, Origin::Stored { id, .. }) => Action::Rotate(*id),
            (Change::Reset, Origin::Stored { id, .. }) => Action::Replace(*id),
            (Change::Destroy, Origin::Stored { id, .. }) => Action::Delete(*id),
        };
        Plan { action, encoded, cookie_is_due }
    }

    /// Does what was planned, with one command if nothing interferes.
    fn execute(&self, plan: Plan, session: &mut Session<T>) -> Result<Executed> {
        match plan.action {
            Action::Keep => Ok((Outcome::Unchanged, session.id().copied())),
            Action::Detach => Ok((Outcome::Detached, None)),
            Action::Refresh(id) => self.refresh(session, id, false, plan.cookie_is_due),
            Action::RenewByAge(id) => self.refresh(session, id, true, true),
            Action::Create => Ok(match self.create(session, &self.storable(plan.encoded)?)? {
                SaveOutcome::Stored(id, _) => (Outcome::Stored, Some(id)),
                SaveOutcome::OverCap => (Outcome::Refused, None),
                _ => (Outcome::Dropped, None),
            }),
            Action::Save(id) => self.save(session, id, false, plan),
            Action::Rotate(id) => self.save(session, id, true, plan),
            Action::Replace(id) => {
                let payload = self.storable(plan.encoded)?;
                Ok(match self.replace(session, &id, &payload)? {
                    SaveOutcome::Stored(id, _) => (Outcome::Stored, Some(id)),
                    SaveOutcome::Ended => (Outcome::Dropped, None),
                    SaveOutcome::Missing | SaveOutcome::Conflict => (Outcome::Detached, None),
                    SaveOutcome::OverCap => (Outcome::Refused, Some(id)),
                })
            }
            Action::Delete(id) => self.delete(&id),
            Action::EndRivals => Ok((Outcome::Destroyed, None)),
        }
    }

    /// Saves the changes of the session, under a new id if it is renewed.
    fn save(&self, session: &mut Session<T>, id: SessionId, is_renewed: bool, plan: Plan) -> Result<Executed> {
        // Find out what changed before the time of the cookie moves, because that is no change of the request.
        let encoded = self.storable(plan.encoded)?;
        let changes = session.changes(&encoded);
        let is_cookie_sent = session.envelope.remembered.is_some() && (is_renewed || plan.cookie_is_due);
        let cookie_sent = is_cookie_sent.then_some(session.now);
        if is_renewed {
            self.note_renewal(session);
        }
        session.envelope.remembered = cookie_sent.or(session.envelope.remembered);
        let has_new_times = cookie_sent.is_some() || (is_renewed && self.renew_every.is_some());
        let payload = match has_new_times {
            true => Cow::from(self.storable(session.encode())?),
            false => Cow::from(&encoded),
        };
        let overwrites = session.on_conflict == OnConflict::LastWriteWins && self.is_value_changed(session, &changes);
        let mut save = Save { cookie_sent, ..Save::new(id, session, payload, changes) };
        if is_renewed {
            save = save.with_next_id(session);
        }
        if overwrites {
            save.expected = None;
        }
        match self.save_until_stored(session, save, |session| self.encode_revised(session))? {
            SaveOutcome::Stored(id, _) => Ok((Outcome::Stored, Some(id))),
            SaveOutcome::Ended => Ok((Outcome::Dropped, None)),
            SaveOutcome::Missing => {
                let lost = if self.was_renewed(&id)? { Outcome::Detached } else { Outcome::Dropped };
                Ok((lost, None))
            }
            SaveOutcome::Conflict => Err(conflict()),
            SaveOutcome::OverCap => Ok((Outcome::Refused, Some(id))),
        }
    }

    /// Returns `true` if the value itself changed. A map in another order has not.
    fn is_value_changed(&self, session: &Session<T>, changes: &Option<Changes<'_>>) -> bool {
        let value = changes.as_ref().and_then(|changes| changes.value.as_deref());
        value.is_some_and(|value| session.snapshot.as_deref().is_none_or(|base| !self.codec.is_same(base, value)))
    }

    /// Stores a session that did not change, under a new id if its id is old. If another request changed it in between, a later
    /// request sends the cookie, and a new id takes the change over.
    fn refresh(
        &self,
        session: &mut Session<T>,
        id: SessionId,
        is_renewed: bool,
        sends_cookie: bool,
    ) -> Result<Executed> {
        let before = (session.envelope.remembered, session.envelope.id_since);
        let cookie_sent = session.envelope.remembered.filter(|_| sends_cookie).map(|_| session.now);
        session.envelope.remembered = cookie_sent.or(session.envelope.remembered);
        if is_renewed {
            self.note_renewal(session);
        }
        let has_token = session.has_token.load(Ordering::Relaxed);
        let saved = self.encode_revised(session).and_then(|payload| {
            let mut save = Save { merges: Merges::Never, ..Save::new(id, session, payload, None) };
            if is_renewed {
                save = Save { merges: Merges::Always, cookie_sent, ..save }.with_next_id(session);
            }
            self.save_until_stored(session, save, |session| self.encode_revised(session))
        });
        let executed = match saved {
            Ok(SaveOutcome::Stored(id, _)) => return Ok((Outcome::Stored, Some(id))),
            Ok(SaveOutcome::Conflict | SaveOutcome::OverCap) => (Outcome::Unchanged, Some(id)),
            Ok(SaveOutcome::Missing | SaveOutcome::Ended) => (Outcome::Unchanged, None),
            // The request changed nothing, so a full or read-only store, or a lower limit, does not concern it. A later request
            // does what is due. But the page of the response may have a token for the new id, with which its forms would be
            // rejected.
            Err(error) if is_harmless(&error) && !has_token => (Outcome::Unchanged, Some(id)),
            Err(error) => return Err(error),
        };
        (session.envelope.remembered, session.envelope.id_since) = before;
        Ok(executed)
    }

    /// Ends a session. If it is gone already, another request has either ended it, which is as good, or renewed it. A renewed
    /// session lives on under its new id.
    fn delete(&self, id: &SessionId) -> Result<Executed> {
        let outcome = if self.delete_for(id, EndCause::Destroyed)? || !self.was_renewed(id)? {
            Outcome::Destroyed
        } else {
            Outcome::Detached
        };
        Ok((outcome, None))
    }

    /// Ends the other sessions that the request's cookies name. The change of this session has happened by then.
    ///
    /// # Errors
    ///
    /// Returns an error if one may still be live, because the visitor's next request would open it.
    fn end_rivals(&self, rivals: &[SessionId]) -> Result<()> {
        for rival in rivals {
            self.delete_for(rival, EndCause::Superseded).map_err(|error| {
                let kind = if error.kind().is_temporary() { ErrorKind::MayHaveHappened } else { error.kind() };
                Error::new(kind, operation::END_RIVALS).with_source(error)
            })?;
        }
        Ok(())
    }

    /// Returns `true` if a persistent cookie is past half of its `Max-Age`. It is sent again then, and the session stores when.
    fn cookie_is_due(&self, session: &Session<T>) -> bool {
        if session.carrier == Carrier::Bearer {
            return false;
        }
        let envelope = &session.envelope;
        let (Some(since), Origin::Stored { .. }) = (envelope.remembered, &session.origin) else { return false };
        // The cookie was sent before the lifetime began anew, so its `Max-Age` is too short.
        if self.lifetime.is_some() && envelope.created > since {
            return true;
        }
        let (Some(told), Some(now)) =
            (self.cookie_max_age(envelope, since), self.cookie_max_age(envelope, session.now))
        else {
            return false;
        };
        let age = session.now.duration_since(since).unwrap_or_default();
        // A cookie that ends with the lifetime of the session cannot last longer.
        age > told / 2 && age + now > told
    }

    /// Returns how long a cookie lasts that is sent at this time; `None` if it ends with the browser.
    fn cookie_max_age<D>(&self, envelope: &Envelope<D>, sent: SystemTime) -> Option<Duration> {
        let left = self.timeouts().ttl(envelope, sent).unwrap_or(Duration::MAX);
        envelope.remembered.map(|_| left.min(COOKIE_MAX_AGE))
    }

    /// Returns the cookie or the token for what is stored of a session, if the visitor needs one although the pending changes are
    /// dropped.
    fn give_stored(&self, session: &Session<T>, id: &SessionId) -> Option<String> {
        self.give(session.carrier, id, &session.stored_head(id)?)
    }

    /// Returns the cookie or the token for a session, unless the lifetime of the session is over.
    fn give<D>(&self, carrier: Carrier, id: &SessionId, envelope: &Envelope<D>) -> Option<String> {
        let is_over = self.ttl(envelope).is_some_and(|left| left.is_zero());
        let max_age = self.cookie_max_age(envelope, self.clock.now());
        (!is_over).then(|| match carrier {
            Carrier::Cookie => self.cookie.give(id, max_age),
            Carrier::Bearer => id.expose(),
        })
    }
}

/// Returns `true` if nothing was stored, because of the session, of another request, or of an outage.
fn is_harmless(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Conflict | ErrorKind::Payload | ErrorKind::Refused => true,
        kind => kind.is_temporary() && kind != ErrorKind::MayHaveHappened,
    }
}

#[cfg(test)]
mod tests;
