//! How times and texts are serialized for metrics and lists: whole milliseconds, moments as milliseconds since 1970, and the text
//! of a value.
//!
//! `Health`, `ReaperStats`, `BoundSession` and `SessionInfo` use it. Envelopes store times in the same unit. A reader can rely
//! on integers.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serializer;

pub(crate) fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn optional_duration<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => duration(time, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn moment<S: Serializer>(moment: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    duration(&moment.duration_since(UNIX_EPOCH).unwrap_or_default(), serializer)
}

pub(crate) fn optional_moment<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => moment(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serializes the text of a value, or nothing.
pub(crate) fn optional_text<T: Display, S: Serializer>(text: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.collect_str(text),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use crate::store::Health;
    use crate::{BoundSession, Handle, ReaperStats};

    const TIME: Duration = Duration::from_micros(1_500_700);

    #[test]
    fn times_are_whole_milliseconds() {
        let health = Health { failing_for: Some(TIME), answered: 3, ..Health::default() };
        let expected = json!({
            "failing_for": 1500, "half_open": false, "last_error": null, "connections_in_use": 0, "connections_idle": 0, "connections_max": 0,
            "answered": 3, "repeated": 0, "failed": 0, "near_cache": null
        });
        assert_eq!(serde_json::to_value(health).unwrap(), expected);
        assert_eq!(serde_json::to_value(Health::default()).unwrap()["failing_for"], json!(null));

        let stats = ReaperStats { last_round: Some(UNIX_EPOCH + TIME), last_duration: TIME, ..ReaperStats::default() };
        let expected = json!({
            "rounds": 0, "removed": 0, "errors": 0, "last_round": 1500, "last_duration": 1500, "backlog": 0
        });
        assert_eq!(serde_json::to_value(stats).unwrap(), expected);
    }

    #[test]
    fn handle_is_its_text() {
        let handle = Handle::of_key(b"sessions:x");
        let session = BoundSession {
            handle,
            label: "laptop".into(),
            created: UNIX_EPOCH + TIME,
            last_used: None,
            expires_in: Some(Duration::MAX),
        };
        let expected = json!({
            "handle": handle.to_string(), "label": "laptop", "created": 1500, "last_used": null, "expires_in": u64::MAX
        });
        assert_eq!(serde_json::to_value(session).unwrap(), expected);
    }
}
