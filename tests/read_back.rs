//! Reading back: a value that is reported as stored can be opened again.
//!
//! serde can write shapes that it cannot read. Every write of such a value is rejected, and the stored session stays as it was.

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{shared, texts, unique};
use threaded_sessions::codec::{Envelope, JsonFormat, SerdeCodec};
use threaded_sessions::step::{Next, Subject, WriteOperation, Written};
use threaded_sessions::store::Bytes;
use threaded_sessions::{
    Attributes, BoxError, Codec, ErrorKind, Json, MemorySessionStore, Outcome, RedisSessionStore, Result,
    SessionManager, SessionStore, Step, StepStore,
};

/// A shape with a readable and an unreadable value.
trait Shape: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + 'static {
    fn unreadable() -> Self;
}

macro_rules! shapes {
    ($($(#[$attribute:meta])* $kind:ident $name:ident { $($body:tt)* } unreadable: $unreadable:expr;)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        $kind $name { $($body)* }

        impl Shape for $name {
            fn unreadable() -> Self {
                $unreadable
            }
        }
    )*};
}

shapes! {
    struct IntegerKeys {
        user: u32,
        #[serde(flatten)]
        quantities: BTreeMap<u32, u8>,
    }
    unreadable: Self { user: 1, quantities: [(7, 2)].into() };

    #[serde(tag = "kind")]
    enum LargeNumber {
        #[default]
        Guest,
        Known { account: u128 },
    }
    unreadable: Self::Known { account: u128::MAX };

    #[serde(untagged)]
    enum Untagged {
        #[default]
        Guest,
        Known { quantities: BTreeMap<u32, u8> },
    }
    unreadable: Self::Known { quantities: [(7, 2)].into() };

    struct SkippedWithoutDefault {
        user: u32,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        roles: Vec<String>,
    }
    unreadable: Self { user: 1, roles: Vec::new() };

    struct NameTwice {
        user: u32,
        #[serde(flatten)]
        others: BTreeMap<String, u32>,
    }
    unreadable: Self { user: 1, others: [("user".to_owned(), 2)].into() };
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Address {
    #[default]
    Guest,
    Known {
        from: Option<IpAddr>,
    },
}

fn stores() -> [Box<dyn SessionStore>; 3] {
    let redis = || RedisSessionStore::builder().url(shared().url()).prefix(unique("read-back"));
    [
        Box::new(MemorySessionStore::new()),
        Box::new(redis().build().unwrap()),
        Box::new(redis().expiring().build().unwrap()),
    ]
}

fn assert_payload<R: Debug>(result: Result<R>) {
    let error = result.expect_err("it cannot be read again");
    assert_eq!(error.kind(), ErrorKind::Payload, "{error:?}");
}

/// Every way to store a value rejects this one, and keeps what is stored.
fn check_rejected<T: Clone + Debug + PartialEq + Default + 'static>(
    codec: impl Fn() -> Box<dyn Codec<T>>,
    readable: &T,
    unreadable: &T,
) {
    struct Boxed<T>(Box<dyn Codec<T>>);
    impl<T: 'static> Codec<T> for Boxed<T> {
        fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError> {
            self.0.encode(envelope)
        }
        fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError> {
            self.0.decode(payload)
        }
        fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
            self.0.merge(base, mine, theirs)
        }
    }
    for store in stores() {
        let sessions =
            SessionManager::builder_with_codec(std::sync::Arc::<dyn SessionStore>::from(store), Boxed(codec()));
        let sessions = sessions.build().unwrap();
        let mut fresh = sessions.fresh();
        *fresh = unreadable.clone();
        assert_payload(sessions.commit(fresh));

        let mut session = sessions.fresh();
        *session = readable.clone();
        session.renew();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let open = || sessions.open_id(&id).unwrap().expect("it lives");
        for renews in [false, true] {
            let mut session = open();
            *session = unreadable.clone();
            if renews {
                session.renew();
            }
            assert_payload(sessions.commit(session));
        }
        assert_payload(sessions.update(&id, |value| *value = unreadable.clone()));
        let mut session = open();
        assert_payload(sessions.update_in(&mut session, |value| *value = unreadable.clone()));
        assert_eq!(*session, *readable, "the session has its earlier value");
        let _ = sessions.commit(session).unwrap();
        assert_eq!(*open(), *readable);
    }
}

fn check_shape<T: Shape>() {
    check_rejected(|| Box::new(Json::new()), &T::default_readable(), &T::unreadable());
    #[cfg(feature = "msgpack")]
    check_rejected_or_kept::<T>();
}

trait Readable: Shape {
    fn default_readable() -> Self;
}

impl<T: Shape> Readable for T {
    /// The default, or the unreadable value's sibling where the default is the unreadable one.
    fn default_readable() -> Self {
        let json = |value: &T| SerdeCodec::<JsonFormat, T>::new().encode(&Envelope::new(value)).unwrap();
        let reads = |value: &T| SerdeCodec::<JsonFormat, T>::new().decode(&json(value)).is_ok();
        let default = T::default();
        if reads(&default) { default } else { serde_json::from_str(r#"{"user":1,"roles":["admin"]}"#).unwrap() }
    }
}

/// MessagePack can read some of the shapes. A value that is stored opens again.
#[cfg(feature = "msgpack")]
fn check_rejected_or_kept<T: Shape>() {
    let builder = SessionManager::<T>::builder(MemorySessionStore::new());
    let sessions = builder.codec(threaded_sessions::MessagePack::new()).build().unwrap();
    let mut session = sessions.fresh();
    *session = T::unreadable();
    session.renew();
    match sessions.commit(session) {
        Ok(committed) => {
            let opened = sessions.open_id(committed.id().unwrap()).expect("it was stored").unwrap();
            assert_eq!(*opened, T::unreadable());
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Payload),
    }
}

#[test]
fn unreadable_shapes_are_rejected_by_every_write() {
    check_shape::<IntegerKeys>();
    check_shape::<LargeNumber>();
    check_shape::<Untagged>();
    check_shape::<SkippedWithoutDefault>();
    check_shape::<NameTwice>();
}

#[cfg(feature = "msgpack")]
#[test]
fn message_pack_rejects_address_in_tagged_enum() {
    use threaded_sessions::MessagePack;
    let known = Address::Known { from: Some([192, 0, 2, 1].into()) };
    check_rejected(|| Box::new(MessagePack::new()), &Address::Guest, &known);
}

#[test]
fn address_in_tagged_enum_is_kept_in_json() {
    let sessions = SessionManager::<Address>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    *session = Address::Known { from: Some([192, 0, 2, 1].into()) };
    let id = *sessions.commit(session).unwrap().id().unwrap();
    assert!(matches!(*sessions.open_id(&id).unwrap().unwrap(), Address::Known { from: Some(_) }));
}

#[test]
fn disabled_read_back_stores_any_value() {
    let builder = SessionManager::<IntegerKeys>::builder(MemorySessionStore::new());
    let sessions = builder.read_back(false).build().unwrap();
    let mut session = sessions.fresh();
    *session = IntegerKeys::unreadable();
    let committed = sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Stored);
    assert_payload(sessions.open_id(committed.id().unwrap()));
}

#[test]
fn error_names_the_field_and_no_value() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Shop {
        cart: BTreeMap<String, Item>,
    }
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Item {
        #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        price: Option<u32>,
    }
    fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        u32::deserialize(deserializer).map(Some)
    }
    let sessions = SessionManager::<Shop>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    session.cart.insert("secret".into(), Item::default());
    let error = sessions.commit(session).unwrap_err();
    assert!(texts(&error).contains("the field `data.cart.*.price` is missing"), "{error:#}");
    assert!(!texts(&error).contains("secret"), "{error:#}");
}

/// A value whose `Deserialize` panics, over one number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fragile(u32);

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            13 => std::panic::resume_unwind(Box::new("unlucky")),
            14 => Err(D::Error::custom("unlucky")),
            number => Ok(Self(number)),
        }
    }
}

#[test]
fn value_with_panicking_deserialize_is_rejected() {
    for unlucky in [13, 14] {
        check_rejected(|| Box::new(Json::new()), &Fragile(1), &Fragile(unlucky));
        #[cfg(feature = "msgpack")]
        check_rejected(|| Box::new(threaded_sessions::MessagePack::new()), &Fragile(1), &Fragile(unlucky));
    }
}

#[test]
fn custom_codec_without_decoding_is_rejected() {
    /// Loses the last byte of long payloads.
    struct Short(Json<String>);
    impl Codec<String> for Short {
        fn encode(&self, envelope: &Envelope<&String>) -> Result<Vec<u8>, BoxError> {
            let mut payload = self.0.encode(envelope)?;
            if envelope.data.len() > 10 {
                payload.pop();
            }
            Ok(payload)
        }
        fn decode(&self, payload: &[u8]) -> Result<Envelope<String>, BoxError> {
            self.0.decode(payload)
        }
    }
    check_rejected(|| Box::new(Short(Json::new())), &"short".to_owned(), &"a longer text".to_owned());
}

#[test]
fn value_readable_only_by_migration_is_kept() {
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Visit {
        name: String,
    }
    #[derive(Deserialize)]
    struct Stored {
        nick: String,
    }
    impl Serialize for Visit {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("nick", &self.name)?;
            map.end()
        }
    }
    impl<'de> Deserialize<'de> for Visit {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom("read by the migration"))
        }
    }
    let codec = Json::<Visit>::new().migrate(|stored: Stored| Ok(Visit { name: stored.nick }));
    let sessions = SessionManager::builder(MemorySessionStore::new()).codec(codec).build().unwrap();
    let mut session = sessions.fresh();
    session.name = "ada".into();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    assert_eq!(sessions.open_id(&id).unwrap().unwrap().name, "ada");
}

#[test]
fn merge_to_an_unreadable_value_is_rejected() {
    /// Readable while it has less than three entries.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    struct Few(BTreeMap<String, u32>);
    impl<'de> Deserialize<'de> for Few {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let entries = BTreeMap::deserialize(deserializer)?;
            if entries.len() < 3 { Ok(Self(entries)) } else { Err(D::Error::custom("too many")) }
        }
    }
    for store in stores() {
        let sessions = SessionManager::<Few>::new(std::sync::Arc::<dyn SessionStore>::from(store));
        let mut session = sessions.fresh();
        session.0.insert("a".into(), 1);
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let [mut one, mut other] = [(); 2].map(|()| sessions.open_id(&id).unwrap().unwrap());
        one.0.insert("b".into(), 2);
        other.0.insert("c".into(), 3);
        let _ = sessions.commit(one).unwrap();
        assert!(sessions.commit(other).is_err());
        assert_eq!(sessions.open_id(&id).unwrap().unwrap().0.len(), 2);
    }
}

#[test]
fn unreadable_serde_attribute_leaves_session_readable() {
    let sessions = SessionManager::<Attributes>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    session.insert("cart", IntegerKeys::unreadable()).unwrap();
    session.insert("theme", "dark").unwrap();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    assert_eq!(session.get::<String>("theme").unwrap(), Some("dark".into()));
    assert_payload(session.get::<IntegerKeys>("cart"));
    assert!(session.remove("cart"));
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
}

/// A step that stores payloads backwards, and turns only short ones around again.
#[derive(Debug)]
struct Backwards;

impl Step for Backwards {
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        operation.set_payload(operation.payload().iter().rev().copied().collect::<Vec<u8>>());
        next.write(operation)
    }

    fn restore(&self, _: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let restored: Vec<u8> = payload.iter().take(100).rev().copied().collect();
        Ok(restored.into())
    }
}

#[test]
fn payload_not_restorable_by_step_is_rejected() {
    for reads_back in [true, false] {
        let store = StepStore::builder(MemorySessionStore::new()).step(Backwards).build().unwrap();
        let sessions = SessionManager::<String>::builder(store).read_back(reads_back).build().unwrap();
        let mut session = sessions.fresh();
        *session = "short".into();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let updated = sessions.update(&id, |text| *text = "long".repeat(100));
        if reads_back {
            assert_payload(updated);
            assert_eq!(*sessions.open_id(&id).unwrap().unwrap(), "short");
        } else {
            assert_eq!(updated.unwrap(), Some(()));
            assert_payload(sessions.open_id(&id));
        }
    }
}

#[cfg(feature = "encryption")]
#[test]
fn encrypted_session_is_read_back() {
    use threaded_sessions::step::{Encrypted, EncryptionKey};
    for store in stores() {
        let key = EncryptionKey::from_bytes([1; 32]);
        let store = StepStore::builder(std::sync::Arc::<dyn SessionStore>::from(store));
        let sessions = SessionManager::<String>::new(store.step(Backwards).step(Encrypted::new(key)).build().unwrap());
        let mut session = sessions.fresh();
        *session = "short".into();
        // The payload is longer than 100 bytes once it is encrypted.
        assert_payload(sessions.commit(session));
    }
}
