//! A payload is decrypted only if it was encrypted for the same session.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threaded_sessions::step::{Encrypted, EncryptionKey};
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{ErrorKind, MemorySessionStore, SessionId, SessionStore, StepStore};
use threaded_sessions_fuzz::Damage;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    payload: &'a [u8],
    other: &'a [u8],
    with: Key,
    damages: Vec<Damage>,
    any: &'a [u8],
    /// The header and nonce of a real one in front of any bytes.
    headed: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Key {
    Newest,
    Old,
    Foreign,
}

fuzz_target!(|input: Input<'_>| {
    let [newest, old, foreign] = [1, 2, 3].map(|n| EncryptionKey::from_bytes([n; 32]));
    let inner = Arc::new(MemorySessionStore::new());
    let around = |step: Encrypted| StepStore::builder(inner.clone()).step(step).build().unwrap();
    let reader = around(Encrypted::new(newest.clone()).with_old(old.clone()));
    let writer = around(Encrypted::new(match input.with {
        Key::Newest => newest,
        Key::Old => old,
        Key::Foreign => foreign,
    }));

    let [id, another] = [(); 2].map(|()| inner.fresh_id(None));
    put(&writer, &id, input.payload);
    let sealed = payload(&inner, &id).unwrap();
    assert_eq!(payload(&reader, &id), (input.with != Key::Foreign).then(|| input.payload.to_vec()));
    put(&inner, &another, &sealed);
    assert_eq!(payload(&reader, &another), None, "moved to another session");

    let mut altered = sealed.clone();
    input.damages.iter().for_each(|damage| damage.apply(&mut altered));
    if altered != sealed {
        replace(&inner, &id, &altered);
        assert_eq!(payload(&reader, &id), None);
    }
    let head = if input.headed { &sealed[..1 + 4 + 24] } else { &[] };
    let any = [head, input.any].concat();
    if any != sealed {
        replace(&inner, &id, &any);
        assert_eq!(payload(&reader, &id), None);
    }

    if input.other != input.payload {
        replace(&writer, &id, input.other);
        let other = payload(&inner, &id).unwrap();
        assert_ne!(other[5..29], sealed[5..29], "no two payloads share a nonce");
    }
});

fn put(store: &impl SessionStore, id: &SessionId, payload: &[u8]) {
    let _ = store.create(id, Write::new(payload, Duration::from_secs(60))).unwrap();
}

fn replace(store: &impl SessionStore, id: &SessionId, payload: &[u8]) {
    let _ = store.save(id, Write::new(payload, Duration::from_secs(60)), None).unwrap();
}

/// The payload of a session, or `None` if it cannot be read.
fn payload(store: &impl SessionStore, id: &SessionId) -> Option<Vec<u8>> {
    match store.read(id, Touch::No) {
        Ok(Found::Live(stored)) => Some(stored.payload.to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Payload);
            None
        }
    }
}
