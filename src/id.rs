//! The id of a session, which is a secret, and its handle, which is not.
//!
//! Every part of the crate uses them. An id reaches text only through `expose`, and every session has one id in one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The secret that names a session: whoever knows it has the session.
///
/// 128 bits from the operating system's CSPRNG. A version-4 UUID has 122 random bits; ASVS 5.0 7.2.3 asks for 128, so all
/// of them are random here. The textual form is the hyphenated lower-case one, 36 characters, and [`parse`](str::parse)
/// accepts no other, so that one session has one name.
///
/// `Debug` is redacted, and there is no `Display`: writing an id out is always [`expose`](Self::expose), which is easy to
/// look for. For logs and pages take the [`Handle`].
///
/// ```
/// use threaded_sessions::SessionId;
///
/// let id = SessionId::random();
/// assert_eq!(id.expose().parse::<SessionId>(), Ok(id));
/// assert_eq!(format!("{id:?}"), "SessionId(..)");
/// assert!(id.expose().to_uppercase().parse::<SessionId>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// Creates a random id.
    ///
    /// A store creates ids with [`SessionStore::fresh_id`](crate::SessionStore::fresh_id), which also picks their partition.
    ///
    /// # Panics
    ///
    /// Panics if the random number generator of the operating system fails.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system's random number generator works");
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the secret in its only textual form.
    ///
    /// Put it into a cookie or into a store, and nowhere else.
    pub fn expose(&self) -> String {
        self.expose_in(&mut [0; 36]).to_owned()
    }

    /// Writes the secret into a buffer, without an allocation.
    pub(crate) fn expose_in<'b>(&self, buffer: &'b mut [u8; 36]) -> &'b str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// Returns the partition, of `count`, that the id lies in.
    pub(crate) fn partition(&self, count: u32) -> u32 {
        (self.0.as_u128() % u128::from(count.max(1))) as u32
    }

    /// Creates a random id in the same partition, of `count`, as `beside`.
    pub(crate) fn random_beside(beside: &Self, count: u32) -> Self {
        let (random, count) = (Self::random().0.as_u128(), u128::from(count.max(1)));
        let floor = random - random % count;
        let id = floor.checked_add(beside.0.as_u128() % count).unwrap_or(floor - count + beside.0.as_u128() % count);
        Self(Uuid::from_u128(id))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = Self(Uuid::try_parse(text).map_err(|_| InvalidId)?);
        if id.expose_in(&mut [0; 36]) == text { Ok(id) } else { Err(InvalidId) }
    }
}

/// The error for a text that is not a [`SessionId`]. It does not hold the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a session id")
    }
}

impl std::error::Error for InvalidId {}

/// A public name of a session that does not give access to it: the SHA-256 of its key in the store, 64 hexadecimal digits.
///
/// Use it in logs, lists and pages. A handle identifies the session, and an application can end the session by it. It cannot be
/// used as a cookie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle([u8; 32]);

impl Handle {
    /// Creates the handle of the session with this key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Returns the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Serializes the text, as `Display` shows it.
impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

impl FromStr for Handle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidHandle)?;
        let handle = Self(bytes);
        if handle.to_string() == text { Ok(handle) } else { Err(InvalidHandle) }
    }
}

/// The error for a text that is not a [`Handle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHandle;

impl fmt::Display for InvalidHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a session handle")
    }
}

impl std::error::Error for InvalidHandle {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_128_bits_vary() {
        let (mut ones, mut zeros) = (0u128, 0u128);
        for _ in 0..256 {
            let bits = SessionId::random().0.as_u128();
            ones |= bits;
            zeros |= !bits;
        }
        assert_eq!((ones, zeros), (u128::MAX, u128::MAX));
    }

    #[test]
    fn a_near_id_lies_in_the_same_partition() {
        for count in [1, 2, 3, 7, 16, 1000, u32::MAX] {
            for _ in 0..100 {
                let old = SessionId::random();
                let new = SessionId::random_beside(&old, count);
                assert_ne!(old, new);
                assert_eq!(old.partition(count), new.partition(count));
            }
        }
    }

    #[test]
    fn handle_text_parses_to_the_same_handle() {
        let handle = Handle::of_key(b"sessions:x");
        assert_eq!(handle.to_string().parse(), Ok(handle));
        assert_eq!("ab".parse::<Handle>(), Err(InvalidHandle));
        assert_eq!(handle.to_string().to_uppercase().parse::<Handle>(), Err(InvalidHandle));
    }
}
