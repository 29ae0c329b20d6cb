//! The two marked payloads that a session has in the new store while it moves.
//!
//! The transfer writes and reads them, and the index leaves them out of its lists. The invariant: a claim is never a session, and
//! a copy is one whose original may still be in the old store.

use sha2::{Digest, Sha256};

use crate::SessionId;
use crate::store::Bytes;

/// The beginning of every marked payload. No envelope and no encrypted payload begins with it.
const MAGIC: &[u8] = b"\0threaded-sessions moving\0";
const CLAIM: u8 = b'c';
const COPY: u8 = b'm';
const DIGEST_BYTES: usize = 32;

/// The digest of a payload in the old store.
pub(super) type PayloadDigest = [u8; DIGEST_BYTES];

/// The meaning of a marked payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A process is about to copy the session that has a payload with this digest. Until then the session is in the old store.
    Claim(PayloadDigest),
    /// The session, with this payload. It must still be deleted from the old store.
    Copy(Bytes),
}

impl Mark {
    /// Reads the mark of a payload; `None` if the session has moved completely.
    pub(super) fn of(payload: &Bytes) -> Option<Self> {
        let marked = payload.strip_prefix(MAGIC)?;
        match marked.split_first()? {
            (&CLAIM, rest) => rest.first_chunk().copied().map(Self::Claim),
            (&COPY, _) => Some(Self::Copy(payload.slice(MAGIC.len() + 1..))),
            _ => None,
        }
    }
}

/// Returns the digest that a claim of this payload holds.
pub(super) fn digest(payload: &[u8]) -> PayloadDigest {
    Sha256::digest(payload).into()
}

/// Creates a claim of a session with this payload. No two claims are equal, so a version names one of them.
pub(super) fn claim(payload: &[u8]) -> Vec<u8> {
    let nonce = SessionId::random().expose();
    [MAGIC, &[CLAIM], &digest(payload), nonce.as_bytes()].concat()
}

/// Creates the copy of a session with this payload.
pub(super) fn copy(payload: &[u8]) -> Vec<u8> {
    [MAGIC, &[COPY], payload].concat()
}

/// Returns the payload of a session in either store; `None` for a claim.
pub(super) fn unmarked(payload: Bytes) -> Option<Bytes> {
    match Mark::of(&payload) {
        None => Some(payload),
        Some(Mark::Copy(payload)) => Some(payload),
        Some(Mark::Claim(_)) => None,
    }
}

/// The same for a payload that a store may have failed to read. A failure stays.
pub(super) fn unmarked_if_read<E>(payload: Result<Bytes, E>) -> Option<Result<Bytes, E>> {
    match payload {
        Ok(payload) => unmarked(payload).map(Ok),
        Err(error) => Some(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn marks_are_read_back() {
        let payload = b"{\"v\":1,\"rev\":1}";
        let (claim, copy) = (Bytes::from(claim(payload)), Bytes::from(copy(payload)));
        assert_eq!(Mark::of(&claim), Some(Mark::Claim(digest(payload))));
        assert_eq!(Mark::of(&copy), Some(Mark::Copy(Bytes::from_static(payload))));
        assert_eq!(Mark::of(&Bytes::from_static(payload)), None);
        assert_eq!((unmarked(claim.clone()), unmarked(copy)), (None, Some(Bytes::from_static(payload))));
        assert_eq!(codec::revision_prefix(&claim), None, "all bytes of a claim are its version");
    }

    #[test]
    fn claims_of_one_payload_differ() {
        assert_ne!(claim(b"v"), claim(b"v"));
    }
}
