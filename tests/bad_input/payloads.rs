//! Payloads that cannot be decoded or are too large: the request gets an error or a new session, and the stored bytes stay.

use std::error::Error;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use threaded_sessions::codec::{Envelope, Format, JsonFormat, SerdeCodec};
use threaded_sessions::{Codec, ErrorKind, Outcome, Reason, SessionId, SessionManager, SessionStore, Unreadable};

use super::{payload, plant, stores};

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Visit {
    user: String,
    count: u32,
}

fn encode<F: Format, T: Serialize + DeserializeOwned + 'static>(value: &T) -> Vec<u8> {
    SerdeCodec::<F, T>::new().encode(&Envelope::new(value)).unwrap()
}

fn visit() -> Visit {
    Visit { user: "ada".to_owned(), count: 7 }
}

/// The payload of a visit in an envelope of this version.
fn of_version<F: Format>(v: impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Other<V> {
        v: V,
        rev: u64,
        created: u64,
        data: Visit,
    }
    F::to_vec(&Other { v, rev: 1, created: 1, data: visit() }).unwrap()
}

/// Payloads that are not a `Visit`, each with words of the expected error.
fn unreadable<F: Format>(not_even: &[&[u8]]) -> Vec<(Vec<u8>, &'static str)> {
    #[derive(Deserialize, Serialize)]
    struct Text(String);
    let whole = encode::<F, _>(&visit());
    let cut = (0..whole.len()).map(|end| (whole[..end].to_vec(), "payload"));
    let mut payloads: Vec<_> = cut.collect();
    payloads.push((of_version::<F>(2), "layout version 2, this program reads version 1"));
    payloads.push((of_version::<F>(u64::MAX), "this program reads version 1"));
    payloads.push((of_version::<F>(0), "layout version 0, this program reads version 1"));
    payloads.push((of_version::<F>("1"), "payload"));
    payloads.push((of_version::<F>(-1), "payload"));
    payloads.push((encode::<F, _>(&7u32), "payload"));
    payloads.push((encode::<F, _>(&Text("text".to_owned())), "payload"));
    payloads.push((encode::<F, _>(&[visit()]), "payload"));
    payloads.push((F::to_vec(&visit()).unwrap(), "payload"));
    payloads.push((F::to_vec(&()).unwrap(), "payload"));
    payloads.extend(not_even.iter().map(|payload| (payload.to_vec(), "payload")));
    payloads
}

fn header(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

/// By default an error, and the payload stays; asked to start fresh, a new session, and the payload stays as well.
fn check_all<F: Format>(not_even: &[&[u8]]) {
    for store in stores() {
        let builder = || SessionManager::builder_with_codec(store.clone(), SerdeCodec::<F, Visit>::new());
        let (failing, fresh) =
            (builder().build().unwrap(), builder().unreadable(Unreadable::StartFresh).build().unwrap());
        for (bytes, words) in unreadable::<F>(not_even) {
            let id = plant(&store, &bytes);
            let why = format!("{} in {store:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));

            let error = failing.open([&*header(&id)]).expect_err(&why);
            assert_eq!(error.kind(), ErrorKind::Payload, "{why}");
            let source = error.source().expect("it says why").to_string();
            assert!(source.contains(words), "{source}: {why}");
            assert_eq!(failing.open_id(&id).expect_err(&why).kind(), ErrorKind::Payload);
            let updated = failing.update(&id, |visit| visit.count += 1);
            assert_eq!(updated.expect_err(&why).kind(), ErrorKind::Payload);
            assert_eq!(payload(&store, &id).as_deref(), Some(&*bytes), "{why}");

            assert!(fresh.open_id(&id).unwrap().is_none(), "{why}");
            let mut session = fresh.open([&*header(&id)]).unwrap();
            assert!(session.is_new() && *session == Visit::default(), "{why}");
            session.count = 1;
            let committed = fresh.commit(session).unwrap();
            assert_eq!(committed.outcome(), Outcome::Stored);
            assert_ne!(committed.id(), Some(&id));
            assert_eq!(payload(&store, &id).as_deref(), Some(&*bytes), "{why}");
        }
    }
}

#[test]
fn unreadable_json_stays_stored() {
    let deep = b"[".repeat(100_000);
    check_all::<JsonFormat>(&[b"\xff\xfe\0", b"<xml/>", b"{}", b"[1,2", b"\"text\"", &deep, &[0; 4096]]);
}

#[cfg(feature = "msgpack")]
#[test]
fn unreadable_message_pack_stays_stored() {
    let (json, deep) = (encode::<JsonFormat, _>(&visit()), b"\x91".repeat(100_000));
    // The last one promises four thousand million elements.
    let not_even: [&[u8]; 6] = [&json, b"\xc1", b"\x80", &deep, &[0; 4096], b"\xdd\xff\xff\xff\xff"];
    check_all::<threaded_sessions::codec::MessagePackFormat>(&not_even);
}

#[derive(Deserialize, Serialize)]
struct First {
    name: String,
}

#[derive(Deserialize, Serialize)]
struct Second {
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Third {
    people: Vec<(String, u32)>,
}

fn check_migrations<F: Format>() {
    let from_first = |old: First| Ok(Third { people: vec![(old.name, 1)] });
    let from_second = |old: Second| match &old.names[..] {
        [] => Err(Reason::new("nobody").into()),
        names => Ok(Third { people: names.iter().map(|name| (name.clone(), 2)).collect() }),
    };
    let codec = || SerdeCodec::<F, Third>::new().migrate(from_second).migrate(from_first);
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    fn in_envelope<F: Format, T: Serialize + DeserializeOwned + 'static>(value: &T, created: SystemTime) -> Vec<u8> {
        let mut envelope = Envelope::new(value);
        envelope.created = created;
        SerdeCodec::<F, T>::new().encode(&envelope).unwrap()
    }
    for store in stores() {
        let sessions = SessionManager::builder_with_codec(store.clone(), codec()).build().unwrap();
        let generations = [
            (in_envelope::<F, _>(&First { name: "ada".into() }, created), 1),
            (in_envelope::<F, _>(&Second { names: vec!["ada".into()] }, created), 2),
            (in_envelope::<F, _>(&Third { people: vec![("ada".into(), 3)] }, created), 3),
        ];
        for (old, generation) in generations {
            let id = plant(&store, &old);
            let mut session = sessions.open_id(&id).unwrap().expect("it lives");
            assert_eq!(session.people, [("ada".to_owned(), generation)]);
            assert_eq!(session.created(), created);
            assert_eq!(payload(&store, &id), Some(old), "reading it changes nothing");

            session.people.push(("bob".to_owned(), 0));
            assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
            // Readable without a migration from now on.
            let new = SerdeCodec::<F, Third>::new().decode(&payload(&store, &id).unwrap()).unwrap();
            assert_eq!(new.data.people, [("ada".to_owned(), generation), ("bob".to_owned(), 0)]);
            assert_eq!(new.created, created);
        }

        let refused = in_envelope::<F, _>(&Second { names: Vec::new() }, created);
        let id = plant(&store, &refused);
        let error = sessions.open_id(&id).unwrap_err();
        assert_eq!((error.kind(), error.source().unwrap().to_string()), (ErrorKind::Payload, "nobody".to_owned()));
        assert_eq!(payload(&store, &id), Some(refused));
    }
}

#[test]
fn migrations_read_the_payloads_of_two_generations() {
    check_migrations::<JsonFormat>();
}

#[cfg(feature = "msgpack")]
#[test]
fn migrations_read_two_generations_of_message_pack() {
    check_migrations::<threaded_sessions::codec::MessagePackFormat>();
}

#[test]
fn oversized_payload_is_rejected_and_old_one_kept() {
    for store in stores() {
        let limited = |bytes| SessionManager::<String>::builder(store.clone()).max_payload(bytes).build().unwrap();
        let sessions = limited(1000);
        let mut session = sessions.fresh();
        *session = "x".repeat(900);
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let before = payload(&store, &id).unwrap();

        let grown = |grow: &dyn Fn(&mut String)| {
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            grow(&mut session);
            sessions.commit(session)
        };
        let error = grown(&|text| text.push_str(&"x".repeat(100))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Payload);
        let source = error.source().unwrap().to_string();
        assert!(source.ends_with("bytes are over the limit of 1000"), "{source}");
        let mut renewed = sessions.open_id(&id).unwrap().unwrap();
        renewed.push_str(&before.len().to_string().repeat(100));
        renewed.renew();
        assert_eq!(sessions.commit(renewed).unwrap_err().kind(), ErrorKind::Payload);
        let updated = sessions.update(&id, |text| text.push_str(&"x".repeat(100)));
        assert_eq!(updated.unwrap_err().kind(), ErrorKind::Payload);
        let mut new = sessions.fresh();
        *new = "x".repeat(1000);
        assert_eq!(sessions.commit(new).unwrap_err().kind(), ErrorKind::Payload);
        assert_eq!(payload(&store, &id), Some(before));

        // The limit is for what is stored from now on, and is the last length that is.
        assert_eq!(limited(10).open_id(&id).unwrap().map(|session| session.len()), Some(900));
        let mut filled = sessions.open_id(&id).unwrap().unwrap();
        filled.clear();
        let exact = Envelope::new(&*filled);
        let overhead = SerdeCodec::<JsonFormat, String>::new().encode(&exact).unwrap().len();
        // A revision has up to 20 digits.
        *filled = "x".repeat(1000 - overhead - 20);
        assert_eq!(sessions.commit(filled).unwrap().outcome(), Outcome::Stored);
        if let Some(index) = store.index() {
            assert_eq!(index.count().unwrap(), 1, "what was refused is stored nowhere");
        }
    }
}
