//! The MessagePack format of [`SerdeCodec`], with feature `msgpack`.
//!
//! Applications choose it with [`MessagePack`]. No payload makes the decoder nest deeper than [`MAX_DEPTH`], and no error text
//! quotes a payload.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::check::{Check, MAX_DEPTH};
use super::locate::locate;
use super::{Format, PAYLOAD_CAPACITY_BYTES, SerdeCodec};
use crate::{BoxError, Reason};

/// A codec that stores sessions as MessagePack with field names.
///
/// It is somewhat smaller than JSON, faster to decode, and takes almost any serde type. The
/// [module](crate::codec#values-that-serde-cannot-read-back) lists the values that cannot be read back.
pub type MessagePack<T> = SerdeCodec<MessagePackFormat, T>;

/// The serde format of [`MessagePack`].
#[derive(Clone, Copy, Debug)]
pub enum MessagePackFormat {}

impl Format for MessagePackFormat {
    type Value = Packed;
    const NAME: &'static str = "MessagePack";
    const ONLY_ORDER_VARIES: bool = true;

    fn to_vec<D: Serialize>(data: &D) -> Result<Vec<u8>, BoxError> {
        Check::message_pack(data)?;
        let mut bytes = Vec::with_capacity(PAYLOAD_CAPACITY_BYTES);
        rmp_serde::encode::write_named(&mut bytes, data).map_err(|_| Reason::new(NO_FORM))?;
        Ok(bytes)
    }

    fn from_slice<D: DeserializeOwned>(bytes: &[u8]) -> Result<D, BoxError> {
        // rmp_serde does not count levels inside an enum, so 15 KB of nested enums overflow the stack. It does count the levels of
        // a value that it ignores, so ignore the whole payload first. Most payloads skip this pass, because they have too few
        // bytes that can begin a level.
        if beginnings(bytes) > MAX_DEPTH {
            look_through(bytes).map_err(|_| Reason::new(NOT_MESSAGE_PACK))?;
        }
        rmp_serde::from_slice(bytes).map_err(|_| describe::<D>(bytes))
    }
}

/// The error of a value that cannot be written. It replaces the text of rmp_serde, which may quote the value.
const NO_FORM: &str = "the value cannot be written as MessagePack";

const NOT_MESSAGE_PACK: &str = "the payload is not MessagePack of the right shape";

/// Describes why a payload could not be decoded, and the field if it is known. The text of rmp_serde quotes the payload, so it
/// is not used.
fn describe<D: DeserializeOwned>(payload: &[u8]) -> BoxError {
    let is_message_pack = IgnoredAny::deserialize(&mut rmp_serde::Deserializer::from_read_ref(payload)).is_ok();
    let field = || locate::<D>(&mut rmp_serde::Deserializer::from_read_ref(payload));
    match is_message_pack.then(field).flatten() {
        Some(field) => Reason::computed(format!("{NOT_MESSAGE_PACK}: {field}")).into(),
        None => Reason::new(NOT_MESSAGE_PACK).into(),
    }
}

/// Counts the bytes that can begin a map or an array. Sums of 255 bytes fit into a byte, which the compiler vectorises.
fn beginnings(bytes: &[u8]) -> usize {
    let begins = |byte: &u8| u8::from(matches!(byte, 0x80..=0x9f | 0xdc..=0xdf));
    bytes.chunks(255).map(|some| usize::from(some.iter().map(begins).sum::<u8>())).sum()
}

/// Fails if the payload nests too deep.
fn look_through(bytes: &[u8]) -> Result<(), rmp_serde::decode::Error> {
    let mut whole = rmp_serde::Deserializer::from_read_ref(bytes);
    whole.set_max_depth(MAX_DEPTH + 1);
    IgnoredAny::deserialize(&mut whole).map(drop)
}

/// A MessagePack value in an unchanged form.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Packed(rmpv::Value);

/// Compares encodings, so that NaN equals itself. The order of the entries of a map does not matter.
impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        let [mine, theirs] = [self, other].map(|packed| MessagePackFormat::to_vec(&Packed(sorted(packed.0.clone()))));
        matches!((mine, theirs), (Ok(mine), Ok(theirs)) if mine == theirs)
    }
}

/// Sorts the entries of all maps by their keys.
fn sorted(value: rmpv::Value) -> rmpv::Value {
    match value {
        rmpv::Value::Array(items) => rmpv::Value::Array(items.into_iter().map(sorted).collect()),
        rmpv::Value::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by_cached_key(|(key, _)| rmp_serde::to_vec(key).ok());
            rmpv::Value::Map(entries)
        }
        value => value,
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packed(..)")
    }
}
