//! Any bytes are decoded or rejected, and every decoded value can be stored again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use threaded_sessions::Attributes;
use threaded_sessions::codec::{Format, JsonFormat, MessagePackFormat};
use threaded_sessions_fuzz::{Fields, Node, borrowed, decode, encode, quotes_nothing, shown};

/// Knows none of the fields that there may be.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Stranger {
    only: u8,
    optional: Option<String>,
}

/// Nests as deep as the payload does.
#[derive(Debug, Deserialize, Serialize)]
enum Nest {
    #[serde(rename = "")]
    Inner(Box<Nest>),
    Flat(u8),
}

fuzz_target!(|bytes: &[u8]| {
    check_types::<JsonFormat>(bytes);
    check_types::<MessagePackFormat>(bytes);
});

fn check_types<F: Format>(bytes: &[u8]) {
    check::<F, Node>(bytes);
    check::<F, Fields>(bytes);
    check::<F, Stranger>(bytes);
    check::<F, Nest>(bytes);
    check::<F, ()>(bytes);
    // Its `Debug` shows the names only.
    check::<F, Attributes>(bytes);
}

fn check<F: Format, T: Debug + DeserializeOwned + Serialize + 'static>(bytes: &[u8]) {
    let decoded = match decode::<F, T>(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return quotes_nothing(&error),
    };
    let again = encode::<F, T>(borrowed(&decoded)).unwrap();
    assert_eq!(shown(&decode::<F, T>(&again).unwrap()), shown(&decoded));
}
