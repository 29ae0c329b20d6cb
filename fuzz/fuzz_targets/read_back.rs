//! A value that is stored can be opened again; a value that is rejected leaves the stored session as it was.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use threaded_sessions::{Attributes, Error, ErrorKind, Json, MemorySessionStore, MessagePack, Outcome, SessionManager};
use threaded_sessions_fuzz::{Fields, Node};

/// Types that serde can write, and cannot always read.
#[derive(Arbitrary, Debug)]
enum Input {
    Plain([Fields; 2]),
    IntegerKeys([IntegerKeys; 2]),
    Tagged([Tagged; 2]),
    Untagged([Untagged; 2]),
    Skipped([Skipped; 2]),
    Flattened([Flattened; 2]),
    Nested([Nested; 2]),
    Attributes(Vec<(u8, Attribute)>),
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
struct IntegerKeys {
    user: u32,
    #[serde(flatten)]
    quantities: BTreeMap<u32, u8>,
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(tag = "kind")]
enum Tagged {
    #[default]
    Guest,
    Address {
        from: Option<IpAddr>,
    },
    Number {
        account: u128,
    },
    Keys {
        keys: BTreeMap<i16, u8>,
    },
    Any {
        node: Node,
    },
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(untagged)]
enum Untagged {
    #[default]
    Guest,
    Keys {
        quantities: BTreeMap<u32, u8>,
    },
    Any {
        node: Node,
    },
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
struct Skipped {
    user: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
struct Flattened {
    user: u32,
    #[serde(flatten)]
    others: BTreeMap<String, u32>,
}

#[derive(Arbitrary, Clone, Debug, Default, Deserialize, Serialize)]
struct Nested {
    inner: Option<Box<Nested>>,
    outer: Vec<Tagged>,
    double: f64,
}

#[derive(Arbitrary, Clone, Debug, Deserialize, Serialize)]
enum Attribute {
    Node(Node),
    Keys(IntegerKeys),
    Tagged(Tagged),
    Wide(u128),
}

fuzz_target!(|input: Input| match input {
    Input::Plain(values) => check(values),
    Input::IntegerKeys(values) => check(values),
    Input::Tagged(values) => check(values),
    Input::Untagged(values) => check(values),
    Input::Skipped(values) => check(values),
    Input::Flattened(values) => check(values),
    Input::Nested(values) => check(values),
    Input::Attributes(values) => check_attributes(&values),
});

fn check<T: Clone + Debug + Default + DeserializeOwned + Serialize + 'static>(values: [T; 2]) {
    let builder = || SessionManager::<T>::builder(MemorySessionStore::new());
    check_with(&builder().codec(Json::new()).build().unwrap(), &values);
    check_with(&builder().codec(MessagePack::new()).build().unwrap(), &values);
}

fn check_with<T: Clone + Debug + Default + 'static>(sessions: &SessionManager<T>, [first, second]: &[T; 2]) {
    let mut session = sessions.fresh();
    *session = first.clone();
    session.renew();
    let committed = match sessions.commit(session) {
        Ok(committed) => committed,
        Err(error) => {
            check_error(&error);
            assert_eq!(count(sessions), 0);
            return;
        }
    };
    assert_eq!(committed.outcome(), Outcome::Stored);
    let id = committed.id().unwrap();
    let opened = || format!("{:?}", *sessions.open_id(id).unwrap().expect("it lives"));
    assert_eq!(opened(), format!("{first:?}"));

    match sessions.update(id, |value| *value = second.clone()) {
        Ok(updated) => {
            assert!(updated.is_some());
            assert_eq!(opened(), format!("{second:?}"));
        }
        Err(error) => {
            check_error(&error);
            assert_eq!(opened(), format!("{first:?}"));
        }
    }
    assert_eq!(count(sessions), 1);
}

/// Attributes that are rejected change nothing. The session of the others can be opened if it is stored.
fn check_attributes(values: &[(u8, Attribute)]) {
    let sessions = SessionManager::<Attributes>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    session.insert("first", 1).unwrap();
    for (name, value) in values {
        let before = session.len();
        let is_known = session.contains(&name.to_string());
        match session.insert(name.to_string(), value) {
            Ok(()) => assert_eq!(session.len(), before + usize::from(!is_known)),
            Err(error) => {
                check_error(&error);
                assert_eq!(session.len(), before);
            }
        }
    }
    let names = session.len();
    let committed = match sessions.commit(session) {
        Ok(committed) => committed,
        // A value that nests as deep as JSON allows is too deep in its session.
        Err(error) => {
            check_error(&error);
            assert_eq!(count(&sessions), 0);
            return;
        }
    };
    let opened = sessions.open_id(committed.id().unwrap()).unwrap().expect("it lives");
    assert_eq!((opened.len(), opened.get::<u8>("first").unwrap()), (names, Some(1)));
}

fn check_error(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Payload, "{error:#}");
}

fn count<T: 'static>(sessions: &SessionManager<T>) -> u64 {
    sessions.store().index().unwrap().count().unwrap()
}
