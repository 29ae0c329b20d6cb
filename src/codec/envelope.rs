//! The envelope that every format stores around the value of the application, and the revision prefix of a payload.
//!
//! Codecs encode it, the manager fills it in, and the Redis store compares the revision prefix. Every stored encoding has a new
//! random revision, so no two payloads are equal.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Format;
use crate::{BoxError, Clock, Reason};

/// The stored form of a session around your value: `{"v":1,"rev":…,"created":…,"idle":…,"data":…}` in JSON.
///
/// `v` is the version of this layout, 1. A payload of a newer version is rejected.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Envelope<D> {
    #[serde(rename = "v")]
    version: LayoutVersion,
    /// A random number that is new with every stored encoding, so that no two payloads are equal.
    ///
    /// By the revision, a retried operation distinguishes its own earlier success from the change of another request.
    #[serde(rename = "rev")]
    pub revision: u64,
    /// The time when the session began, or [began anew](crate::Session::restart_lifetime), on the clock of the application.
    ///
    /// A renewal keeps it. It is stored in whole milliseconds since 1970.
    #[serde(with = "millis")]
    pub created: SystemTime,
    /// The time when the cookie of a remembered session was last sent. `None` for a session that is not remembered.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub remembered: Option<SystemTime>,
    /// The principal that owns the session, with the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Binding>,
    /// The idle timeout with which the session was stored. From it, any manager computes when the session was last used.
    #[serde(default, rename = "idle", skip_serializing_if = "Option::is_none", with = "optional_duration")]
    pub idle_timeout: Option<Duration>,
    /// The end of the lifetime with which the session was stored.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub ends: Option<SystemTime>,
    /// The time when the session got its id, if a manager with [`renew_every`](crate::SessionManagerBuilder::renew_every) renewed
    /// it. Otherwise the age of the id counts from `created`.
    #[serde(default, rename = "id", skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub id_since: Option<SystemTime>,
    /// The value of the application.
    pub data: D,
}

/// An envelope without the value.
pub(crate) type Head = Envelope<()>;

/// The principal that owns a session, and the label of the session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Binding {
    /// The principal, such as a user's number.
    pub principal: String,
    /// A small text for the list of the principal's sessions, such as a device.
    pub label: String,
}

impl Binding {
    /// Creates a binding to this principal with this label.
    pub fn new(principal: impl Into<String>, label: impl Into<String>) -> Self {
        Self { principal: principal.into(), label: label.into() }
    }
}

/// Hides the principal, because it identifies a person.
impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(..)")
    }
}

impl<D> Envelope<D> {
    /// Creates the envelope of a session that begins now, with a new revision.
    pub fn new(data: D) -> Self {
        Self {
            version: LayoutVersion,
            revision: fresh_revision(),
            created: Clock::system().now(),
            remembered: None,
            bound: None,
            idle_timeout: None,
            ends: None,
            id_since: None,
            data,
        }
    }

    /// Returns an envelope around a reference to the value.
    pub(crate) fn by_ref(&self) -> Envelope<&D> {
        self.with_data(&self.data)
    }

    /// Returns the envelope without the value.
    pub(crate) fn head(&self) -> Head {
        self.with_data(())
    }

    /// Returns this envelope around another value.
    pub(crate) fn with_data<E>(&self, data: E) -> Envelope<E> {
        Envelope {
            version: LayoutVersion,
            revision: self.revision,
            created: self.created,
            remembered: self.remembered,
            bound: self.bound.clone(),
            idle_timeout: self.idle_timeout,
            ends: self.ends,
            id_since: self.id_since,
            data,
        }
    }

    pub(crate) fn try_map<E>(self, map: impl FnOnce(D) -> Result<E, BoxError>) -> Result<Envelope<E>, BoxError> {
        let head = self.head();
        Ok(head.with_data(map(self.data)?))
    }

    /// Applies the changes from `before` to `after`, except those of the value.
    ///
    /// A later time of the cookie does not make a visitor remembered, and a new label does not give the session back to a
    /// principal who no longer owns it.
    pub(crate) fn apply_head(&mut self, before: &Head, after: &Head) {
        if after.created != before.created {
            self.created = after.created;
        }
        match (before.remembered, after.remembered) {
            (Some(_), Some(_)) if self.remembered.is_none() => {}
            (before, after) if before == after => {}
            (_, after) => self.remembered = after,
        }
        let [owner_before, owner_after, owner] =
            [&before.bound, &after.bound, &self.bound].map(|bound| bound.as_ref().map(|binding| &binding.principal));
        let is_relabelled = owner_before.is_some() && owner_before == owner_after;
        if after.bound != before.bound && !(is_relabelled && owner != owner_after) {
            self.bound = after.bound.clone();
        }
    }

    /// Moves times that are later than `now`, because the clock of another process was ahead, to `now`.
    pub(crate) fn limit_times(&mut self, now: SystemTime) {
        self.created = self.created.min(now);
        self.remembered = self.remembered.map(|since| since.min(now));
        self.id_since = self.id_since.map(|since| since.min(now));
    }

    /// Draws a new revision, so that the encoding differs from all earlier ones.
    pub(crate) fn revise(&mut self) {
        self.revision = fresh_revision();
    }
}

/// Returns a unique revision. A revision is no secret, so it avoids the system call of a random number: it is a hash of a count
/// and of the time, under keys that are random in every thread. The time is included because a fork copies the keys.
fn fresh_revision() -> u64 {
    thread_local! {
        static KEYS: RandomState = RandomState::new();
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    let count = COUNT.replace(COUNT.get().wrapping_add(1));
    KEYS.with(|keys| keys.hash_one((count, SystemTime::now())))
}

/// Hides the value, because it may be secret.
impl<D> fmt::Debug for Envelope<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("created", &self.created)
            .field("remembered", &self.remembered)
            .finish_non_exhaustive()
    }
}

/// The only layout version, as a type that decodes from no other number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LayoutVersion;

impl LayoutVersion {
    const NUMBER: u64 = 1;
}

impl Serialize for LayoutVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for LayoutVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            _ => Err(de::Error::custom("another layout version")),
        }
    }
}

/// Fails if a payload that could not be decoded has another layout version. Errors of formats are not passed on, because they
/// quote the payload.
pub(super) fn check_version<F: Format>(payload: &[u8]) -> Result<(), BoxError> {
    #[derive(Deserialize)]
    struct Head {
        v: u64,
    }
    match F::from_slice(payload) {
        Ok(Head { v }) if v != LayoutVersion::NUMBER => {
            let own = LayoutVersion::NUMBER;
            let why = format!("the payload has layout version {v}, this program reads version {own}");
            Err(Reason::computed(why).into())
        }
        _ => Ok(()),
    }
}

/// Returns the beginning of a payload up to its revision, which no other payload shares, or `None` if the payload has none of
/// the formats of this crate. At most 64 bytes.
pub(crate) fn revision_prefix(payload: &[u8]) -> Option<&[u8]> {
    const JSON: &[u8] = b"{\"v\":1,\"rev\":";
    // The envelope is a map of 4 to 9 fields. The revision is a number of 64 bits.
    const MESSAGE_PACK: &[u8] = b"\xa1v\x01\xa3rev\xcf";
    let end = if let Some(rest) = payload.strip_prefix(JSON) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (rest.get(digits) == Some(&b',') && (1..=20).contains(&digits)).then_some(JSON.len() + digits + 1)
    } else {
        let (fields, rest) = payload.split_first()?;
        ((0x84..=0x89).contains(fields) && rest.starts_with(MESSAGE_PACK)).then_some(1 + MESSAGE_PACK.len() + 8)
    };
    payload.get(..end?)
}

mod millis {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_u64(since.as_millis() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let millis = Duration::from_millis(u64::deserialize(deserializer)?);
        UNIX_EPOCH.checked_add(millis).ok_or_else(|| de::Error::custom("a time out of range"))
    }
}

mod optional_millis {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => millis::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        millis::deserialize(deserializer).map(Some)
    }
}

mod optional_duration {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_u64(time.as_millis() as u64),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        u64::deserialize(deserializer).map(|millis| Some(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn every_format_begins_with_a_unique_revision_prefix() {
        fn check<F: Format>() {
            let prefixes: HashSet<Vec<u8>> = (0..100)
                .map(|n: u32| {
                    let mut envelope = Envelope::new(n % 2);
                    envelope.revision |= 1 << 63;
                    envelope.bound = n.is_multiple_of(3).then(|| Binding::new("ada", "phone"));
                    envelope.remembered = n.is_multiple_of(5).then_some(envelope.created);
                    envelope.idle_timeout = n.is_multiple_of(6).then_some(Duration::from_secs(60));
                    envelope.ends = n.is_multiple_of(7).then_some(envelope.created);
                    envelope.id_since = n.is_multiple_of(2).then_some(envelope.created);
                    let payload = F::to_vec(&envelope).unwrap();
                    let prefix = revision_prefix(&payload).unwrap();
                    assert!(prefix.len() <= 64);
                    assert_eq!(revision_prefix(prefix), Some(prefix), "a prefix is its own prefix");
                    prefix.to_vec()
                })
                .collect();
            assert_eq!(prefixes.len(), 100);
        }
        check::<crate::codec::JsonFormat>();
        #[cfg(feature = "msgpack")]
        check::<crate::codec::MessagePackFormat>();
    }

    #[test]
    fn payload_without_leading_revision_has_no_prefix() {
        let json = |rev: &str| format!("{{\"v\":1,\"rev\":{rev},\"data\":0}}").into_bytes();
        assert_eq!(revision_prefix(&json("7")), Some(&b"{\"v\":1,\"rev\":7,"[..]));
        let others = [
            b"".to_vec(),
            b"1".to_vec(),
            json(""),
            json("-7"),
            json("123456789012345678901"),
            json("7")[..14].to_vec(),
        ];
        for other in others
            .iter()
            .chain([&b"\x84\xa1v\x01\xa3rev\xcf1234567".to_vec(), &b"\x84\xa1v\x01\xa3rev\xce12345678".to_vec()])
        {
            assert_eq!(revision_prefix(other), None, "{other:?}");
        }
    }

    #[test]
    fn threads_draw_different_revisions() {
        let threads: Vec<_> =
            (0..8).map(|_| thread::spawn(|| (0..1000).map(|_| fresh_revision()).collect::<Vec<_>>())).collect();
        let drawn: HashSet<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(drawn.len(), 8 * 1000);
    }
}
