use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::backoff::Backoff;
use super::{Inner, OnConflict, SessionManager};
use crate::codec::Envelope;
use crate::session::{Change, Origin};
use crate::store::{Bind, Found, Saved, Touch, Write};
use crate::{BoxError, Error, ErrorKind, Result, Session, SessionId, operation};

/// What became of a session, and the headers for the response.
#[derive(Clone)]
#[must_use = "the response needs the headers, and the outcome tells whether the change was kept"]
pub struct Committed {
    outcome: Outcome,
    id: Option<SessionId>,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
}

/// What became of the changes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// There were none, or they were discarded.
    Unchanged,
    /// They are stored, perhaps merged with those of another request.
    Stored,
    /// The session was destroyed, as asked.
    Destroyed,
    /// They were dropped: the session was destroyed, or expired, while this request had it.
    Dropped,
    /// They were dropped: the session was renewed while this request had it, or just before.
    Detached,
}

impl Outcome {
    /// Whether a change was lost. Answering 200 would not be true then; 409 says so.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Dropped | Self::Detached)
    }
}

impl Committed {
    /// What became of the changes.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The id under which the session is stored now; `None` if it is not. To name the session in a log, take its handle:
    /// `sessions.store().handle(id)`.
    pub fn id(&self) -> Option<&SessionId> {
        self.id.as_ref()
    }

    /// The headers for the response, names with values: `Set-Cookie` if the cookie changed, and always
    /// `Cache-Control: no-store` and `Vary: Cookie`, for a page that merely reads the session is personal too. The adapters
    /// leave out one of these two that the handler has set itself; who copies them by hand should do so as well.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, &**value))
    }
}

/// Shows the names of the headers only: `Set-Cookie` holds the id.
impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Committed")
            .field("outcome", &self.outcome)
            .field("id", &self.id)
            .field("headers", &headers)
            .finish()
    }
}

impl<T: 'static> SessionManager<T> {
    /// Does what was asked of the session, with one command if anything has to be stored, and none otherwise.
    ///
    /// # Errors
    ///
    /// That the store could not be asked or could not do it; [`ErrorKind::Payload`] if the value cannot be encoded or is
    /// over the size limit; [`ErrorKind::Conflict`] if another request changed the session meanwhile, and the two changes
    /// were not to be merged or could not be. Nothing was stored then, except that [`ErrorKind::MayHaveHappened`] leaves
    /// it open.
    pub fn commit(&self, mut session: Session<T>) -> Result<Committed> {
        let inner = &*self.0;
        let id = session.id().copied();
        // What is compared with the session as it was is what is stored. Nothing is, unless it may have changed.
        let encode = |session: &Session<T>| match session.change {
            Change::Value | Change::Renew => session.encode(),
            Change::None | Change::Discard | Change::Destroy => Ok(Vec::new()),
        };
        let mut encoded = encode(&session);
        let change = match session.change {
            Change::Value if !session.differs(&encoded) => Change::None,
            change => change,
        };
        let cookie_is_due = inner.cookie_is_due(&session);
        if cookie_is_due && change != Change::None {
            session.envelope.remembered = Some(session.now);
            encoded = encode(&session);
        }
        let (outcome, id) = match (change, id) {
            (Change::None, Some(id)) if cookie_is_due && inner.touch_on_read => {
                inner.refresh_cookie(&mut session, &id)?
            }
            (Change::None | Change::Discard, id) => (Outcome::Unchanged, id),
            // Gone already: logged out by another request, which is as well, or renewed by one, which keeps its new id.
            (Change::Destroy, Some(id)) if !inner.store.delete(&id)? && inner.was_renewed(&id)? => {
                (Outcome::Detached, None)
            }
            (Change::Destroy, Some(_)) => (Outcome::Destroyed, None),
            (Change::Destroy, None) if session.is_detached() => (Outcome::Detached, None),
            (Change::Destroy, None) => (Outcome::Unchanged, None),
            (Change::Value, None) if session.is_detached() => (Outcome::Detached, None),
            (Change::Value | Change::Renew, None) => {
                let payload = inner.payload(encoded)?;
                let (id, _) = inner.create(inner.write(&session, &payload, false))?;
                (Outcome::Stored, Some(id))
            }
            (Change::Value, Some(id)) => inner.replace(&mut session, &id, None, encoded)?,
            (Change::Renew, Some(id)) => {
                let new = inner.store.fresh_id(Some(&id));
                inner.replace(&mut session, &id, Some(new), encoded)?
            }
        };
        let cookie = match (outcome, &id) {
            (Outcome::Destroyed, _) => Some(inner.cookie.take()),
            (_, Some(id)) if session.needs_cookie(id) => {
                Some(inner.cookie.give(id, inner.cookie_max_age(&session.envelope)))
            }
            _ => None,
        };
        let mut headers = vec![("Cache-Control", "no-store".into()), ("Vary", "Cookie".into())];
        headers.extend(cookie.map(|cookie| ("Set-Cookie", cookie.into())));
        Ok(Committed { outcome, id, headers })
    }
}

impl<T: 'static> Inner<T> {
    /// A persistent cookie past half its life is sent again, which has to be stored.
    fn cookie_is_due(&self, session: &Session<T>) -> bool {
        let (Some(since), Origin::Stored { .. }) = (session.envelope.remembered, &session.origin) else { return false };
        let age = session.now.duration_since(since).unwrap_or_default();
        self.cookie_max_age(&session.envelope).is_some_and(|lasts| age > lasts / 2)
    }

    /// Stores a session that did not change because its cookie is sent again. That somebody else changed it meanwhile is no
    /// conflict: a later request sends the cookie then.
    fn refresh_cookie(&self, session: &mut Session<T>, id: &SessionId) -> Result<(Outcome, Option<SessionId>)> {
        let before = session.envelope.remembered.replace(session.now);
        let payload = self.encode_revised(session)?;
        let saved = self.store.save(id, self.write(session, &payload, false), session.version())?;
        if !matches!(saved, Saved::Stored(_)) {
            session.envelope.remembered = before;
        }
        Ok(match saved {
            Saved::Stored(_) => (Outcome::Stored, Some(*id)),
            Saved::Conflict(_) => (Outcome::Unchanged, Some(*id)),
            Saved::Missing => (Outcome::Unchanged, None),
        })
    }

    /// How long the cookie lasts, if not until the browser is closed.
    fn cookie_max_age<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        envelope.remembered.map(|_| self.ttl(envelope).unwrap_or(Duration::MAX))
    }

    /// How long a session lives that is stored now.
    fn ttl<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        let left = [self.idle_timeout(envelope), self.lifetime_left(envelope, self.clock.now())];
        left.into_iter().flatten().min()
    }

    /// What was encoded, if it may be stored.
    fn payload(&self, encoded: Result<Vec<u8>, BoxError>) -> Result<Vec<u8>> {
        let refuse = |source| Error::new(ErrorKind::Payload, operation::ENCODE).with_source(source);
        let payload = encoded.map_err(refuse)?;
        if payload.len() > self.max_payload {
            return Err(refuse(format!("{} bytes are over the limit of {}", payload.len(), self.max_payload).into()));
        }
        Ok(payload)
    }

    /// A payload that no other is equal to.
    pub(super) fn encode_revised(&self, session: &mut Session<T>) -> Result<Vec<u8>> {
        session.envelope.revise();
        self.payload(session.encode())
    }

    /// What is stored of a session. `anew` says whom it belongs to even if that has not changed.
    pub(super) fn write<'a>(&self, session: &'a Session<T>, payload: &'a [u8], anew: bool) -> Write<'a> {
        let anew = anew && self.store.index().is_some();
        let bind = match (session.principal(), session.stored_principal.as_deref()) {
            (now, before) if now == before && !anew => Bind::Keep,
            (Some(principal), before) => {
                Bind::To { principal, cap: self.max_per_principal.filter(|_| before != Some(principal)) }
            }
            (None, _) => Bind::Nobody,
        };
        Write::new(payload, self.ttl(&session.envelope)).with_bind(bind)
    }

    /// Saves the session, under a new id if there is one.
    fn replace(
        &self,
        session: &mut Session<T>,
        id: &SessionId,
        new: Option<SessionId>,
        encoded: Result<Vec<u8>, BoxError>,
    ) -> Result<(Outcome, Option<SessionId>)> {
        let Origin::Stored { version, .. } = &session.origin else { unreachable!("it has an id") };
        // A renewal that changes nothing overwrites nothing. (Of a change it was found out before that it is one.)
        let modified = session.change == Change::Value || session.differs(&encoded);
        let mine = self.payload(encoded)?;
        let blind = modified && session.on_conflict == OnConflict::LastWriteWins;
        let mut expected = (!blind).then(|| version.clone());
        let mut merged = None;
        let mut backoff = Backoff::new();
        loop {
            // Who overwrites what is there, whatever it is, cannot know whom it belongs to. And in a renewal it costs little to
            // say so again, in case Redis has lost it.
            let anew = blind || (new.is_some() && session.principal().is_some());
            let write = self.write(session, merged.as_deref().unwrap_or(&mine), anew);
            let saved = match &new {
                Some(new) => self.store.rotate(id, new, write, expected.as_ref())?,
                None => self.store.save(id, write, expected.as_ref())?,
            };
            let theirs = match saved {
                Saved::Stored(_) => return Ok((Outcome::Stored, new.or(Some(*id)))),
                Saved::Missing => {
                    let lost = if self.was_renewed(id)? { Outcome::Detached } else { Outcome::Dropped };
                    return Ok((lost, None));
                }
                Saved::Conflict(_) if modified && session.on_conflict == OnConflict::Fail => {
                    return Err(Error::new(ErrorKind::Conflict, operation::SAVE));
                }
                Saved::Conflict(theirs) => theirs,
            };
            backoff.wait()?;
            self.merge_with(session, modified.then_some(&mine), &theirs.payload)?;
            merged = Some(self.encode_revised(session)?);
            expected = Some(theirs.version);
        }
    }

    fn was_renewed(&self, id: &SessionId) -> Result<bool> {
        Ok(matches!(self.store.read(id, Touch::No)?, Found::Renewed))
    }

    /// Takes over what is there now, and puts what this request changed, `mine`, onto it.
    pub(super) fn merge_with(&self, session: &mut Session<T>, mine: Option<&[u8]>, theirs: &[u8]) -> Result<()> {
        let conflict = |why: &'static str| Error::new(ErrorKind::Conflict, operation::MERGE).with_source(why);
        let there = self.decode(theirs)?;
        session.stored_principal = there.bound.as_ref().map(|bound| bound.principal.clone());
        session.envelope = match (mine, &session.snapshot) {
            (None, _) => there,
            (Some(_), None) => return Err(conflict("what it was before could not be encoded")),
            (Some(mine), Some(base)) => {
                let merged = self.codec.merge(base, mine, theirs);
                let merged = merged.ok_or_else(|| conflict("it has no fields to tell apart"))?;
                if merged.len() > self.max_payload {
                    return Err(conflict("the result is over the size limit"));
                }
                self.codec.decode(&merged).map_err(|_| conflict("the result is no value of its type"))?
            }
        };
        Ok(())
    }
}
