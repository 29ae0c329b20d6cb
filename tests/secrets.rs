//! No secret reaches a log, a `Debug` text or an error, because many people can read these. Secrets are ids, values and passwords.
//! Every secret in these tests contains the word, except ids, which the tests collect.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use support::{Fault, PATIENCE, Proxy, RedisServer, eventually, keep_logs, logged, shared, texts, unique};
use threaded_sessions::codec::{Binding, Envelope};
use threaded_sessions::store::{Bind, Ending, Touch, Version, Write};
use threaded_sessions::{
    Attributes, Clock, Codec, Committed, Error, ErrorKind, Handle, Json, MemorySessionStore, OnConflict,
    RedisConnectionManager, RedisSessionStore, RedisSessionStoreBuilder, Result, Session, SessionId, SessionManager,
    SessionStore, Unreadable,
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn logs_and_errors_hold_no_secret() {
    let mut log = Log::start();
    let server = RedisServer::with(&["--requirepass", "secret-password"]);
    let redis = || {
        let builder = RedisSessionStore::builder().deadline(PATIENCE);
        builder.url(format!("redis://:secret-password@127.0.0.1:{}", server.port()))
    };
    log.show(redis());
    let stores: [Arc<dyn SessionStore>; 3] = [
        Arc::new(redis().build().unwrap()),
        Arc::new(redis().prefix("expiring").expiring().build().unwrap()),
        Arc::new(MemorySessionStore::new()),
    ];
    for store in &stores {
        let settings = SessionManager::<Attributes>::builder(store.clone()).max_payload(400);
        log.show(&settings);
        let sessions = settings.build().unwrap();
        let mut session = sessions.fresh();
        session.insert("secret-name", "secret-value").unwrap();
        session.remember(true);
        if store.index().is_some() {
            session.bind("secret-principal", "secret-label");
        }
        let id = log.commit(&sessions, session).expect("it is stored");
        let open = || sessions.open([&*format!("__Host-session={}", id.expose())]).unwrap();
        let (mut renewed, mut late, mut too_large) = (open(), open(), open());
        log.show((&sessions, &renewed, &id, store.handle(&id), store.read(&id, Touch::No)));
        // The payload is of another type.
        let numbers = || SessionManager::<u32>::builder(store.clone());
        log.result(numbers().build().unwrap().open_id(&id));
        log.result(numbers().unreadable(Unreadable::StartFresh).build().unwrap().open_id(&id));
        too_large.insert("large", "secret-value".repeat(40)).unwrap();
        assert_eq!(log.commit(&sessions, too_large), None);
        renewed.renew();
        log.commit(&sessions, renewed).expect("it is stored");
        late.clear();
        assert_eq!(log.commit(&sessions, late), None);
        log.show(open());
        if let Some(index) = store.index() {
            log.show((index.list_by_principal("secret-principal"), index.page(0, 9), Ending::AllExcept(&id)));
        }
    }
    server.kill();
    for store in &stores {
        log.result(store.read(&log.ids[0].clone(), Touch::No));
        log.show((store, store.health()));
    }
    let expected = ["is left to expire", "over the limit", "is away", "Detached", "Set-Cookie"];
    log.check(&expected);
}

#[test]
fn debug_text_of_values_holds_no_secret() {
    let mut log = Log::start();
    let id = log.know(SessionId::random());
    let attributes = || {
        let mut attributes = Attributes::default();
        // Names are not secrets.
        attributes.insert("name", "secret-value").unwrap();
        attributes
    };
    let mut envelope = Envelope::new("secret-value");
    envelope.bound = Some(Binding::new("secret-principal", "secret-label"));
    let to = Bind::To { principal: "secret-principal", cap: Some(1) };
    let write = Write::new(b"secret-payload", HOUR).with_bind(to);
    // As bytes, too.
    let version = Version::new(*b"secret-payload");
    log.show((id, Some(id), Ending::AllExcept(&id), attributes(), Handle::of_key(b"secret-key")));
    log.show((&envelope, &envelope.bound, write, to, &version));
    log.show(("secret".parse::<SessionId>(), "secret".parse::<Handle>()));
    log.show(Json::<String>::new().migrate(|secret: u32| Ok(secret.to_string())));

    let store = MemorySessionStore::new().with_clock(Clock::manual());
    log.show(store.create(&id, write).unwrap());
    log.show(store.create(&id, Write::new(b"another-secret", HOUR)).unwrap());
    log.show(store.read(&id, Touch::No).unwrap());
    log.show(store.save(&id, write, Some(&Version::new(*b"secret"))).unwrap());
    log.show((store.index().unwrap().list_by_principal("secret-principal").unwrap(), &store));

    let client = redis::Client::open(format!("redis://secret-user:secret@127.0.0.1:{}", shared().port())).unwrap();
    let manager = RedisConnectionManager::new(client.clone()).unwrap();
    let pool = || threaded_sessions::RedisPool::new(manager.clone());
    let builder = RedisSessionStore::builder;
    log.show((&manager, pool(), builder().client(client.clone()), builder().pool(pool())));
    log.show(builder().url("redis://secret-user:secret@127.0.0.1").key_mapper(move |id| id.expose()));
    let store = builder().pool(pool()).key_mapper(move |id| id.expose()).build().unwrap();
    log.show((&store, SessionManager::<u32>::builder(store.clone()), SessionManager::<u32>::new(store.clone())));
    let connection = threaded_sessions::RedisPool::new(RedisConnectionManager::open(&shared().url()).unwrap()).get();
    log.result(connection);
    log.check(&["SessionId(..)", "bytes: 14", "Client(..)", "Custom(..)"]);

    // Bytes are shown as numbers.
    let shown_or_logged = log.shown.concat();
    for part in [&b"secret-payload"[..], id.expose().as_bytes()] {
        let bytes = format!("{:?}", &part[..6]);
        assert!(!shown_or_logged.contains(bytes.trim_matches(['[', ']'])), "{part:?}");
    }
}

/// A value that cannot be encoded, and whose error contains the value.
#[derive(Debug, Default, Deserialize)]
struct Talkative(String);

impl Serialize for Talkative {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.contains("refused") {
            true => Err(serde::ser::Error::custom(&self.0)),
            false => self.0.serialize(serializer),
        }
    }
}

#[test]
fn failures_of_any_kind_hold_no_secret() {
    let mut log = Log::start();
    let id = log.know(SessionId::random());
    let secret = || Write::new(b"secret-payload", HOUR);
    let redis = || RedisSessionStore::builder().prefix(unique("failures"));
    let patient = |server: &RedisServer| redis().deadline(PATIENCE).url(server.url());
    /// Every operation, and what it met with.
    fn provoke(log: &mut Log, store: &dyn SessionStore, id: &SessionId) {
        let (write, version) = (Write::new(b"secret-payload", HOUR), Version::new(*b"secret-version"));
        let new = log.know(store.fresh_id(Some(id)));
        for touch in [Touch::No, Touch::Set(HOUR), Touch::Extend(HOUR)] {
            log.result(store.read(id, touch));
        }
        log.result(store.create(id, write));
        for expected in [None, Some(&version)] {
            log.result(store.save(id, write, expected));
            log.result(store.rotate(id, &new, write, expected));
        }
        log.result(store.delete(id));
        log.show((store, store.health()));
    }
    let both = |settings: &dyn Fn() -> RedisSessionStoreBuilder, log: &mut Log| {
        for builder in [settings(), settings().expiring()] {
            let store = builder.build().unwrap();
            provoke(log, &store, &id);
            log.result(store.check());
        }
    };

    // Misconfigured, also in ways that Redis or its client quote.
    for url in ["redis://u:secret@[::1", "redis://u:secret@h:secret", "secret://u:secret@h", "redis://h/secret"] {
        log.result(RedisSessionStore::open(url));
    }
    log.result(SessionManager::<u32>::builder(MemorySessionStore::new()).cookie_name("secret ;").build());
    both(&|| patient(shared()).key_mapper(|_| "secret-key".to_owned()), &mut log);

    // Another type, unknown commands, an unknown reply, no memory, no writing, no permission, no password.
    for store in [patient(shared()).build().unwrap(), patient(shared()).expiring().build().unwrap()] {
        shared().cmd(&["RPUSH", &store.key(&id), "secret-element"]);
        provoke(&mut log, &store, &id);
    }
    let unknown = ["GETEX", "SET", "DEL", "EVALSHA"].map(|command| ["--rename-command", command, ""]);
    let server = RedisServer::with(unknown.as_flattened());
    both(&|| patient(&server), &mut log);

    // A reply of a type that the command never has.
    let server = RedisServer::with(&["--rename-command", "GET", "", "--rename-command", "STRLEN", "GET"]);
    both(&|| patient(&server), &mut log);
    let server = RedisServer::start();
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    both(&|| patient(&server), &mut log);
    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    both(&|| patient(&server), &mut log);
    server.cmd(&["REPLICAOF", "NO", "ONE"]);
    server.cmd(&["ACL", "SETUSER", "limited", "on", ">secret-password", "~*", "+ping", "+get", "+client", "+hello"]);
    server.cmd(&["ACL", "SETUSER", "default", ">secret-default"]);
    for credentials in ["limited:secret-password@", "limited:secret-wrong@", "secret-nobody:secret@", ""] {
        let url = format!("redis://{credentials}127.0.0.1:{}", server.port());
        both(&|| redis().deadline(PATIENCE).url(&*url), &mut log);
    }

    // Payloads, conflicts, and what a store cannot do.
    for payload in [&b"secret"[..], b"{\"v\":1,\"rev\":1,\"created\":\"secret\",\"data\":0}"] {
        let id = log.know(SessionId::random());
        let store = Arc::new(MemorySessionStore::new().with_max_sessions(1));
        let _ = store.create(&id, Write::new(payload, HOUR)).unwrap();
        log.result(SessionManager::<Talkative>::new(store.clone()).open_id(&id));
        let quoting =
            Json::<Talkative>::new().migrate(|old: BTreeMap<String, String>| Ok(Talkative(format!("{old:?}"))));
        log.result(
            quoting.decode(payload).map_err(|error| Error::new(ErrorKind::Payload, "decoding").with_source(error)),
        );
        provoke(&mut log, &store, &SessionId::random());
        log.result(SessionManager::<u32>::new(store.clone()).end_all("secret-principal"));
    }
    let sessions = SessionManager::<Talkative>::builder(MemorySessionStore::new()).on_conflict(OnConflict::Fail);
    let sessions = sessions.build().unwrap();
    let mut session = sessions.fresh();
    session.0 = "secret".to_owned();
    let stored = log.commit(&sessions, session).unwrap();
    let open = || sessions.open_id(&stored).unwrap().unwrap();
    let (mut one, mut two, mut refused) = (open(), open(), open());
    refused.0 = "refused secret".to_owned();
    (one.0, two.0) = ("secret one".to_owned(), "secret two".to_owned());
    for session in [one, two, refused] {
        log.commit(&sessions, session);
    }
    let plain = SessionManager::<u32>::new(patient(shared()).build().unwrap());
    log.result(plain.end_all("secret-principal"));
    log.result(plain.reaper().start());

    // Cut before the reply, hanging, gone.
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let cut = redis().url(proxy.url()).deadline(PATIENCE).build().unwrap();
    proxy.set(Fault::CutAfterExecuted);
    log.result(cut.create(&id, secret()));
    let hanging = redis().url(server.url()).deadline(Duration::from_millis(200)).build().unwrap();
    assert!(eventually(PATIENCE, || hanging.read(&id, Touch::No).is_ok()));
    server.stop();
    log.result(hanging.read(&id, Touch::No));
    log.show(hanging.health());
    server.resume();
    server.kill();
    for store in [cut, hanging] {
        provoke(&mut log, &store, &id);
    }

    let kinds = [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::MayHaveHappened,
        ErrorKind::ReadOnly,
        ErrorKind::OutOfMemory,
        ErrorKind::Denied,
        ErrorKind::WrongType,
        ErrorKind::Misconfigured,
        ErrorKind::Payload,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::Other,
    ];
    for kind in kinds {
        assert!(log.kinds.contains(&kind), "{kind:?} was not provoked");
    }
    log.check(&["unknown command", "NOPERM", "authentication failed", "NOAUTH", "WRONGTYPE", "READONLY", "OOM"]);
}

#[test]
fn reaper_logs_no_secret_of_expired_sessions() {
    let mut log = Log::start();
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let sessions = SessionManager::<Attributes>::builder(store.clone()).clock(clock.clone()).build().unwrap();
    let (shown, texts) = mpsc::channel();
    let settings = sessions.reaper().on_expired(move |session| {
        shown.send(format!("{session:?} {session:#?}")).unwrap();
        panic!("a callback that panics, as the test wants it");
    });
    log.show(&settings);
    let reaper = settings.resolution(HOUR).start().unwrap();
    reaper.reap_now().unwrap();
    let bound = r#"{"v":1,"rev":1,"created":1,"bound":{"principal":"secret-principal","label":"secret-label"},
        "data":{"name":"secret"}}"#;
    for payload in [&b"secret-garbage"[..], bound.as_bytes()] {
        let id = log.know(SessionId::random());
        let _ = store.create(&id, Write::new(payload, HOUR)).unwrap();
    }
    clock.advance(HOUR);
    log.result(reaper.reap_now());
    log.show((&reaper, reaper.stats()));
    log.shown.push(texts.recv().unwrap());
    log.check(&[
        "cannot be decoded, so `on_expired` was not called",
        "the codec or `on_expired` panicked",
        &format!("ExpiredSession {{ handle: {:?}, created: ", store.handle(&log.ids[1])),
    ]);
}

/// The texts of values and errors, and the ids that must not be in them.
#[derive(Default)]
struct Log {
    shown: Vec<String>,
    ids: Vec<SessionId>,
    kinds: HashSet<ErrorKind>,
}

impl Log {
    fn start() -> Self {
        keep_logs();
        Self::default()
    }

    /// Notes an id, which is a secret from now on.
    fn know(&mut self, id: SessionId) -> SessionId {
        self.ids.push(id);
        id
    }

    fn show(&mut self, value: impl Debug) {
        self.shown.push(format!("{value:?} {value:#?}"));
    }

    fn result(&mut self, result: Result<impl Debug>) {
        match result {
            Ok(value) => self.show(value),
            Err(error) => {
                self.kinds.insert(error.kind());
                self.shown.push(texts(&error));
                // It logs the error.
                #[cfg(feature = "rouille")]
                let _ = threaded_sessions::rouille::failure(&error);
            }
        }
    }

    /// Commits a session, and returns its id afterwards.
    fn commit<T: 'static>(&mut self, sessions: &SessionManager<T>, session: Session<T>) -> Option<SessionId> {
        self.show(&session);
        let result = sessions.commit(session);
        let id = result.as_ref().ok().and_then(Committed::id).copied();
        id.map(|id| self.know(id));
        self.result(result);
        id
    }

    /// Asserts that each expected text was shown or logged, by this test or another, and that no secret was.
    fn check(&self, expected: &[&str]) {
        let records: Vec<String> = logged().into_iter().map(|record| record.text).collect();
        let shown_or_logged: Vec<&String> = self.shown.iter().chain(&records).collect();
        for expected in expected {
            assert!(shown_or_logged.iter().any(|text| text.contains(expected)), "{expected} was not shown");
        }
        for secret in self.ids.iter().map(SessionId::expose).chain(["secret".to_owned()]) {
            let leaks: Vec<_> = shown_or_logged.iter().filter(|text| text.contains(&secret)).collect();
            assert!(leaks.is_empty(), "{leaks:?}");
        }
    }
}
