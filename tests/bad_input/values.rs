//! Values that a format cannot represent are rejected, and the stored session stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use threaded_sessions::{Attributes, Codec, ErrorKind, Json, Outcome, SessionManager, SessionStore};

use super::{payload, stores};

/// A value for every way of being one that JSON cannot hold.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Odd {
    map: BTreeMap<(u8, u8), u8>,
    double: f64,
    single: f32,
    perhaps: Option<f64>,
    #[serde(serialize_with = "refuse_seven")]
    refused: u8,
    deeper: Option<Box<Odd>>,
}

fn refuse_seven<S: Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        7 => Err(serde::ser::Error::custom("secret 7")),
        _ => serializer.serialize_u8(*number),
    }
}

impl Odd {
    fn deep(depth: usize) -> Self {
        (0..depth).fold(Self::default(), |odd, _| Self { deeper: Some(Box::new(odd)), ..Self::default() })
    }
}

type Spoil = fn(&mut Odd);

/// Refused: stored sessions stay as they are, new ones are not stored.
fn check_refused<C: Codec<Odd>>(codec: impl Fn() -> C, spoils: &[Spoil]) {
    for store in stores() {
        let sessions = SessionManager::builder_with_codec(store.clone(), codec()).build().unwrap();
        for (at, spoil) in spoils.iter().enumerate() {
            let why = format!("case {at} in {store:?}");
            let mut session = sessions.fresh();
            session.double = 1.5;
            let id = *sessions.commit(session).unwrap().id().unwrap();
            let before = payload(&store, &id);

            for renew in [false, true] {
                let mut session = sessions.open_id(&id).unwrap().unwrap();
                spoil(&mut session);
                if renew {
                    session.renew();
                }
                assert_eq!(sessions.commit(session).expect_err(&why).kind(), ErrorKind::Payload, "{why}");
            }
            assert_eq!(sessions.update(&id, spoil).expect_err(&why).kind(), ErrorKind::Payload, "{why}");
            let mut new = sessions.fresh();
            spoil(&mut new);
            assert_eq!(sessions.commit(new).expect_err(&why).kind(), ErrorKind::Payload, "{why}");

            assert_eq!(payload(&store, &id), before, "{why}");
            assert_eq!(sessions.open_id(&id).unwrap().unwrap().double, 1.5, "{why}");
        }
        if let Some(index) = store.index() {
            assert_eq!(index.count().unwrap(), spoils.len() as u64, "what was refused is stored nowhere");
        }
    }
}

/// Stored, and the same when it comes back.
fn check_kept(codec: impl Codec<Odd>, spoils: &[Spoil]) {
    let [store, ..] = stores();
    let sessions = SessionManager::builder_with_codec(store, codec).build().unwrap();
    for (at, spoil) in spoils.iter().enumerate() {
        let mut session = sessions.fresh();
        spoil(&mut session);
        let kept = session.clone();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let back = sessions.open_id(&id).unwrap().unwrap();
        // Debug, for NaN is not equal to itself.
        assert_eq!(format!("{:?}", *back), format!("{kept:?}"), "case {at}");
    }
}

/// However deep a value is, if it is stored it can be read again.
fn check_depth(codec: impl Codec<Odd>) {
    let [store, ..] = stores();
    let sessions = SessionManager::builder_with_codec(store, codec).build().unwrap();
    let stored = (100..140).filter(|&depth| {
        let mut session = sessions.fresh();
        *session = Odd::deep(depth);
        match sessions.commit(session) {
            Ok(committed) => {
                let back = sessions.open_id(committed.id().unwrap()).unwrap().unwrap();
                assert_eq!(*back, Odd::deep(depth));
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Payload);
                false
            }
        }
    });
    let stored: Vec<usize> = stored.collect();
    assert_eq!(stored, (100..=*stored.last().unwrap()).collect::<Vec<_>>());
    assert!((120..130).contains(&stored.len().wrapping_add(99)), "{stored:?}");
}

const KEYS: Spoil = |odd| odd.map.extend([((1, 2), 3)]);
const NOT_FINITE: [Spoil; 5] = [
    |odd| odd.double = f64::NAN,
    |odd| odd.double = f64::NEG_INFINITY,
    |odd| odd.single = f32::INFINITY,
    |odd| odd.perhaps = Some(f64::NAN),
    |odd| odd.deeper = Some(Box::new(Odd { single: f32::NAN, ..Odd::default() })),
];
const REFUSED: [Spoil; 2] = [|odd| odd.refused = 7, |odd| *odd = Odd::deep(1000)];

#[test]
fn value_without_json_form_is_rejected() {
    check_refused(Json::new, &[&[KEYS][..], &NOT_FINITE, &REFUSED].concat());
    check_depth(Json::new());
}

#[cfg(feature = "msgpack")]
#[test]
fn message_pack_takes_any_key_and_float() {
    use threaded_sessions::MessagePack;
    check_kept(MessagePack::new(), &[&[KEYS][..], &NOT_FINITE].concat());
    check_refused(MessagePack::new, &REFUSED);
    check_depth(MessagePack::new());
}

#[test]
fn json_keeps_floats_to_the_last_bit() {
    let spoils: [Spoil; 5] = [
        |odd| odd.double = 0.1 + 0.2,
        |odd| odd.double = f64::MIN_POSITIVE,
        |odd| odd.double = 5e-324,
        |odd| odd.single = f32::MAX,
        // One bit off if it is read the quick way.
        |odd| odd.double = 0.011000000000000001,
    ];
    check_kept(Json::new(), &spoils);
}

#[test]
fn attributes_refuse_the_same_and_do_not_quote() {
    let mut attributes = Attributes::default();
    attributes.insert("a", "secret").unwrap();
    let errors = [
        attributes.insert("a", f64::NAN).unwrap_err(),
        attributes.insert("a", BTreeMap::from([((1, 2), "secret")])).unwrap_err(),
        attributes.insert("a", Odd::deep(1000)).unwrap_err(),
        attributes.insert("a", Odd { refused: 7, ..Odd::default() }).unwrap_err(),
        attributes.get::<u32>("a").unwrap_err(),
        attributes.get::<Odd>("a").map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Payload);
        let texts = super::support::texts(&error);
        assert!(!texts.contains("secret"), "{texts}");
    }
    assert_eq!(attributes.get("a").unwrap(), Some("secret".to_owned()));
    assert_eq!(attributes.get::<u32>("b").unwrap(), None);

    let [store, ..] = stores();
    let sessions = SessionManager::<Attributes>::new(store);
    let mut session = sessions.fresh();
    assert!(session.insert("a", f32::NAN).is_err());
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
}
