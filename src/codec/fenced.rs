//! [`Fenced`], a codec around the codec of the application.
//!
//! The manager wraps its codec once, when it is built, so every call of the manager, its sessions and the reaper passes the fence.
//! The invariant: no panic of a codec, a format, a migration, or a `Serialize` or `Deserialize` passes, and no text of
//! their errors.

use super::{Codec, Envelope};
use crate::reason::shown;
use crate::{BoxError, Reason, fence};

const ENCODE_PANICKED: Reason = Reason::new("the codec panicked while it encoded the value");
const DECODE_PANICKED: Reason = Reason::new("the codec panicked while it decoded the payload");

/// Returns `true` if a fenced codec panicked over a payload.
pub(crate) fn is_panic(error: &BoxError) -> bool {
    error.downcast_ref() == Some(&DECODE_PANICKED)
}

/// A codec that turns panics into errors, and hides the texts of errors.
pub(crate) struct Fenced<C>(pub(crate) C);

impl<T, C: Codec<T>> Codec<T> for Fenced<C> {
    fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError> {
        let encoded = fence::call(|| self.0.encode(envelope));
        let encoded = encoded.unwrap_or_else(|| Err(ENCODE_PANICKED.into()));
        encoded.map_err(|error| shown(error, "the codec could not encode the value"))
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError> {
        let decoded = fence::call(|| self.0.decode(payload));
        let decoded = decoded.unwrap_or_else(|| Err(DECODE_PANICKED.into()));
        decoded.map_err(|error| shown(error, "the codec could not decode the payload"))
    }

    /// A panic is a conflict.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        fence::call(|| self.0.merge(base, mine, theirs)).flatten()
    }

    /// After a panic the two count as different.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        fence::call(|| self.0.is_same(one, other)).unwrap_or(false)
    }

    /// After a panic the payload counts as one that would lose fields.
    fn loses(&self, payload: &[u8]) -> bool {
        fence::call(|| self.0.loses(payload)).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A codec in which each method returns something else than the default of the trait.
    struct Other;

    impl Codec<u8> for Other {
        fn encode(&self, _: &Envelope<&u8>) -> Result<Vec<u8>, BoxError> {
            Ok(vec![1])
        }

        fn decode(&self, payload: &[u8]) -> Result<Envelope<u8>, BoxError> {
            Ok(Envelope::new(payload[0]))
        }

        fn merge(&self, _: &[u8], _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            Some(vec![2])
        }

        fn is_same(&self, _: &[u8], _: &[u8]) -> bool {
            true
        }

        fn loses(&self, _: &[u8]) -> bool {
            true
        }
    }

    #[test]
    fn fence_passes_every_method_on() {
        let fenced: &dyn Codec<u8> = &Fenced(Other);
        assert_eq!(fenced.encode(&Envelope::new(&7)).unwrap(), [1]);
        assert_eq!(fenced.decode(&[7]).unwrap().data, 7);
        assert_eq!(fenced.merge(b"1", b"2", b"3"), Some(vec![2]));
        assert!(fenced.is_same(b"1", b"2"));
        assert!(fenced.loses(b"1"));
    }
}
