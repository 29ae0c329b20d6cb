//! The log of the adapters while every request fails. One test, because the log belongs to the whole process.
#![cfg(all(feature = "rouille", feature = "tiny-http"))]

mod support;

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use threaded_sessions::{Error, ErrorKind, MemorySessionStore, RedisSessionStore, SessionId, SessionManager};
use threaded_sessions::{rouille, tiny_http};

static RECORDS: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Recorder;

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("threaded_sessions::http")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            RECORDS.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn take(level: Level) -> Vec<String> {
    let mut records = RECORDS.lock().unwrap();
    let (taken, rest) = std::mem::take(&mut *records).into_iter().partition(|(found, _)| *found == level);
    *records = rest;
    taken.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn outage_warns_once_and_other_errors_are_logged_each() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(LevelFilter::Debug);

    let away = SessionManager::<u32>::new(RedisSessionStore::open("redis://127.0.0.1:1").unwrap());
    let id = SessionId::random();
    let cookie = || vec![("Cookie".to_owned(), format!("__Host-session={}", id.expose()))];
    for _ in 0..20 {
        let request = ::rouille::Request::fake_http("GET", "/", cookie(), Vec::new());
        let response = rouille::session(&away, &request, |_| ::rouille::Response::empty_204());
        assert_eq!(response.status_code, 503);
        // Both adapters count together.
        let error = away.open([&*cookie()[0].1]).unwrap_err();
        assert_eq!(tiny_http::failure(&error).status_code().0, 503);
    }
    let warnings = take(Level::Warn);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("1 request failed since the last warning, the last one by: "), "{warnings:?}");
    let each = take(Level::Debug);
    assert!(each.len() == 40 && each.iter().all(|text| text.starts_with("a request failed: ")), "{each:?}");
    assert!(take(Level::Error).is_empty());

    // Requests that succeed count nothing, and log nothing within ten seconds.
    let healthy = SessionManager::<u32>::new(MemorySessionStore::new());
    let request = ::rouille::Request::fake_http("GET", "/", Vec::new(), Vec::new());
    assert_eq!(rouille::session(&healthy, &request, |_| ::rouille::Response::empty_204()).status_code, 204);
    for (kind, status) in [(ErrorKind::Payload, 500), (ErrorKind::Conflict, 409), (ErrorKind::Denied, 500)] {
        assert_eq!(rouille::failure(&Error::new(kind, "testing")).status_code, status);
        assert_eq!(tiny_http::failure(&Error::new(kind, "testing")).status_code().0, status);
    }
    let errors = take(Level::Error);
    assert!(errors.len() == 6 && errors.iter().all(|text| text.starts_with("testing: ")), "{errors:?}");
    assert!(take(Level::Warn).is_empty() && take(Level::Debug).is_empty());
}
