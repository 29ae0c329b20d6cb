//! Which sessions are worth an entry: those of which one version was read twice.
//!
//! The cache asks it at each miss. Without it, a page that writes at every request would pay for entries that no request reads.
//! Invariant: it takes no lock and a fixed amount of memory. A collision admits an entry too early or too late, and does no harm.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of entries for each slot, and the limits to the number of slots.
const BYTES_PER_SLOT: u64 = 512;
const SLOTS_MIN: u64 = 1 << 10;
const SLOTS_MAX: u64 = 1 << 17;

/// The bit of a slot that is set once its version was read twice.
const ADMITTED: u64 = 1 << 32;

/// A table with one slot for some keys: 31 bits of the hash of the key, [`ADMITTED`], and 32 bits of the hash of the version.
pub(super) struct Seen {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Seen {
    /// A table for a cache with this many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        let slots = (max_bytes / BYTES_PER_SLOT).clamp(SLOTS_MIN, SLOTS_MAX).next_power_of_two();
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    /// Returns `true` if some version of the key was read twice, and no other version since.
    pub(super) fn is_admitted(&self, key: u64) -> bool {
        let slot = self.slot(key).load(Ordering::Relaxed);
        slot & ADMITTED != 0 && (slot ^ of_key(key)) >> 33 == 0
    }

    /// Records a read of a version. Returns `true` if it is the second read at least.
    pub(super) fn record(&self, key: u64, version: &[u8]) -> bool {
        let (slot, now) = (self.slot(key), of_key(key) | self.hash(version) & u64::from(u32::MAX));
        let before = slot.load(Ordering::Relaxed);
        let is_known = before | ADMITTED == now | ADMITTED;
        let next = if is_known { now | ADMITTED } else { now };
        if next != before {
            slot.store(next, Ordering::Relaxed);
        }
        is_known
    }

    fn slot(&self, key: u64) -> &AtomicU64 {
        &self.slots[key as usize & (self.slots.len() - 1)]
    }
}

fn of_key(key: u64) -> u64 {
    key & (u64::MAX << 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_read_of_a_version_admits() {
        // Every table hashes in another way.
        for seen in (0..64).map(|_| Seen::new(1 << 20)) {
            let (one, other) = (seen.hash(b"one"), seen.hash(b"other"));
            assert!(!seen.record(one, b"1") && !seen.is_admitted(one));
            assert!(!seen.record(one, b"2"), "another version");
            assert!(seen.record(one, b"2") && seen.is_admitted(one));
            assert!(!seen.is_admitted(other) || of_key(one) == of_key(other));
            assert!(!seen.record(one, b"3") && !seen.is_admitted(one), "a write in between");
        }
    }
}
