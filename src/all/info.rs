//! [`SessionInfo`], what operators see of a session.
//!
//! [`AllSessions`](super::AllSessions) makes it of a snapshot. The invariant: it holds nothing of the value, and what it cannot
//! know is `None`, never a guess.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Decoder;
use crate::codec::{Head, read_head};
use crate::store::{SessionKey, Snapshot};
use crate::{Handle, Reason, serialize};

/// A live session, as an operator may see it; from [`AllSessions`](crate::AllSessions).
///
/// It serializes the fields under their names: the handle and the reason as text, `expires_in` in milliseconds, and the other times
/// in milliseconds since 1970. `Debug` hides the owner.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    #[serde(skip)]
    key: SessionKey,
    /// Names the session without giving it away.
    pub handle: Handle,
    /// The partition that the session is in.
    pub partition: u32,
    /// The principal that the session belongs to. `None` without an owner, or if the payload is unreadable.
    pub owner: Option<String>,
    /// The hash of the principal, as the keys of an expiring Redis store have it. Known even if the payload is unreadable.
    pub owner_hash: Option<String>,
    /// The label that [`bind`](crate::Session::bind) gave it.
    pub label: Option<String>,
    /// When it [began](crate::Session::created). `None` if the payload is unreadable.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub created: Option<SystemTime>,
    /// When it was last used, to within a 64th of the time that it lives when idle, or to within
    /// [`touch_every`](crate::SessionManagerBuilder::touch_every) if [`SessionManager::all`](crate::SessionManager::all) found
    /// it. `None` if it cannot be known: if the payload is unreadable, if the session does not expire by idling, if its lifetime ends before its idle timeout, or if a manager with another idle timeout used it.
    #[serde(serialize_with = "serialize::optional_moment")]
    pub last_used: Option<SystemTime>,
    /// How long it lives if it is not used, with the additional time of `touch_every`. `None`: it does not expire.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub expires_in: Option<Duration>,
    /// The reason why the payload is unreadable, for example because it is encrypted. Then owner, label and times are `None`.
    #[serde(serialize_with = "serialize::optional_text")]
    pub unreadable: Option<Reason>,
}

impl SessionInfo {
    /// Describes a session without the codec and the settings of its manager.
    #[cfg(feature = "cli")]
    pub(crate) fn without_manager(snapshot: Snapshot, now: SystemTime) -> Self {
        Self::of(snapshot, None, Duration::ZERO, now)
    }

    pub(super) fn of(
        snapshot: Snapshot,
        decoder: Option<&Decoder<'_>>,
        touch_every: Duration,
        now: SystemTime,
    ) -> Self {
        let head = match &snapshot.payload {
            Ok(payload) => read_head(payload).or_else(|why| decoder.and_then(|decode| decode(payload)).ok_or(why)),
            Err(error) => Err(Reason::computed(format!("{error:#}"))),
        };
        let mut info = Self {
            handle: snapshot.key.handle(),
            partition: snapshot.key.partition(),
            key: snapshot.key,
            owner: None,
            owner_hash: snapshot.owner_hash,
            label: None,
            created: None,
            last_used: None,
            expires_in: snapshot.expires_in,
            unreadable: None,
        };
        match head {
            Ok(head) => info.read(head, touch_every, now),
            Err(why) => info.unreadable = Some(why),
        }
        info
    }

    fn read(&mut self, mut head: Head, touch_every: Duration, now: SystemTime) {
        head.limit_times(now);
        self.created = Some(head.created);
        self.last_used = head.last_used(self.expires_in, touch_every, None, now);
        if let Some(bound) = head.bound {
            self.owner = Some(bound.principal);
            self.label = Some(bound.label);
        }
    }

    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("handle", &self.handle)
            .field("partition", &self.partition)
            .field("label", &self.label)
            .field("created", &self.created)
            .field("last_used", &self.last_used)
            .field("expires_in", &self.expires_in)
            .field("unreadable", &self.unreadable)
            .finish_non_exhaustive()
    }
}
