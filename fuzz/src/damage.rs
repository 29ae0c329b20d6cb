//! Damage to payloads: flipped, inserted, cut and removed bytes.

use arbitrary::Arbitrary;
use threaded_sessions::codec::Format;

use crate::{Draft, borrowed, encode};

/// A change of some bytes.
#[derive(Arbitrary, Clone, Debug)]
pub enum Damage {
    Flip(u16, u8),
    Insert(u16, Vec<u8>),
    Cut(u16),
    Remove(u16, u8),
}

impl Damage {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let within = |at: &u16| usize::from(*at) % length.max(1);
        match self {
            Self::Flip(at, bits) => {
                if let Some(byte) = bytes.get_mut(within(at)) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, more) => drop(bytes.splice(within(at)..within(at), more.iter().copied())),
            Self::Cut(at) => bytes.truncate(within(at)),
            Self::Remove(at, count) => {
                drop(bytes.drain(within(at)..length.min(within(at) + usize::from(*count))));
            }
        }
    }
}

/// Bytes that a store may hold in place of a payload.
#[derive(Arbitrary, Debug)]
pub enum Payload<'a> {
    Any(&'a [u8]),
    Encoded(Draft, Vec<Damage>),
}

impl Payload<'_> {
    /// Nothing if the draft cannot be encoded.
    pub fn bytes<F: Format>(&self) -> Option<Vec<u8>> {
        match self {
            Self::Any(bytes) => Some(bytes.to_vec()),
            Self::Encoded(draft, damages) => {
                let mut bytes = encode::<F, _>(borrowed(&draft.envelope())).ok()?;
                damages.iter().for_each(|damage| damage.apply(&mut bytes));
                Some(bytes)
            }
        }
    }
}
