//! The JSON format, the default of [`SerdeCodec`].
//!
//! Managers use it unless they get another codec. No error text quotes a value or a payload, and what JSON writes it can also
//! read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::check::{Check, MAX_DEPTH};
use super::locate::locate;
use super::{Format, PAYLOAD_CAPACITY_BYTES, SerdeCodec};
use crate::{BoxError, Reason};

/// A codec that stores sessions as JSON, which operators can read and search in Redis. It is the default.
///
/// In JSON, all keys are strings. So a map with other keys than strings, numbers or unit variants cannot be stored. Neither can
/// a float that is infinite or not a number, because JSON would write it as `null`, which cannot be read back. MessagePack
/// takes both. The [module](crate::codec#values-that-serde-cannot-read-back) lists more values that cannot be read back. The
/// commit of such a value fails with [`ErrorKind::Payload`](crate::ErrorKind::Payload), and the stored session stays.
/// `Some(None)` and `Some(())` come back as `None`.
pub type Json<T> = SerdeCodec<JsonFormat, T>;

/// The serde format of [`Json`].
#[derive(Clone, Copy, Debug)]
pub enum JsonFormat {}

impl Format for JsonFormat {
    type Value = Raw;
    const NAME: &'static str = "Json";
    const ONLY_ORDER_VARIES: bool = true;

    fn to_vec<D: Serialize>(data: &D) -> Result<Vec<u8>, BoxError> {
        Check::json(data)?;
        let mut bytes = Vec::with_capacity(PAYLOAD_CAPACITY_BYTES);
        serde_json::to_writer(&mut bytes, data).map_err(|_| Reason::new(NO_FORM))?;
        Ok(bytes)
    }

    fn from_slice<D: DeserializeOwned>(bytes: &[u8]) -> Result<D, BoxError> {
        // One UTF-8 check of the whole payload is a sixth faster than one for each string. If the check fails, serde_json reports
        // the place.
        let decoded = str::from_utf8(bytes).map_or_else(|_| serde_json::from_slice(bytes), serde_json::from_str);
        decoded.map_err(|error| describe::<D>(&error, bytes))
    }
}

/// The error of a value that JSON cannot express. It replaces the text of serde_json, which may quote the value.
pub(crate) const NO_FORM: &str = "JSON has no form for the value, a key of a map perhaps";

/// A JSON value in its textual form, which is copied without loss, whatever its numbers are.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(Box<RawValue>);

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(..)")
    }
}

/// Compares values: the order of the fields of an object does not matter.
impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        is_equal(&self.0, &other.0, MAX_DEPTH)
    }
}

/// Compares two values to a depth that every payload keeps. Numbers are compared as text, because they may have more digits than
/// a float keeps.
fn is_equal(one: &RawValue, other: &RawValue, depth: usize) -> bool {
    fn parts<'r, P: Deserialize<'r>>(one: &'r RawValue, other: &'r RawValue) -> Option<[P; 2]> {
        Some([serde_json::from_str(one.get()).ok()?, serde_json::from_str(other.get()).ok()?])
    }
    if one.get() == other.get() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    if let Some([one, other]) = parts::<BTreeMap<String, &RawValue>>(one, other) {
        return one.len() == other.len()
            && one.iter().zip(&other).all(|(one, other)| one.0 == other.0 && is_equal(one.1, other.1, depth - 1));
    }
    let lists = parts::<Vec<&RawValue>>(one, other);
    lists.is_some_and(|[one, other]| {
        one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| is_equal(one, other, depth - 1))
    })
}

/// Describes an error, its place and, if the JSON has another shape, the field. The text of serde_json quotes the payload, so it
/// is not used.
fn describe<D: DeserializeOwned>(error: &serde_json::Error, payload: &[u8]) -> BoxError {
    let what = match error.classify() {
        Category::Io => "cannot be written",
        Category::Syntax => "is not JSON",
        Category::Eof => "is JSON that was cut short",
        Category::Data => "is JSON of another shape",
    };
    let is_shape = error.classify() == Category::Data;
    let field = is_shape.then(|| locate::<D>(&mut serde_json::Deserializer::from_slice(payload))).flatten();
    let field = field.map(|field| format!(": {field}")).unwrap_or_default();
    Reason::computed(format!("the payload {what}, line {} column {}{field}", error.line(), error.column())).into()
}
