//! The version of a session in Redis, and how a script compares it.
//!
//! `reply` makes versions here, and `scripted` makes the arguments of a comparison. The invariant: a version identifies
//! one write, because no two payloads begin with the same revision.
//!
//! A store treats a payload as opaque bytes, with one exception: it may look at the revision prefix. The envelope puts a random
//! revision at the beginning of each payload, so the prefix identifies the payload as well as all of its bytes do. A script
//! compares at most 64 bytes then. To read a whole payload into Lua would cost more than the rest of the script.

use std::borrow::Cow;

use crate::codec;
use crate::store::Version;

/// Returns the revision prefix of a payload, or `None` if the payload has another format than those of this crate.
fn revision_prefix(payload: &[u8]) -> Option<&[u8]> {
    codec::revision_prefix(payload)
}

/// Returns the version of a payload that was written: all that [`compare_args`] takes of it.
pub(super) fn version_of(payload: &[u8]) -> Version {
    Version::new(revision_prefix(payload).unwrap_or(payload))
}

/// Returns the compare mode of a script and the value that it expects.
pub(super) fn compare_args(expected: Option<&Version>) -> [Cow<'_, [u8]>; 2] {
    let Some(payload) = expected.map(Version::as_bytes) else { return [b"any".into(), b"".into()] };
    match revision_prefix(payload) {
        Some(prefix) => [b"revision".into(), prefix.into()],
        None => [b"all".into(), payload.into()],
    }
}
