//! The value of a session as JSON, without its type.
//!
//! `show --data` and `list --data` print it. Invariant: an encrypted or foreign payload is rejected with the reason, and no error
//! quotes a payload.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use crate::Reason;
use crate::codec::{Envelope, Format, JsonFormat, MessagePackFormat, read_head};

/// Returns the value in a payload of JSON or MessagePack.
pub(super) fn value(payload: &[u8]) -> Result<Value, Reason> {
    read_head(payload)?;
    let value = match payload.first() {
        Some(b'{') => JsonFormat::from_slice::<Envelope<Value>>(payload).map(|envelope| envelope.data),
        _ => MessagePackFormat::from_slice::<Envelope<rmpv::Value>>(payload).map(|envelope| to_json(envelope.data)),
    };
    value.map_err(|_| Reason::new("the value cannot be shown as JSON"))
}

/// Turns a value of MessagePack into JSON. Bytes become hexadecimal text, and keys become text.
fn to_json(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => Value::Bool(value),
        rmpv::Value::Integer(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::Null,
        },
        rmpv::Value::F32(value) => number(f64::from(value)),
        rmpv::Value::F64(value) => number(value),
        rmpv::Value::String(value) => Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        rmpv::Value::Binary(bytes) => Value::String(hexadecimal(&bytes)),
        rmpv::Value::Ext(kind, bytes) => Value::String(format!("ext {kind} {}", hexadecimal(&bytes))),
        rmpv::Value::Array(values) => Value::Array(values.into_iter().map(to_json).collect()),
        rmpv::Value::Map(entries) => {
            let entry = |(key, value)| match to_json(key) {
                Value::String(key) => (key, to_json(value)),
                key => (key.to_string(), to_json(value)),
            };
            Value::Object(entries.into_iter().map(entry).collect::<Map<_, _>>())
        }
    }
}

/// JSON has no number for infinity, so that is shown as text.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn message_pack_is_shown_as_json() {
        let map = rmpv::Value::Map(vec![
            ("name".into(), "tea".into()),
            (7.into(), rmpv::Value::Array(vec![(-1).into(), u64::MAX.into(), 0.5.into(), true.into()])),
            ("bytes".into(), rmpv::Value::Binary(vec![0, 255])),
            ("none".into(), rmpv::Value::Nil),
            ("endless".into(), f64::INFINITY.into()),
        ]);
        let expected = json!({
            "name": "tea", "7": [-1, u64::MAX, 0.5, true], "bytes": "0x00ff", "none": null, "endless": "inf",
        });
        let payload = MessagePackFormat::to_vec(&Envelope::new(map)).unwrap();
        assert_eq!(value(&payload).unwrap(), expected);
        let payload = JsonFormat::to_vec(&Envelope::new(&expected)).unwrap();
        assert_eq!(value(&payload).unwrap(), expected);
    }

    #[test]
    fn foreign_payload_is_refused_with_reason() {
        for (payload, why) in [(&[0xE1_u8, 1, 2][..], "encrypted"), (b"secret", "neither JSON"), (b"{}", "the form")] {
            let error = value(payload).expect_err("no session").to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}
