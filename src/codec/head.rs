//! Reading an envelope without the type of its value, and the time of a session's last use.
//!
//! Lists of sessions use it: an operator's tool knows no `T`. The invariant: no text quotes a payload, and no payload makes the
//! reader panic.

use std::time::{Duration, SystemTime};

use serde::de::IgnoredAny;

use super::envelope::{Envelope, Head, check_version};
use super::{Format, JsonFormat};
use crate::Reason;

/// The first byte of a payload of the step `Encrypted`.
pub(crate) const ENCRYPTED: u8 = 0xE1;

/// The first bytes of an envelope in MessagePack: a map of 4 to 9 fields.
const MESSAGE_PACK_MAPS: std::ops::RangeInclusive<u8> = 0x84..=0x89;

/// Reads all of an envelope but the value, if it is JSON or MessagePack.
pub(crate) fn read_head(payload: &[u8]) -> Result<Head, Reason> {
    match payload.first() {
        Some(b'{') => read_format::<JsonFormat>(payload),
        #[cfg(feature = "msgpack")]
        Some(byte) if MESSAGE_PACK_MAPS.contains(byte) => read_format::<super::MessagePackFormat>(payload),
        #[cfg(not(feature = "msgpack"))]
        Some(byte) if MESSAGE_PACK_MAPS.contains(byte) => {
            Err(Reason::new("the payload may be MessagePack, which takes the feature `msgpack`"))
        }
        Some(&ENCRYPTED) => Err(Reason::new("the payload is encrypted")),
        _ => Err(Reason::new("the payload is neither JSON nor MessagePack")),
    }
}

fn read_format<F: Format>(payload: &[u8]) -> Result<Head, Reason> {
    match F::from_slice::<Envelope<IgnoredAny>>(payload) {
        Ok(envelope) => Ok(envelope.head()),
        Err(_) => Err(match check_version::<F>(payload) {
            Err(version) => version.downcast::<Reason>().map_or(NO_ENVELOPE, |reason| *reason),
            Ok(()) => NO_ENVELOPE,
        }),
    }
}

const NO_ENVELOPE: Reason = Reason::new("the payload has not the form of a session");

/// The precision of the time of the last use. It allows for clocks that count in milliseconds, and for the time that a list takes.
const PRECISION: Duration = Duration::from_secs(1);

impl<D> Envelope<D> {
    /// Returns when the session was last used, from the idle timeout that it was stored with and the time that it has left. Returns
    /// `None` if the time left does not follow from that timeout. A touch made the session live longer than the timeout by
    /// `additional`, and may be earlier than the use by as much.
    pub(crate) fn last_used(
        &self,
        expires_in: Option<Duration>,
        additional: Duration,
        lifetime_left: Option<Duration>,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let (idle, left) = (self.idle_timeout?, expires_in?);
        // A session that is stored shortly before the end of its lifetime expires at that end, whenever it was used.
        let stored_end = self.ends.map(|end| end.duration_since(now).unwrap_or_default());
        let ends_with_lifetime =
            [stored_end, lifetime_left].into_iter().flatten().any(|end| left.abs_diff(end) < PRECISION);
        let left = left.saturating_sub(additional);
        // A manager with a longer idle timeout touched the session.
        if ends_with_lifetime || left > idle + PRECISION {
            return None;
        }
        let used = now.checked_sub(idle.saturating_sub(left))?;
        // A manager with a shorter idle timeout touched the session.
        (used + PRECISION >= self.created).then(|| used.max(self.created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Binding;

    #[derive(serde::Serialize)]
    struct Cart {
        user: Option<u8>,
        items: Vec<(u8, &'static str)>,
    }

    fn check<F: Format>() {
        let mut envelope = Envelope::new(Cart { user: None, items: vec![(1, "tea"), (2, "milk")] });
        for bound in [None, Some(Binding::new("ada", "phone"))] {
            envelope.bound = bound;
            envelope.idle_timeout = envelope.bound.as_ref().map(|_| Duration::from_secs(60));
            let payload = F::to_vec(&envelope).unwrap();
            assert!(read_head(&payload) == Ok(envelope.head()));
            for end in 0..payload.len() {
                assert!(read_head(&payload[..end]).is_err(), "{end} bytes of {}", payload.len());
            }
        }
    }

    #[test]
    fn head_is_read_without_the_type() {
        check::<JsonFormat>();
        #[cfg(feature = "msgpack")]
        check::<crate::codec::MessagePackFormat>();
    }

    #[test]
    fn no_payload_makes_the_reader_panic() {
        for first in 0..=u8::MAX {
            for rest in [&b""[..], b"{", b"\xff\xff\xff\xff", &[0x91; 10_000], &[b'['; 10_000], b"\xa1v\x02"] {
                assert!(read_head(&[&[first], rest].concat()).is_err());
            }
        }
        assert!(
            read_head(&[b"{\"v\":1,\"rev\":1,\"created\":1,\"data\":".as_slice(), &[b'['; 100_000]].concat()).is_err()
        );
    }
}
