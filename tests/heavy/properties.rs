//! Properties that hold for any text, any bytes and any value.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use threaded_sessions::codec::{Binding, Envelope, JsonFormat, SerdeCodec};
use threaded_sessions::{Attributes, Codec, Handle, MemorySessionStore, SessionId, SessionManager};

const NAME: &str = "__Host-session";

/// One of every shape that serde knows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Node {
    Unit,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Wide(i128),
    Double(f64),
    Single(f32),
    Char(char),
    Text(String),
    Pair(u8, String),
    Maybe(Option<Box<Node>>),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    Numbered(BTreeMap<i32, Node>),
    Struct { inner: Box<Node>, unit: (), array: [u16; 3] },
}

type Fields = BTreeMap<String, Node>;

/// Nodes with floats of these kinds.
fn node(doubles: impl Strategy<Value = f64> + 'static) -> impl Strategy<Value = Node> + Clone {
    let leaf = prop_oneof![
        Just(Node::Unit),
        any::<bool>().prop_map(Node::Bool),
        any::<i64>().prop_map(Node::Signed),
        any::<u64>().prop_map(Node::Unsigned),
        any::<i128>().prop_map(Node::Wide),
        doubles.prop_map(Node::Double),
        prop::num::f32::NORMAL.prop_map(Node::Single),
        any::<char>().prop_map(Node::Char),
        any::<String>().prop_map(Node::Text),
        (any::<u8>(), ".*").prop_map(|(number, text)| Node::Pair(number, text)),
        Just(Node::Maybe(None)),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|node| Node::Maybe(Some(Box::new(node)))),
            vec(inner.clone(), 0..5).prop_map(Node::List),
            btree_map(".*", inner.clone(), 0..5).prop_map(Node::Map),
            btree_map(any::<i32>(), inner.clone(), 0..5).prop_map(Node::Numbered),
            (inner, any::<[u16; 3]>()).prop_map(|(inner, array)| Node::Struct { inner: inner.into(), unit: (), array }),
        ]
        .boxed()
    })
    .boxed()
}

/// Every finite float: normal, subnormal and zero, of both signs.
fn finite() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn envelope<D: Debug>(data: impl Strategy<Value = D>) -> impl Strategy<Value = Envelope<D>> {
    let time = any::<u64>().prop_map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    let bound = ("[xy]", ".*").prop_map(|(principal, label)| Binding::new(principal, label));
    let (remembered, bound) = (prop::option::of(time.clone()), prop::option::of(bound));
    (data, any::<u64>(), time, remembered, bound).prop_map(|(data, revision, created, remembered, bound)| {
        let mut envelope = Envelope::new(data);
        (envelope.revision, envelope.created) = (revision, created);
        (envelope.remembered, envelope.bound) = (remembered, bound);
        envelope
    })
}

fn borrowed<D>(envelope: &Envelope<D>) -> Envelope<&D> {
    let mut borrowed = Envelope::new(&envelope.data);
    (borrowed.revision, borrowed.created) = (envelope.revision, envelope.created);
    (borrowed.remembered, borrowed.bound) = (envelope.remembered, envelope.bound.clone());
    borrowed
}

/// The content of an envelope as text, because NaN is not equal to itself and the `Debug` of an envelope shows no value.
fn shown<D: Debug>(envelope: &Envelope<D>) -> String {
    let bound = envelope.bound.as_ref().map(|bound| (&bound.principal, &bound.label));
    format!("{:?} {:?} {:?} {bound:?} {:?}", envelope.revision, envelope.created, envelope.remembered, envelope.data)
}

/// A string near an id: its characters, its forms, and an id with one character changed.
fn almost_an_id() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
        "\\{?(urn:uuid:)?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\\}?",
        "[0-9a-f-]{34,38}",
        (an_id(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(id, at, other)| {
            let at = at.index(id.len());
            format!("{}{other}{}", &id[..at], &id[at + 1..])
        }),
    ]
}

fn an_id() -> impl Strategy<Value = String> {
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
}

proptest! {
    #[test]
    fn an_id_has_one_textual_form(text in almost_an_id()) {
        if let Ok(id) = text.parse::<SessionId>() {
            prop_assert_eq!(id.expose(), text);
        }
    }

    #[test]
    fn every_128_bits_are_an_id(text in an_id()) {
        prop_assert_eq!(text.parse::<SessionId>().map(|id| id.expose()), Ok(text));
    }

    #[test]
    fn handle_text_parses_to_the_same_handle(one in vec(any::<u8>(), 0..99), two in vec(any::<u8>(), 0..99)) {
        let handle = Handle::of_key(&one);
        prop_assert_eq!(handle.to_string().parse(), Ok(handle));
        prop_assert_eq!(handle == Handle::of_key(&two), one == two);
    }

    #[test]
    fn a_handle_has_one_textual_form(text in prop_oneof![any::<String>(), "[0-9a-fA-F]{62,66}", "[0-9a-f]{64}"]) {
        if let Ok(handle) = text.parse::<Handle>() {
            prop_assert_eq!(handle.to_string(), text);
        }
    }

    #[test]
    fn any_cookie_headers_open_a_session(headers in vec(any_header(), 0..4)) {
        let session = STORED.0.open(headers.iter().map(String::as_str)).unwrap();
        prop_assert!(session.is_new());
    }

    #[test]
    fn the_id_is_found_among_any_other_cookies(
        before in vec(another_cookie(), 0..5),
        after in vec(another_cookie(), 0..5),
        split in any::<prop::sample::Index>(),
        separator in " {0,2};[ \t]{0,2}",
    ) {
        let own = format!("{NAME}={}", STORED.1.expose());
        let cookies: Vec<String> = before.into_iter().chain([own]).chain(after).collect();
        let (first, second) = cookies.split_at(split.index(cookies.len()));
        let headers = [first.join(&separator), second.join(&separator)];
        let session = STORED.0.open(headers.iter().map(String::as_str)).unwrap();
        prop_assert_eq!(session.id(), Some(&STORED.1));
    }

    #[test]
    fn attributes_give_back_any_value(name in ".*", value in node(finite())) {
        let mut attributes = Attributes::default();
        if attributes.insert(name.clone(), &value).is_err() {
            prop_assert!(format!("{value:?}").contains("Wide("), "only integers of over 64 bits are refused");
            return Ok(());
        }
        let payload = SerdeCodec::<JsonFormat, Attributes>::new().encode(&Envelope::new(&attributes)).unwrap();
        let attributes = SerdeCodec::<JsonFormat, Attributes>::new().decode(&payload).unwrap().data;
        prop_assert_eq!(attributes.get::<Node>(&name).unwrap(), Some(value));
    }
}

static STORED: LazyLock<(SessionManager<u32>, SessionId)> = LazyLock::new(|| {
    let sessions = SessionManager::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    (sessions, id)
});

fn any_header() -> impl Strategy<Value = String> {
    let cookie = prop_oneof![any::<String>(), almost_an_id().prop_map(|id| format!("{NAME}={id}"))];
    prop_oneof![any::<String>(), vec(cookie, 0..9).prop_map(|cookies| cookies.join(";"))]
}

/// Anything between two semicolons that is not a well-formed id under our name.
fn another_cookie() -> impl Strategy<Value = String> {
    let cookie = prop_oneof![
        "[^;]*",
        "[a-z_-]{1,9}=[^;]*",
        "__Host-session[^;=]+=[0-9a-f-]*",
        an_id().prop_map(|id| format!("x{NAME}={id}")),
        almost_an_id().prop_map(|id| format!("{NAME}={id}")),
    ];
    let well_formed = |cookie: &str| {
        let (name, value) = cookie.split_once('=')?;
        (name.trim() == NAME).then(|| value.trim().parse::<SessionId>().ok())?
    };
    cookie
        .prop_filter("a cookie of its own", |cookie| !cookie.contains(';'))
        .prop_filter("not ours", move |cookie| well_formed(cookie).is_none())
}

/// A payload with some bytes changed, cut out or put in.
fn damaged(payload: &[u8], damages: &[(prop::sample::Index, Option<u8>, bool)]) -> Vec<u8> {
    let mut damaged = payload.to_vec();
    for (at, byte, replace) in damages {
        if damaged.is_empty() {
            break;
        }
        let at = at.index(damaged.len());
        let end = if *replace { at + 1 } else { at };
        damaged.splice(at..end, *byte);
    }
    damaged
}

/// The properties of every format. Each format has its kind of floats.
macro_rules! format_properties {
    ($name:ident, $format:ty, $doubles:expr) => {
        mod $name {
            use super::*;

            fn codec<T>() -> SerdeCodec<$format, T> {
                SerdeCodec::new()
            }

            fn fields() -> impl Strategy<Value = Envelope<Fields>> {
                // Few names, so that they meet.
                envelope(btree_map("[a-d]", node($doubles), 0..5))
            }

            proptest! {
                #[test]
                fn encoded_values_decode_to_equal_values(envelope in envelope(node($doubles))) {
                    let payload = codec().encode(&borrowed(&envelope)).unwrap();
                    let back = codec::<Node>().decode(&payload).unwrap();
                    prop_assert_eq!(shown(&back), shown(&envelope));
                }

                #[test]
                fn no_two_encodings_are_equal(value in node($doubles)) {
                    let [one, two] = [(); 2].map(|()| codec().encode(&Envelope::new(&value)).unwrap());
                    prop_assert_ne!(one, two);
                }

                #[test]
                fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
                    let _ = (codec::<Node>().decode(&bytes), codec::<Attributes>().decode(&bytes));
                    let _ = (codec::<()>().decode(&bytes), codec::<Fields>().merge(&bytes, &bytes, &bytes));
                }

                #[test]
                fn damaged_payload_is_rejected_or_a_valid_value(
                    envelope in fields(),
                    damages in vec(any::<(prop::sample::Index, Option<u8>, bool)>(), 1..4),
                ) {
                    let payload = codec().encode(&borrowed(&envelope)).unwrap();
                    let damaged = damaged(&payload, &damages);
                    if let Ok(decoded) = codec::<Fields>().decode(&damaged) {
                        let again = codec().encode(&borrowed(&decoded)).unwrap();
                        prop_assert_eq!(shown(&codec::<Fields>().decode(&again).unwrap()), shown(&decoded));
                    }
                    let _ = codec::<Fields>().merge(&payload, &damaged, &payload);
                    let _ = codec::<Fields>().merge(&damaged, &payload, &damaged);
                }

                /// A field is as I left it if I changed, added or removed it, and otherwise as it is there.
                #[test]
                fn merge_applies_only_own_changes(
                    base in fields(), mine in fields(), theirs in fields(), untouched in vec("[a-d]", 0..4),
                    restarted in any::<bool>(),
                ) {
                    let mut mine = mine;
                    if !restarted {
                        mine.created = base.created;
                    }
                    for name in untouched {
                        match base.data.get(&name) {
                            Some(value) => drop(mine.data.insert(name, value.clone())),
                            None => drop(mine.data.remove(&name)),
                        }
                    }
                    let [b, m, t] = [&base, &mine, &theirs].map(|envelope| codec().encode(&borrowed(envelope)).unwrap());
                    let merge = |m: &[u8]| {
                        let merged = codec::<Fields>().merge(&b, m, &t).unwrap();
                        codec::<Fields>().decode(&merged).unwrap()
                    };
                    let merged = merge(&m);
                    for name in ["a", "b", "c", "d"] {
                        let text = |envelope: &Envelope<Fields>| format!("{:?}", envelope.data.get(name));
                        let expected = if text(&mine) == text(&base) { text(&theirs) } else { text(&mine) };
                        prop_assert_eq!(text(&merged), expected);
                    }
                    // Only the time of the cookie changed: the other request decides whether the visitor is remembered.
                    let is_forgotten = base.remembered.is_some() && mine.remembered.is_some() && theirs.remembered.is_none();
                    let changed = mine.remembered != base.remembered && !is_forgotten;
                    prop_assert_eq!(merged.remembered, if changed { mine.remembered } else { theirs.remembered });
                    // Only the label changed: a change of the owner by the other request stands.
                    let [was, is, there] = [&base, &mine, &theirs]
                        .map(|session| session.bound.as_ref().map(|bound| &bound.principal));
                    let changed = mine.bound != base.bound && (was != is || there == is);
                    prop_assert_eq!(&merged.bound, if changed { &mine.bound } else { &theirs.bound });
                    let changed = mine.created != base.created;
                    prop_assert_eq!(merged.created, if changed { mine.created } else { theirs.created });
                    prop_assert!(![base.revision, mine.revision, theirs.revision].contains(&merged.revision));

                    // A merge without own changes leaves the stored value unchanged.
                    let mut left = merge(&b);
                    left.revision = theirs.revision;
                    prop_assert_eq!(shown(&left), shown(&theirs));
                }

                #[test]
                fn values_without_fields_are_not_merged(values in any::<[u32; 3]>()) {
                    let [b, m, t] = values.map(|value| codec().encode(&Envelope::new(&value)).unwrap());
                    prop_assert!(codec::<u32>().merge(&b, &m, &t).is_none());
                    let [b, m, t] = values.map(|value| codec().encode(&Envelope::new(&[value])).unwrap());
                    prop_assert!(codec::<[u32; 1]>().merge(&b, &m, &t).is_none());
                }
            }
        }
    };
}

format_properties!(json, JsonFormat, finite());
format_properties!(message_pack, threaded_sessions::codec::MessagePackFormat, prop::num::f64::ANY);
