//! The record in Redis of which kind of store has a prefix.
//!
//! `check` writes it under `PREFIX:store` and compares it. No operation on a session reads it. The invariant: two stores have
//! equal markers if and only if they can share a prefix, as far as custom key mappers can be compared.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RedisSessionStore;
use super::keys::Keys;
use crate::fence;

/// The settings of a store that all stores under its prefix must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) is_expiring: bool,
    pub(super) partitions: u32,
    /// The kind of the names of sessions: one of [`KEYS`].
    pub(super) keys: &'static str,
}

/// The result of a comparison with a stored marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marking {
    Same,
    Other(Marker),
    /// No store wrote it.
    Foreign,
}

/// The kinds of stores, by whether a store is expiring.
const KINDS: [&str; 2] = ["plain", "expiring"];
const KEYS: [&str; 3] = ["plain", "hashed", "custom"];

impl Marker {
    pub(super) fn of(store: &RedisSessionStore) -> Self {
        Self { is_expiring: store.expiring, partitions: store.keys.partitions(), keys: store.keys.kind() }
    }

    pub(super) fn compare(&self, stored: &[u8]) -> Marking {
        match Self::parse(stored) {
            Some(stored) if stored == *self => Marking::Same,
            Some(stored) => Marking::Other(stored),
            None => Marking::Foreign,
        }
    }

    /// Reads the fields that this version knows. A later version may add some.
    pub(super) fn parse(stored: &[u8]) -> Option<Self> {
        let field = |name: &str| {
            let fields = str::from_utf8(stored).ok()?.split(' ').filter_map(|field| field.split_once('='));
            fields.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let place = |known: &[&str], value: &str| known.iter().position(|known| *known == value);
        Some(Self {
            is_expiring: place(&KINDS, field("kind")?)? == 1,
            partitions: field("partitions")?.parse().ok()?,
            keys: KEYS[place(&KEYS, field("keys")?)?],
        })
    }

    /// Explains why this store cannot use the prefix, and what to do.
    pub(super) fn why_refused(&self, key: &str, other: &Self) -> String {
        format!(
            "the prefix belongs to another kind of store: {key:?} says `{other}`, this store is `{self}`; choose another \
             prefix, or, if no program uses the other store any more, delete that key"
        )
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS[usize::from(self.is_expiring)];
        write!(f, "kind={kind} partitions={} keys={}", self.partitions, self.keys)
    }
}

/// Logs, once for a store, that its index has keys which the store would not have named.
#[derive(Debug, Default)]
pub(super) struct ForeignKeys(AtomicBool);

impl ForeignKeys {
    /// Looks at keys in a reply about the index of a partition.
    pub(super) fn look<'a>(&self, keys: &Keys, partition: u32, mut found: impl Iterator<Item = &'a [u8]>) {
        if self.0.load(Ordering::Relaxed) || !found.any(|key| keys.is_foreign(key, partition)) {
            return;
        }
        if !self.0.swap(true, Ordering::Relaxed) {
            fence::log!(
                Warn,
                "the index {:?} has keys of another kind of store: two programs share a prefix, and each misses sessions of \
                 the other; give one of them another prefix",
                keys.index(partition)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker { is_expiring: true, partitions: 64, keys: "hashed" }
    }

    #[test]
    fn marker_is_equal_to_its_own_text() {
        assert_eq!(marker().to_string(), "kind=expiring partitions=64 keys=hashed");
        for marker in
            KEYS.into_iter().flat_map(|keys| [false, true].map(|is_expiring| Marker { is_expiring, keys, ..marker() }))
        {
            assert_eq!(marker.compare(marker.to_string().as_bytes()), Marking::Same);
        }
        assert_eq!(marker().compare(b"kind=expiring partitions=64 keys=hashed since=2"), Marking::Same);
    }

    #[test]
    fn every_field_of_marker_distinguishes_stores() {
        for other in ["kind=plain partitions=64 keys=hashed", "kind=expiring partitions=1 keys=hashed"] {
            assert!(matches!(marker().compare(other.as_bytes()), Marking::Other(_)), "{other}");
        }
        let Marking::Other(other) = marker().compare(b"kind=expiring partitions=64 keys=plain") else { panic!() };
        let why = marker().why_refused("sessions:store", &other);
        assert!(why.contains("keys=hashed") && why.contains("keys=plain") && why.contains("sessions:store"), "{why}");
    }

    #[test]
    fn value_of_another_program_is_foreign() {
        for stored in ["", "secret", "kind=other partitions=1 keys=plain", "kind=plain partitions=x keys=plain"] {
            assert_eq!(marker().compare(stored.as_bytes()), Marking::Foreign, "{stored}");
        }
        assert_eq!(marker().compare(b"\xff"), Marking::Foreign);
    }
}
