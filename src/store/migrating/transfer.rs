//! The transfer of a session from the old store to the new one.
//!
//! Every operation of [`MigratingStore`] calls it for a session that it does not find in the new store. The steps are:
//!
//! 1. Create a *claim* under the id in the new store, bound to the owner of the session. A claim is no session.
//! 2. Read the session in the old store again. Replace the claim by a *copy*, if the claim is still there.
//! 3. Delete the session in the old store.
//! 4. Replace the copy by the bare payload.
//!
//! A process may stop after each step, and any process can do the next one. The invariants: a session ends in the old store before
//! it ends in the new one, so a claim that was made too late leads to no copy; and a bare payload has no original in the old
//! store.

use std::slice;
use std::time::{Duration, Instant};

use super::MigratingStore;
use super::mark::{self, Mark, PayloadDigest};
use crate::store::{Bind, Bytes, Companion, Created, Found, Saved, Stored, Touch, Version, Write};
use crate::{Error, ErrorKind, Reason, Result, SessionId, operation};

/// The TTL of a claim. It bounds how long a claim that leads to no copy stays.
const CLAIM_TTL: Duration = Duration::from_secs(30);

/// How often an operation looks again at a session that other processes move or change at that moment.
pub(super) const LOOKS: usize = 32;

/// The result of one step of a transfer.
enum Step {
    Done(Found),
    /// Another process has changed the session in the new store, or the step is over.
    LookAgain,
}

/// A session as it was read in the old store.
struct Original {
    payload: Bytes,
    deadline: Deadline,
}

/// The deadline of a session, by the clock of this process.
#[derive(Clone, Copy)]
struct Deadline {
    /// The time that was left at the read; `None` if the session does not expire.
    left: Option<Duration>,
    /// The time before the read.
    read_at: Instant,
}

impl Deadline {
    /// Returns the TTL for a write now. The time that the move has taken is subtracted, so a session does not live longer.
    fn ttl(&self) -> Option<Duration> {
        self.left.map(|left| left.saturating_sub(self.read_at.elapsed()))
    }

    fn has_passed(&self) -> bool {
        self.ttl().is_some_and(|left| left < Duration::from_millis(1))
    }
}

/// The result of a look at the old store.
enum Looked {
    Live(Original),
    /// There is no session, and this is known of it.
    Gone(Found),
}

impl MigratingStore {
    /// Moves a session to the new store if it is in the old one. Returns it as the new store has it, or the reason of its absence.
    pub(super) fn settle(&self, id: &SessionId) -> Result<Found> {
        let found = self.new.read(id, Touch::Peek)?;
        self.settle_from(id, found)
    }

    /// Does what [`settle`](Self::settle) does, after a read of the new store that found no bare payload.
    pub(super) fn settle_from(&self, id: &SessionId, found: Found) -> Result<Found> {
        let mut read_at = Instant::now();
        let mut found = match found {
            // The read may not have returned the time left.
            Found::Live(_) => self.new.read(id, Touch::Peek)?,
            dead => dead,
        };
        for _ in 0..LOOKS {
            let step = match found {
                Found::Live(stored) => match Mark::of(&stored.payload) {
                    None => return Ok(Found::Live(stored)),
                    Some(Mark::Copy(payload)) => {
                        let deadline = Deadline { left: stored.expires_in, read_at };
                        self.finish(id, &stored.version, payload, deadline)?
                    }
                    Some(Mark::Claim(digest)) => self.copy(id, &stored, digest)?,
                },
                dead => self.claim(id, dead)?,
            };
            read_at = Instant::now();
            found = match step {
                Step::Done(found) => return Ok(found),
                Step::LookAgain => self.new.read(id, Touch::Peek)?,
            };
        }
        Err(contended(operation::READ))
    }

    /// Step 1. `dead` is what the new store has under the id.
    fn claim(&self, id: &SessionId, dead: Found) -> Result<Step> {
        let original = match self.look_at_original(id)? {
            Looked::Live(original) => original,
            // Another process may have moved the session between the two reads.
            Looked::Gone(gone) => return self.conclude(id, gone, |found| !matches!(found, Found::Live(_)), dead),
        };
        let claim = mark::claim(&original.payload);
        let principal = self.principal_of(&original.payload)?;
        let bind = principal.as_deref().map_or(Bind::Keep, |principal| Bind::To { principal, cap: None });
        let write = Write::new(&claim, CLAIM_TTL.min(original.deadline.ttl().unwrap_or(CLAIM_TTL))).with_bind(bind);
        match self.new.create(id, write)? {
            Created::Stored(version) => {
                let claimed = Stored::new(claim, version, None);
                self.copy(id, &claimed, mark::digest(&original.payload))
            }
            Created::Taken | Created::OverCap => Ok(Step::LookAgain),
        }
    }

    /// Step 2. `claimed` is the claim in the new store.
    fn copy(&self, id: &SessionId, claimed: &Stored, digest: PayloadDigest) -> Result<Step> {
        self.restore_ttl(id, claimed)?;
        let original = match self.look_at_original(id)? {
            Looked::Live(original) => original,
            Looked::Gone(gone) => {
                let is_same = |found: &Found| matches!(found, Found::Live(now) if now.payload == claimed.payload);
                let step = self.conclude(id, gone, is_same, Found::Absent)?;
                if let Step::Done(_) = step {
                    self.drop_claim(id, claimed)?;
                }
                return Ok(step);
            }
        };
        if mark::digest(&original.payload) != digest {
            // A process that does not know the new store changed the session, perhaps its owner.
            let principal = self.principal_of(&original.payload)?;
            let bind = principal.as_deref().map_or(self.unbind(), |principal| Bind::To { principal, cap: None });
            let claim = mark::claim(&original.payload);
            let _ = self.new.save(id, Write::new(&claim, CLAIM_TTL).with_bind(bind), Some(&claimed.version))?;
            return Ok(Step::LookAgain);
        }
        let companions = self.original_companions(id)?;
        if original.deadline.has_passed() {
            return Ok(Step::LookAgain);
        }
        let copy = mark::copy(&original.payload);
        let write = Write::new(&copy, original.deadline.ttl()).with_companions(&companions);
        match self.new.save(id, write, Some(&claimed.version))? {
            Saved::Stored(version) => self.finish(id, &version, original.payload, original.deadline),
            Saved::Missing | Saved::Conflict(_) | Saved::OverCap => Ok(Step::LookAgain),
        }
    }

    /// Steps 3 and 4. `version` is that of the copy in the new store.
    fn finish(&self, id: &SessionId, version: &Version, payload: Bytes, deadline: Deadline) -> Result<Step> {
        self.old.delete(id)?;
        if deadline.has_passed() {
            return Ok(Step::LookAgain);
        }
        let ttl = deadline.ttl();
        Ok(match self.new.save(id, Write::new(&payload, ttl), Some(version))? {
            Saved::Stored(version) => Step::Done(Found::Live(Stored::new(payload, version, ttl))),
            Saved::Missing | Saved::Conflict(_) | Saved::OverCap => Step::LookAgain,
        })
    }

    /// Reads a session in the old store, past its near cache.
    fn look_at_original(&self, id: &SessionId) -> Result<Looked> {
        let read_at = Instant::now();
        self.old.forget(slice::from_ref(id));
        Ok(match self.old.read(id, Touch::Peek)? {
            Found::Live(Stored { payload, expires_in, .. }) => match mark::unmarked(payload) {
                Some(payload) => Looked::Live(Original { payload, deadline: Deadline { left: expires_in, read_at } }),
                None => Looked::Gone(Found::Absent),
            },
            gone => Looked::Gone(gone),
        })
    }

    /// Looks at the new store once more, because the old store has no session: there is none in either store if the new store
    /// `is_unchanged`.
    fn conclude(
        &self,
        id: &SessionId,
        gone: Found,
        is_unchanged: impl Fn(&Found) -> bool,
        dead: Found,
    ) -> Result<Step> {
        let now = self.new.read(id, Touch::Peek)?;
        if !is_unchanged(&now) {
            return Ok(Step::LookAgain);
        }
        let reasons = [now, dead, gone].into_iter().filter(|found| !matches!(found, Found::Live(_) | Found::Absent));
        Ok(Step::Done(reasons.into_iter().next().unwrap_or(Found::Absent)))
    }

    /// Gives a claim its TTL back, which a read with a touch has prolonged. Does nothing if another process has replaced the claim.
    fn restore_ttl(&self, id: &SessionId, claimed: &Stored) -> Result<()> {
        if claimed.expires_in.is_none_or(|left| left <= CLAIM_TTL) {
            return Ok(());
        }
        self.new.save(id, Write::new(&claimed.payload, CLAIM_TTL), Some(&claimed.version)).map(drop)
    }

    /// Lets a claim that leads to no copy expire at once, unless another process has used it.
    fn drop_claim(&self, id: &SessionId, claimed: &Stored) -> Result<()> {
        let claim = mark::claim(&[]);
        let write = Write::new(&claim, Duration::ZERO).with_bind(self.unbind());
        self.new.save(id, write, Some(&claimed.version)).map(drop)
    }

    fn unbind(&self) -> Bind<'static> {
        if self.new.index().is_some() { Bind::Unbind } else { Bind::Keep }
    }

    fn original_companions(&self, id: &SessionId) -> Result<Vec<Companion>> {
        let read = |suffix: &String| {
            let value = self.old.companion(id, suffix);
            value.map(|value| value.map(|value| Companion::new(suffix.clone(), value))).transpose()
        };
        self.companions.iter().filter_map(read).collect()
    }
}

/// The error if other processes interfere again and again.
pub(super) fn contended(operation: &'static str) -> Error {
    let why = "other processes move or change the session again and again";
    Error::new(ErrorKind::TimedOut, operation).with_source(Reason::new(why))
}
