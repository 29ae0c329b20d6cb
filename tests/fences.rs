//! Code of the application around sessions: codecs, formats, migrations, steps, key mappers.
//!
//! No text of their errors reaches an error or the log, and none of their panics leaves the store between two states.

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use support::{PATIENCE, eventually, keep_logs, logged, logged_by, shared, texts, unique};
use threaded_sessions::codec::{Envelope, Format, JsonFormat, SerdeCodec};
use threaded_sessions::observer::{ConnectionEvent, Ended, ObservedSession, Operation};
use threaded_sessions::step::{
    DeleteOperation, Deleted, Next, ReadOperation, Subject, WriteOperation, Written, on_delete, on_read, on_write,
};
use threaded_sessions::store::{Bind, Bytes, Created, Ending, Found, Touch, Write};
use threaded_sessions::{
    BoxError, Clock, Codec, Error, ErrorKind, Json, MemorySessionStore, Observer, Outcome, Reason, RedisSessionStore,
    Result, SessionId, SessionManager, SessionStore, Step, StepStore, Unreadable,
};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pin {
    pin: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Code {
    code: u32,
}

fn secret() -> Pin {
    Pin { pin: "\"secret\"".into() }
}

fn store_secret(store: &MemorySessionStore) -> SessionId {
    let sessions = SessionManager::<Pin>::new(store.clone());
    let mut session = sessions.fresh();
    *session = secret();
    session.bind("ada", "laptop");
    *sessions.commit(session).unwrap().id().unwrap()
}

/// The error of serde_json over the secret, which it quotes.
fn quoting() -> serde_json::Error {
    let error = serde_json::from_str::<u32>(&secret().pin).unwrap_err();
    assert!(error.to_string().contains("secret"));
    error
}

#[track_caller]
fn assert_kept_secret<R>(result: Result<R>, kind: ErrorKind, shown: &str) -> Error {
    let error = result.map(drop).expect_err("it fails");
    assert_eq!(error.kind(), kind, "{error:?}");
    let texts = format!("{} {error:#}", texts(&error));
    assert!(!texts.contains("secret"), "{texts}");
    assert!(texts.contains(shown), "{texts}");
    error
}

/// The texts that this thread has logged so far.
fn records() -> String {
    logged_by(thread::current().id()).into_iter().map(|(_, text)| text).collect()
}

#[test]
fn migration_error_shows_no_value() {
    keep_logs();
    let store = MemorySessionStore::new();
    let id = store_secret(&store);
    let codec = || Json::new().migrate(|_: Pin| -> Result<Code, BoxError> { Err(quoting().into()) });
    let builder = || SessionManager::<Code>::builder(store.clone()).codec(codec());
    let sessions = builder().build().unwrap();
    let error = assert_kept_secret(sessions.open_id(&id), ErrorKind::Payload, "the migration from fences::Pin failed");
    assert!(error.downcast_ref::<serde_json::Error>().is_some(), "the program gets the error");
    assert_kept_secret(sessions.update(&id, |_| ()), ErrorKind::Payload, "the migration");
    let fresh = builder().unreadable(Unreadable::StartFresh).build().unwrap();
    assert!(fresh.open_id(&id).unwrap().is_none());
    let _ = sessions.list("ada");
    assert!(records().contains("the migration from fences::Pin failed"), "{}", records());
    assert!(!records().contains("secret"), "{}", records());
    // Without a manager around it, too.
    let payload = SerdeCodec::<JsonFormat, Pin>::new().encode(&Envelope::new(&secret())).unwrap();
    let error = codec().decode(&payload).unwrap_err();
    assert!(!texts(&*error).contains("secret"), "{error}");
}

#[test]
fn unreadable_session_names_its_field() {
    fn check<F: Format>(log: &str) {
        let store = MemorySessionStore::new();
        let codec = SerdeCodec::<F, BTreeMap<String, Pin>>::new();
        let pins = SessionManager::builder_with_codec(store.clone(), codec).build().unwrap();
        let mut session = pins.fresh();
        session.insert("secret".into(), secret());
        let id = *pins.commit(session).unwrap().id().unwrap();
        let builder = || {
            let codec = SerdeCodec::<F, BTreeMap<String, Code>>::new();
            SessionManager::builder_with_codec(store.clone(), codec)
        };
        let shown = "the field `data.*.code` is missing";
        assert_kept_secret(builder().build().unwrap().open_id(&id), ErrorKind::Payload, shown);
        let fresh = builder().unreadable(Unreadable::StartFresh).build().unwrap();
        assert!(fresh.open_id(&id).unwrap().is_none());
        let logged = records();
        assert!(logged.contains(log) && logged.contains(shown) && !logged.contains("secret"), "{logged}");
    }
    keep_logs();
    check::<JsonFormat>("is JSON of another shape");
    #[cfg(feature = "msgpack")]
    check::<threaded_sessions::codec::MessagePackFormat>("is not MessagePack of the right shape");
}

#[test]
fn migration_reason_is_shown() {
    let store = MemorySessionStore::new();
    let id = store_secret(&store);
    let codec = Json::new().migrate(|_: Pin| -> Result<Code, BoxError> { Err(Reason::new("no such pin").into()) });
    let sessions = SessionManager::<Code>::builder(store).codec(codec).build().unwrap();
    assert_kept_secret(sessions.open_id(&id), ErrorKind::Payload, "no such pin");
}

/// JSON whose errors quote what they are about.
enum Quoting {}

impl Format for Quoting {
    type Value = serde_json::Value;
    const NAME: &'static str = "Quoting";

    fn to_vec<D: Serialize>(data: &D) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(data)?)
    }

    fn from_slice<D: DeserializeOwned>(bytes: &[u8]) -> Result<D, BoxError> {
        serde_json::from_slice(bytes).map_err(|error| format!("{error} in {}", String::from_utf8_lossy(bytes)).into())
    }
}

/// A codec whose errors quote what they are about.
struct QuotingCodec;

impl Codec<Code> for QuotingCodec {
    fn encode(&self, _: &Envelope<&Code>) -> Result<Vec<u8>, BoxError> {
        Err(io::Error::other(quoting()).into())
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<Code>, BoxError> {
        let why = format!("not readable: {}", String::from_utf8_lossy(payload));
        Err(Error::new(ErrorKind::Payload, "unpacking").with_source(why).into())
    }
}

#[test]
fn custom_format_and_codec_show_no_value() {
    #[derive(Clone, Debug, Default, Deserialize)]
    struct Quoted;
    impl Serialize for Quoted {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("secret"))
        }
    }
    let store = MemorySessionStore::new();
    let id = store_secret(&store);
    let builder = SessionManager::<Code>::builder(store.clone());
    let sessions = builder.codec(SerdeCodec::<Quoting, Code>::new()).build().unwrap();
    assert_kept_secret(sessions.open_id(&id), ErrorKind::Payload, "the format Quoting could not read the payload");
    let sessions = SessionManager::<Code>::builder(store.clone()).codec(QuotingCodec).build().unwrap();
    assert_kept_secret(sessions.open_id(&id), ErrorKind::Payload, "the codec could not decode the payload");
    let mut session = sessions.fresh();
    session.code = 1;
    let error = assert_kept_secret(sessions.commit(session), ErrorKind::Payload, "could not encode the value");
    assert!(error.downcast_ref::<io::Error>().is_some(), "the program gets the error");

    let sessions =
        SessionManager::<Quoted>::builder(store).codec(SerdeCodec::<Quoting, Quoted>::new()).build().unwrap();
    let mut session = sessions.fresh();
    session.renew();
    assert_kept_secret(sessions.commit(session), ErrorKind::Payload, "could not write the value");
}

/// A step that fails, with an error that quotes the payload.
#[derive(Clone, Debug, Default)]
struct Failing {
    read: bool,
    write: bool,
    delete: bool,
    restore: bool,
}

fn fail<R>(fails: bool) -> Result<R> {
    assert!(fails, "it is not asked otherwise");
    Err(Error::new(ErrorKind::Refused, "minding the rules").with_source(quoting()))
}

impl Step for Failing {
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        if self.read { fail(true) } else { next.read(operation) }
    }

    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        if self.write { fail(true) } else { next.write(operation) }
    }

    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        if self.delete { fail(true) } else { next.delete(operation) }
    }

    fn restore(&self, _: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        if self.restore { fail(true) } else { Ok(payload) }
    }
}

#[test]
fn step_error_shows_no_value() {
    keep_logs();
    let clock = Clock::manual();
    let inner = MemorySessionStore::new().with_clock(clock.clone());
    let around = |step: Failing| StepStore::builder(inner.clone()).step(step).build().unwrap();
    let id = store_secret(&inner);
    let shown = "the step fences::Failing failed";
    let with = Failing::default;
    assert_kept_secret(around(Failing { read: true, ..with() }).read(&id, Touch::No), ErrorKind::Refused, shown);
    assert_kept_secret(around(Failing { restore: true, ..with() }).read(&id, Touch::No), ErrorKind::Refused, shown);
    let write = around(Failing { write: true, ..with() }).save(&id, Write::new(b"w", HOUR), None);
    assert_kept_secret(write, ErrorKind::Refused, shown);
    assert_kept_secret(around(Failing { delete: true, ..with() }).delete(&id), ErrorKind::Refused, shown);
    // A list and a reaper leave the session out, and log why.
    let store = around(Failing { restore: true, delete: true, ..with() });
    assert!(store.index().unwrap().list_by_principal("ada").unwrap().is_empty());
    store.index().unwrap().keep_expired();
    clock.advance(HOUR * 24 * 8);
    assert_eq!(store.index().unwrap().reap(0, 10, true).unwrap().removed, 1);
    assert!(records().contains("is left out of a list"), "{}", records());
    assert!(records().contains("expired, and a step rejected the report"), "{}", records());
    assert!(!records().contains("secret"), "{}", records());
}

#[test]
fn store_error_passes_step_with_its_text() {
    let full = MemorySessionStore::new().with_max_sessions(0);
    #[derive(Debug)]
    struct Away(MemorySessionStore);
    impl SessionStore for Away {
        fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
            self.0.create(id, write)
        }
        fn read(&self, _: &SessionId, _: Touch) -> Result<Found> {
            Err(Error::new(ErrorKind::Unavailable, "reading").with_source("connection refused"))
        }
        fn save(
            &self,
            id: &SessionId,
            write: Write<'_>,
            expected: Option<&threaded_sessions::store::Version>,
        ) -> Result<threaded_sessions::store::Saved> {
            self.0.save(id, write, expected)
        }
        fn rotate(
            &self,
            old: &SessionId,
            new: &SessionId,
            write: Write<'_>,
            expected: Option<&threaded_sessions::store::Version>,
        ) -> Result<threaded_sessions::store::Saved> {
            self.0.rotate(old, new, write, expected)
        }
        fn delete(&self, id: &SessionId) -> Result<bool> {
            self.0.delete(id)
        }
    }
    let passing = on_read(|operation, next| next.read(operation));
    let store = StepStore::builder(Away(full)).step(passing).build().unwrap();
    let error = store.read(&SessionId::random(), Touch::No).unwrap_err();
    assert!(format!("{error:#}").contains("connection refused"), "{error:#}");
    let quoting = on_read(|operation, next| next.read(operation).map_err(|error| error.with_source("secret")));
    let store = StepStore::builder(Away(MemorySessionStore::new())).step(quoting).build().unwrap();
    assert_kept_secret(store.read(&SessionId::random(), Touch::No), ErrorKind::Unavailable, "failed");
}

fn unlucky<R>() -> R {
    resume_unwind(Box::new("a bug"))
}

/// A codec that panics over one value, wherever it meets it.
struct Fragile(Json<Pin>);

impl Fragile {
    fn look(&self, value: &Pin) {
        if value.pin == "13" {
            unlucky()
        }
    }
}

impl Codec<Pin> for Fragile {
    fn encode(&self, envelope: &Envelope<&Pin>) -> Result<Vec<u8>, BoxError> {
        self.look(envelope.data);
        self.0.encode(envelope)
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<Pin>, BoxError> {
        self.0.decode(payload).inspect(|envelope| self.look(&envelope.data))
    }

    fn merge(&self, _: &[u8], _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        unlucky()
    }

    fn is_same(&self, _: &[u8], _: &[u8]) -> bool {
        unlucky()
    }

    fn loses(&self, _: &[u8]) -> bool {
        unlucky()
    }
}

#[test]
fn panicking_codec_is_a_payload_error() {
    let store = MemorySessionStore::new();
    let sessions = SessionManager::<Pin>::builder(store.clone()).codec(Fragile(Json::new())).build().unwrap();
    let plain = SessionManager::<Pin>::new(store);
    let put = |pin: &str| {
        let mut session = plain.fresh();
        session.pin = pin.into();
        *plain.commit(session).unwrap().id().unwrap()
    };
    let panicked = "the codec panicked";
    assert_kept_secret(sessions.open_id(&put("13")), ErrorKind::Payload, panicked);
    let id = put("1");
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.pin = "13".into();
    assert_kept_secret(sessions.commit(session), ErrorKind::Payload, panicked);
    let updated = sessions.update(&id, |pin| pin.pin = "13".into());
    assert_kept_secret(updated, ErrorKind::Payload, panicked);
    // A merge that panics is a conflict. Nothing is lost.
    let [mut one, mut other] = [(); 2].map(|()| sessions.open_id(&id).unwrap().unwrap());
    one.pin = "2".into();
    other.pin = "3".into();
    let _ = sessions.commit(one).unwrap();
    assert_kept_secret(sessions.commit(other), ErrorKind::Conflict, "");
    assert_eq!(plain.open_id(&id).unwrap().unwrap().pin, "2");
}

#[test]
fn panicking_migration_is_a_payload_error() {
    let store = MemorySessionStore::new();
    let id = store_secret(&store);
    let codec = Json::<Code>::new().migrate(|_: Pin| unlucky());
    let sessions = SessionManager::<Code>::builder(store).codec(codec).build().unwrap();
    assert_kept_secret(sessions.open_id(&id), ErrorKind::Payload, "the codec panicked");
}

/// A step that panics in one method, before or after it has passed the operation on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Panicking {
    Read,
    BeforeWrite,
    AfterWrite,
    BeforeDelete,
    AfterDelete,
    Restore,
}

impl Panicking {
    fn at(self, here: Self) {
        if self == here {
            unlucky()
        }
    }
}

impl Step for Panicking {
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        self.at(Self::Read);
        next.read(operation)
    }

    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        self.at(Self::BeforeWrite);
        let written = next.write(operation)?;
        self.at(Self::AfterWrite);
        Ok(written)
    }

    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        self.at(Self::BeforeDelete);
        let deleted = next.delete(operation)?;
        self.at(Self::AfterDelete);
        Ok(deleted)
    }

    fn restore(&self, _: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        self.at(Self::Restore);
        Ok(payload)
    }
}

fn create(store: &dyn SessionStore) -> SessionId {
    let id = store.fresh_id(None);
    let bind = Bind::To { principal: "ada", cap: None };
    assert!(matches!(store.create(&id, Write::new(b"v", HOUR).with_bind(bind)).unwrap(), Created::Stored(_)));
    id
}

fn payload(store: &dyn SessionStore, id: &SessionId) -> Option<Vec<u8>> {
    match store.read(id, Touch::No).unwrap() {
        Found::Live(stored) => Some(stored.payload.to_vec()),
        _ => None,
    }
}

#[test]
fn panicking_step_fails_with_known_outcome() {
    let inner = Arc::new(MemorySessionStore::new());
    let around = |step| StepStore::builder(inner.clone()).step(step).build().unwrap();
    let save = |step, id: &SessionId| around(step).save(id, Write::new(b"w", HOUR), None);
    let shown = "the step fences::Panicking panicked";
    let id = create(&inner);
    assert_kept_secret(around(Panicking::Read).read(&id, Touch::No), ErrorKind::Refused, shown);
    assert_kept_secret(around(Panicking::Restore).read(&id, Touch::No), ErrorKind::Refused, shown);
    assert_kept_secret(save(Panicking::BeforeWrite, &id), ErrorKind::Refused, shown);
    assert_eq!(payload(&inner, &id), Some(b"v".to_vec()));
    assert_kept_secret(save(Panicking::AfterWrite, &id), ErrorKind::Other, shown);
    assert_eq!(payload(&inner, &id), Some(b"w".to_vec()));
    assert_kept_secret(around(Panicking::BeforeDelete).delete(&id), ErrorKind::Refused, shown);
    assert_eq!(payload(&inner, &id), Some(b"w".to_vec()));
    assert_kept_secret(around(Panicking::AfterDelete).delete(&id), ErrorKind::Other, shown);
    assert_eq!(payload(&inner, &id), None);
}

#[test]
fn panic_over_one_session_hides_no_other() {
    keep_logs();
    /// Panics over payloads that begin with 13.
    #[derive(Debug)]
    struct Picky;
    impl Step for Picky {
        fn restore(&self, _: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
            if payload.starts_with(b"13") { unlucky() } else { Ok(payload) }
        }
    }
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let store = StepStore::builder(store).step(Picky).build().unwrap();
    let index = store.index().unwrap();
    index.keep_expired();
    let bind = Bind::To { principal: "ada", cap: None };
    for text in ["1", "13", "2"] {
        let _ = store.create(&store.fresh_id(None), Write::new(text.as_bytes(), HOUR).with_bind(bind)).unwrap();
    }
    let mut listed: Vec<_> = index.list_by_principal("ada").unwrap().into_iter().map(|one| one.payload).collect();
    listed.sort();
    assert_eq!(listed, ["1", "2"]);
    clock.advance(HOUR);
    let reaped = index.reap(0, 10, true).unwrap();
    let mut reported: Vec<_> = reaped.sessions.into_iter().map(|expired| expired.payload).collect();
    reported.sort();
    assert_eq!((reaped.removed, reported), (3, vec!["1".into(), "2".into()]));
    assert_eq!(index.end("ada", Ending::All).unwrap(), 0);
    assert_eq!(records().matches("the step fences::panic_over_one_session_hides_no_other::Picky panicked").count(), 2);
}

#[test]
fn panicking_closures_count_as_rejection() {
    let inner = Arc::new(MemorySessionStore::new());
    let id = create(&inner);
    let builder = StepStore::builder(inner.clone()).step(on_read(|_, _| unlucky())).step(on_write(|_, _| unlucky()));
    let store = builder.step(on_delete(|_, _| unlucky())).build().unwrap();
    assert_kept_secret(store.read(&id, Touch::No), ErrorKind::Refused, "panicked");
    assert_kept_secret(store.save(&id, Write::new(b"w", HOUR), None), ErrorKind::Refused, "panicked");
    assert_kept_secret(store.delete(&id), ErrorKind::Refused, "panicked");
    assert_eq!(payload(&inner, &id), Some(b"v".to_vec()));
}

#[test]
fn panicking_key_mapper_costs_nothing_but_its_operation() {
    let panics = Arc::new(AtomicBool::new(false));
    let (panics_now, prefix) = (panics.clone(), unique("mapped"));
    let mapper = move |id: &SessionId| match panics_now.load(Ordering::Relaxed) {
        true => unlucky(),
        false => format!("{prefix}/{}", id.expose()),
    };
    let builder = RedisSessionStore::builder().url(shared().url()).deadline(PATIENCE).pool_size(1);
    let store = builder.key_mapper(mapper).announce_ends().build().unwrap();
    let listener = SessionManager::<u32>::new(store.clone()).listener().start().unwrap();
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(b"v", HOUR)).unwrap();
    panics.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        for operation in [
            &(|| drop(store.read(&id, Touch::No))) as &dyn Fn(),
            &|| drop(store.save(&id, Write::new(b"w", HOUR), None)),
            &|| drop(store.rotate(&id, &SessionId::random(), Write::new(b"w", HOUR), None)),
            &|| drop(store.delete(&id)),
            &|| drop(listener.watch(&id)),
        ] {
            assert!(catch_unwind(AssertUnwindSafe(operation)).is_err(), "the panic passes");
        }
    }
    panics.store(false, Ordering::Relaxed);
    assert_eq!(payload(&store, &id), Some(b"v".to_vec()));
    assert_eq!(store.health().connections_in_use, 0);
    let watch = listener.watch(&id);
    assert!(store.delete(&id).unwrap() && watch.wait(PATIENCE).is_some(), "the listener still works");
}

#[test]
fn reaper_survives_panicking_callback_and_codec() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::<Pin>::builder(store.clone()).codec(Fragile(Json::new()));
    let sessions = builder.idle_timeout(HOUR).build().unwrap();
    let plain = SessionManager::<Pin>::builder(store).idle_timeout(HOUR).build().unwrap();
    let reported = Arc::new(Mutex::new(BTreeMap::new()));
    let so_far = reported.clone();
    let reaper = sessions.reaper().on_expired(move |expired| {
        if expired.data.pin == "7" {
            unlucky::<()>()
        }
        *so_far.lock().unwrap().entry(expired.data.pin).or_insert(0) += 1;
    });
    let reaper = reaper.start().unwrap();
    for pin in ["1", "7", "13", "2"] {
        let mut session = plain.fresh();
        session.pin = pin.into();
        let _ = plain.commit(session).unwrap();
    }
    clock.advance(HOUR);
    let mut removed = 0;
    assert!(eventually(PATIENCE, || {
        removed += reaper.reap_now().unwrap();
        removed == 4
    }));
    assert_eq!(*reported.lock().unwrap(), BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 1)]));
    assert_eq!(reaper.stats().errors, 0);
}

#[test]
fn memory_store_outlives_a_panic_in_a_handler() {
    let sessions = SessionManager::<Pin>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    session.pin = "1".into();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        sessions.update(&id, |pin| {
            pin.pin = "2".into();
            unlucky::<()>()
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(sessions.open_id(&id).unwrap().unwrap().pin, "1");
}

#[test]
fn record_has_stable_target_and_pairs() {
    keep_logs();
    let store = MemorySessionStore::new();
    let id = store_secret(&store);
    let codes = SessionManager::<Code>::builder(store.clone()).unreadable(Unreadable::StartFresh).build().unwrap();
    assert!(codes.open_id(&id).unwrap().is_none());
    let own = thread::current().id();
    let records = logged().into_iter().filter(|record| record.thread == own);
    let pairs: Vec<_> = records.map(|record| record.target_and_pairs).collect();
    let (each, seldom) = pairs.split_first().unwrap();
    assert_eq!(*each, format!("threaded_sessions::session session={}", store.handle(&id)));
    // The warning comes only if no other test had one within ten seconds.
    assert!(
        seldom.len() <= 1 && seldom.iter().all(|line| line.starts_with(&format!("{each} sessions="))),
        "{seldom:?}"
    );
}

/// An observer that panics over each event.
struct Startled(AtomicUsize);

impl Startled {
    fn panic(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        unlucky()
    }
}

impl Observer for Startled {
    fn on_operation(&self, _: &Operation) {
        self.panic()
    }

    fn on_created(&self, _: &ObservedSession<'_>) {
        self.panic()
    }

    fn on_renewed(&self, _: &ObservedSession<'_>, _: &ObservedSession<'_>) {
        self.panic()
    }

    fn on_ended(&self, _: &Ended<'_>) {
        self.panic()
    }

    fn on_connection(&self, _: &ConnectionEvent<'_>) {
        self.panic()
    }
}

#[test]
fn panicking_observer_changes_no_result() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("observer")).pool_size(1).expiring();
    let startled = Arc::new(Startled(AtomicUsize::new(0)));
    let sessions = SessionManager::<Pin>::builder(store.build().unwrap()).observer(startled.clone()).build().unwrap();
    let mut session = sessions.fresh();
    session.pin = "1".into();
    session.bind("ada", "laptop");
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.renew();
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    assert_eq!(sessions.end_all("ada").unwrap(), 1);
    // Create, created, read, rotate, renewed, end and ended.
    assert!(startled.0.load(Ordering::Relaxed) >= 7);
    assert!(eventually(PATIENCE, || sessions.health().connections_in_use == 0));
}
