//! A codec rejects values that are nested too deeply to be read again, and reads every value that it stored.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use threaded_sessions::codec::{Envelope, Format, JsonFormat, SerdeCodec};
use threaded_sessions::{Attributes, Codec, MemorySessionStore, SessionManager};

/// Nests in an enum, in a list and in a struct.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Nest {
    #[serde(rename = "n")]
    Inner(Box<Nest>),
    Flat(u8),
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct List(Vec<List>);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Chain {
    n: Option<Box<Chain>>,
}

/// The bytes of a level and of what is within and after them all.
struct Levels {
    open: &'static [u8],
    core: &'static [u8],
    close: &'static [u8],
}

impl Levels {
    /// Returns a payload of this depth. The envelope adds one level.
    fn payload<F: Format>(&self, depth: usize) -> Vec<u8> {
        let mut payload = SerdeCodec::<F, u8>::new().encode(&Envelope::new(&7)).unwrap();
        let at = payload.iter().rposition(|byte| [7, b'7'].contains(byte)).unwrap();
        let levels = [self.open.repeat(depth), self.core.to_vec(), self.close.repeat(depth)].concat();
        payload.splice(at..=at, levels);
        payload
    }
}

/// As deep as anything that was stored, a payload is read; deeper it is refused, and no stack ends.
fn check<F: Format, T: Debug + DeserializeOwned + PartialEq + Serialize + 'static>(levels: &Levels) {
    let codec = SerdeCodec::<F, T>::new();
    let deepest = (0..200).take_while(|&depth| codec.decode(&levels.payload::<F>(depth)).is_ok()).count() - 1;
    assert!((124..=126).contains(&deepest), "{deepest}");
    for depth in (0..200).chain([1_000, 5_000, 300_000]) {
        let payload = levels.payload::<F>(depth);
        match codec.decode(&payload) {
            Ok(session) => {
                assert!(depth <= deepest);
                let again = codec.encode(&Envelope::new(&session.data)).expect("what can be read can be stored");
                assert_eq!(codec.decode(&again).unwrap().data, session.data);
            }
            Err(_) => assert!(depth > deepest, "{depth}"),
        }
        let _ = codec.merge(&payload, &payload, &payload);
    }
}

#[test]
fn json_is_read_to_its_storable_depth() {
    check::<JsonFormat, Nest>(&Levels { open: b"{\"n\":", core: b"{\"Flat\":1}", close: b"}" });
    check::<JsonFormat, List>(&Levels { open: b"[", core: b"[]", close: b"]" });
    check::<JsonFormat, Chain>(&Levels { open: b"{\"n\":", core: b"{\"n\":null}", close: b"}" });
}

#[cfg(feature = "msgpack")]
#[test]
fn message_pack_is_read_to_its_storable_depth() {
    use threaded_sessions::codec::MessagePackFormat;
    check::<MessagePackFormat, Nest>(&Levels { open: b"\x81\xa1n", core: b"\x81\xa4Flat\x01", close: b"" });
    check::<MessagePackFormat, List>(&Levels { open: b"\x91", core: b"\x90", close: b"" });
    check::<MessagePackFormat, Chain>(&Levels { open: b"\x81\xa1n", core: b"\x81\xa1n\xc0", close: b"" });
}

/// Each list promises four thousand million elements, in each of which there is such a list.
#[cfg(feature = "msgpack")]
#[test]
fn promised_message_pack_length_allocates_nothing() {
    let levels = Levels { open: b"\xdd\xff\xff\xff\xff", core: b"", close: b"" };
    let codec = SerdeCodec::<threaded_sessions::codec::MessagePackFormat, List>::new();
    for depth in [1, 100, 1_000, 100_000] {
        assert!(codec.decode(&levels.payload::<threaded_sessions::codec::MessagePackFormat>(depth)).is_err());
    }
}

#[test]
fn too_deep_attribute_is_rejected_at_once() {
    let sessions = SessionManager::<Attributes>::new(MemorySessionStore::new());
    let nested = |depth| (1..depth).fold(serde_json::json!([]), |inner, _| serde_json::json!([inner]));
    let accepts = |depth: &usize| sessions.fresh().insert("deep", nested(*depth)).is_ok();
    let deepest = (1..200).take_while(accepts).last().unwrap();
    let mut session = sessions.fresh();
    session.insert("deep", nested(deepest)).unwrap();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    assert_eq!(sessions.open_id(&id).unwrap().unwrap().get("deep").unwrap(), Some(nested(deepest)));
}
