//! Encrypted payloads, together with the time of the last write: only the right key reads a payload, and no wrong key destroys it.

mod support;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use support::{Monitor, PATIENCE, RedisServer, eventually, shared, unique};
use threaded_sessions::step::{Encrypted, EncryptionKey, WrittenAt};
use threaded_sessions::store::{Found, Saved, Touch, Write};
use threaded_sessions::{
    Clock, Error, ErrorKind, MemorySessionStore, OnConflict, Outcome, RedisSessionStore, SessionId, SessionManager,
    SessionStore, StepStore, Unreadable, contract, redis,
};

const HOUR: Duration = Duration::from_secs(3600);

type Fields = BTreeMap<String, String>;

fn key(n: u8) -> EncryptionKey {
    EncryptionKey::from_bytes([n; 32])
}

fn plain(url: String, prefix: &str, expiring: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(url).prefix(prefix);
    if expiring { builder.expiring() } else { builder }.build().unwrap()
}

/// Both steps around a store.
fn encrypted<S: SessionStore>(store: S, step: Encrypted) -> StepStore<S> {
    StepStore::builder(store).step(step).step(WrittenAt::new()).build().unwrap()
}

fn around_each_store(test: impl Fn(Arc<dyn SessionStore>)) {
    test(Arc::new(encrypted(MemorySessionStore::new(), Encrypted::new(key(1)))));
    for expiring in [false, true] {
        let store = plain(shared().url(), &unique("encrypted"), expiring);
        test(Arc::new(encrypted(store, Encrypted::new(key(1)))));
    }
}

fn put<S: SessionStore>(store: &S, payload: &[u8]) -> SessionId {
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(payload, HOUR)).unwrap();
    id
}

fn payload(found: Result<Found, Error>) -> Result<Vec<u8>, (ErrorKind, String)> {
    match found {
        Ok(Found::Live(stored)) => Ok(stored.payload.to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err((error.kind(), error.source().unwrap().to_string())),
    }
}

fn stored(sessions: &SessionManager<Fields>, field: &str) -> SessionId {
    let mut session = sessions.fresh();
    session.insert(field.into(), "was here".into());
    *sessions.commit(session).unwrap().id().unwrap()
}

#[test]
fn every_store_keeps_the_contract_with_encryption() {
    let clock = Clock::manual();
    let memory = MemorySessionStore::new().with_clock(clock.clone());
    contract::all(&encrypted(memory, Encrypted::new(key(1))), |time| clock.advance(time));
    for expiring in [false, true] {
        let store = plain(shared().url(), &unique("contract"), expiring);
        contract::all(&StepStore::builder(store).step(Encrypted::new(key(1))).build().unwrap(), sleep);
        let store = plain(shared().url(), &unique("contract"), expiring);
        contract::all(&encrypted(store, Encrypted::new(key(2)).with_old(key(1))), sleep);
    }
}

#[test]
fn the_database_holds_no_plaintext() {
    let server = RedisServer::start();
    for (encrypt, expected) in [(true, false), (false, true)] {
        server.cmd(&["FLUSHALL"]);
        let store = plain(server.url(), "sessions", true);
        let sessions = if encrypt {
            SessionManager::<Fields>::new(encrypted(store, Encrypted::new(key(1))))
        } else {
            SessionManager::new(store)
        };
        let mut session = sessions.fresh();
        session.insert("colour".into(), "ultramarine".into());
        session.bind("ada@example.org", "her telephone");
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.insert("another".into(), "vermilion".into());
        session.renew();
        let _ = sessions.commit(session).unwrap();
        stored(&sessions, "viridian");

        let dump = dump(&server);
        let words = ["ltramarin", "ermilio", "iridia", "olou", "ada@example", "telephone", "was here", "created"];
        for word in words {
            let holds = dump.windows(word.len()).any(|part| part == word.as_bytes());
            assert_eq!(holds, expected, "{word}");
        }
    }
}

/// All keys and values, as they are.
fn dump(server: &RedisServer) -> Vec<u8> {
    let mut connection = server.connection();
    let mut all = Vec::new();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    assert!(keys.len() > 3);
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
        let read: &[&str] = match &*kind {
            "string" => &["GET"],
            "hash" => &["HGETALL"],
            "zset" => &["ZRANGE", "0", "-1"],
            other => panic!("{other}"),
        };
        let value: redis::Value = redis::cmd(read[0]).arg(&key).arg(&read[1..]).query(&mut connection).unwrap();
        all.extend_from_slice(&key);
        let values = match value {
            redis::Value::Array(values) => values,
            redis::Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
            value => vec![value],
        };
        for value in values {
            let redis::Value::BulkString(bytes) = value else { panic!("{value:?}") };
            all.extend_from_slice(&bytes);
        }
    }
    all
}

#[test]
fn keys_rotate_without_losing_a_session() {
    let inner = plain(shared().url(), &unique("rotating"), true);
    let with = |step| StepStore::builder(inner.clone()).step(step).build().unwrap();
    let before = with(Encrypted::new(key(1)));
    let (kept, rewritten) = (put(&before, b"kept"), put(&before, b"rewritten"));
    // First every process learns to read the new key, then one after the other writes with it.
    let learning = with(Encrypted::new(key(1)).with_old(key(2)));
    let changed = with(Encrypted::new(key(2)).with_old(key(1)));
    let new = put(&changed, b"new");
    for store in [&learning, &changed] {
        for (id, expected) in [(&kept, "kept"), (&rewritten, "rewritten"), (&new, "new")] {
            assert_eq!(payload(store.read(id, Touch::No)), Ok(expected.into()));
        }
    }
    let Found::Live(stored) = changed.read(&rewritten, Touch::No).unwrap() else { panic!() };
    let saved = changed.save(&rewritten, Write::new(b"again", HOUR), Some(&stored.version)).unwrap();
    assert!(matches!(saved, Saved::Stored(_)), "{saved:?}");
    let after = with(Encrypted::new(key(2)));
    assert_eq!(payload(after.read(&rewritten, Touch::No)), Ok(b"again".into()));
    assert_eq!(payload(after.read(&new, Touch::No)), Ok(b"new".into()));
    let lost = payload(after.read(&kept, Touch::No)).unwrap_err();
    assert_eq!(lost, (ErrorKind::Payload, "it is encrypted with a key that is not here".into()));
    assert_eq!(payload(changed.read(&kept, Touch::No)), Ok(b"kept".into()));
}

#[test]
fn wrong_key_is_reported_and_destroys_nothing() {
    let inner = plain(shared().url(), &unique("wrong"), true);
    let builder = |n| SessionManager::<Fields>::builder(encrypted(inner.clone(), Encrypted::new(key(n))));
    let right = builder(1).build().unwrap();
    let mut session = right.fresh();
    session.insert("name".into(), "Ada".into());
    session.bind("ada", "here");
    let id = *right.commit(session).unwrap().id().unwrap();
    let before = shared().cmd(&["GET", &inner.key(&id)]);

    let wrong = builder(2).build().unwrap();
    let cookie = format!("__Host-session={}", id.expose());
    let why = "decrypting a session: the payload cannot be used";
    assert_eq!(wrong.open([&*cookie]).unwrap_err().to_string(), why);
    let error = wrong.update(&id, |fields| fields.clear()).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Payload, why.into()));
    let store = wrong.store();
    let stale = threaded_sessions::store::Version::new(*b"stale");
    let errors = [
        store.save(&id, Write::new(b"v", HOUR), Some(&stale)).unwrap_err(),
        store.rotate(&id, &store.fresh_id(Some(&id)), Write::new(b"v", HOUR), Some(&stale)).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Payload), "{errors:?}");
    assert_eq!(wrong.list("ada").unwrap(), []);
    let lenient = builder(2).unreadable(Unreadable::StartFresh).build().unwrap();
    assert!(lenient.open([&*cookie]).unwrap().is_new());

    assert_eq!(shared().cmd(&["GET", &inner.key(&id)]), before);
    assert_eq!(right.open([&*cookie]).unwrap()["name"], "Ada");
    assert_eq!(right.list("ada").unwrap().len(), 1);
    assert!(WrittenAt::of(store, &id).unwrap().is_some());
}

#[test]
fn altered_or_moved_payload_is_rejected_and_kept() {
    let inner = plain(shared().url(), &unique("altered"), false);
    let store = StepStore::builder(inner.clone()).step(Encrypted::new(key(1))).build().unwrap();
    let (id, other) = (put(&store, b"a payload"), put(&store, b"the other's"));
    let raw = payload(inner.read(&id, Touch::No)).unwrap();
    let belonging = payload(inner.read(&other, Touch::No)).unwrap();
    let mut forged: Vec<Vec<u8>> = (0..raw.len())
        .map(|position| {
            let mut altered = raw.clone();
            altered[position] ^= 1;
            altered
        })
        .collect();
    forged.extend((0..raw.len()).map(|length| raw[..length].to_vec()));
    forged.extend([belonging, [&raw[..], b"!"].concat(), b"{\"plain\":1}".to_vec()]);
    for forged in forged {
        let _ = inner.save(&id, Write::new(&forged, HOUR), None).unwrap();
        let (kind, why) = payload(store.read(&id, Touch::No)).unwrap_err();
        assert_eq!(kind, ErrorKind::Payload);
        assert!(why.starts_with("it "), "{why}");
        assert_eq!(payload(inner.read(&id, Touch::No)), Ok(forged));
    }
    let _ = inner.save(&id, Write::new(&raw, HOUR), None).unwrap();
    assert_eq!(payload(store.read(&id, Touch::No)), Ok(b"a payload".into()));
    // A renewed session is bound to its new id.
    let new = store.fresh_id(Some(&id));
    let _ = store.rotate(&id, &new, Write::new(b"renewed", HOUR), None).unwrap();
    assert_eq!(payload(store.read(&new, Touch::No)), Ok(b"renewed".into()));
    let renewed = payload(inner.read(&new, Touch::No)).unwrap();
    let _ = inner.save(&other, Write::new(&renewed, HOUR), None).unwrap();
    let moved = (ErrorKind::Payload, "it was altered, or belongs to another session".into());
    assert_eq!(payload(store.read(&other, Touch::No)), Err(moved));
}

#[test]
fn different_payloads_and_different_sessions_share_no_nonce() {
    let inner = MemorySessionStore::new();
    let store = StepStore::builder(inner.clone()).step(Encrypted::new(key(1))).build().unwrap();
    let nonce_of = |id: &SessionId| payload(inner.read(id, Touch::No)).unwrap()[5..29].to_vec();
    let (id, other) = (put(&store, b"1"), put(&store, b"1"));
    let mut nonces = vec![nonce_of(&id), nonce_of(&other)];
    for write in [b"2".as_slice(), b"3", b""] {
        let _ = store.save(&id, Write::new(write, HOUR), None).unwrap();
        nonces.push(nonce_of(&id));
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
}

#[test]
fn merging_updating_and_renewing_work_through_both_steps() {
    around_each_store(|store| {
        let sessions = SessionManager::<Fields>::builder(store).on_conflict(OnConflict::Merge).build().unwrap();
        let id = stored(&sessions, "first");
        let [mut mine, mut theirs] = std::array::from_fn(|_| sessions.open_id(&id).unwrap().unwrap());
        mine.insert("mine".into(), "1".into());
        theirs.insert("theirs".into(), "2".into());
        assert_eq!(sessions.commit(theirs).unwrap().outcome(), Outcome::Stored);
        assert_eq!(sessions.commit(mine).unwrap().outcome(), Outcome::Stored);
        let mut renewing = sessions.open_id(&id).unwrap().unwrap();
        assert_eq!(renewing.keys().collect::<Vec<_>>(), ["first", "mine", "theirs"]);
        // In between the session changes, so that the renewal has to merge as well.
        let seen = sessions.update(&id, |fields| fields.insert("updated".into(), "3".into())).unwrap();
        assert_eq!(seen, Some(None));
        renewing.insert("renewed".into(), "4".into());
        renewing.renew();
        let new = *sessions.commit(renewing).unwrap().id().unwrap();
        assert_ne!(new, id);
        let session = sessions.open_id(&new).unwrap().unwrap();
        assert_eq!(session.keys().collect::<Vec<_>>(), ["first", "mine", "renewed", "theirs", "updated"]);
        assert!(WrittenAt::of(sessions.store(), &new).unwrap().is_some());
        assert_eq!(WrittenAt::of(sessions.store(), &id).unwrap(), None);
    });
}

#[test]
fn lists_and_expiry_events_work_through_both_steps() {
    around_each_store(|store| {
        if store.index().is_none() {
            return;
        }
        let builder = || SessionManager::<Fields>::builder(store.clone());
        let lasting = builder().build().unwrap();
        let short = builder().idle_timeout(Duration::from_millis(1)).build().unwrap();
        let expired = Arc::new(Mutex::new(Vec::new()));
        let reaper = lasting.reaper().resolution(HOUR).on_expired({
            let expired = expired.clone();
            move |session| expired.lock().unwrap().push((session.handle, session.data))
        });
        let reaper = reaper.start().unwrap();
        // From here on what expires waits for the reaper.
        reaper.reap_now().unwrap();

        let mut session = lasting.fresh();
        session.insert("who".into(), "Ada".into());
        session.bind("ada", "her telephone");
        let id = *lasting.commit(session).unwrap().id().unwrap();
        let his = lasting.list("ada").unwrap();
        assert_eq!(his.iter().map(|session| &*session.label).collect::<Vec<_>>(), ["her telephone"]);
        assert_eq!(his[0].handle, store.handle(&id));

        let gone = stored(&short, "gone");
        assert!(eventually(PATIENCE, || reaper.reap_now().is_ok() && !expired.lock().unwrap().is_empty()));
        let fields = Fields::from([("gone".into(), "was here".into())]);
        assert_eq!(*expired.lock().unwrap(), [(store.handle(&gone), fields)]);
        assert_eq!(WrittenAt::of(&store, &gone).unwrap(), None);
        assert!(lasting.end("ada", his[0].handle).unwrap());
        assert_eq!(WrittenAt::of(&store, &id).unwrap(), None);
    });
}

#[test]
fn operations_with_both_steps_need_one_round_trip() {
    let server = RedisServer::start();
    for expiring in [false, true] {
        let store = encrypted(plain(server.url(), &unique("wire"), expiring), Encrypted::new(key(1)));
        let ttl = Write::new(b"v", HOUR);
        let every = || {
            let (id, new) = (put(&store, b"1"), store.fresh_id(None));
            let Found::Live(stored) = store.read(&id, Touch::No).unwrap() else { panic!() };
            let Found::Live(_) = store.read(&id, Touch::Set(HOUR)).unwrap() else { panic!() };
            let Found::Live(_) = store.read(&id, Touch::Extend(HOUR)).unwrap() else { panic!() };
            let Saved::Stored(_) = store.save(&id, ttl, Some(&stored.version)).unwrap() else { panic!() };
            let Saved::Stored(_) = store.save(&id, ttl, None).unwrap() else { panic!() };
            let Saved::Stored(_) = store.rotate(&id, &new, ttl, None).unwrap() else { panic!() };
            assert!(WrittenAt::of(&store, &new).unwrap().is_some());
            assert!(store.delete(&new).unwrap());
            if let Some(index) = store.index() {
                assert_eq!(index.reap(0, 10, true).unwrap().removed, 0);
            }
        };
        // The server knows the scripts from here on.
        every();
        let monitor = Monitor::start(&server);
        every();
        let commands: Vec<String> = monitor.commands().into_iter().map(|command| command[0].clone()).collect();
        // Reading takes two, in one go, unless it is a bare `GET`.
        assert_eq!(commands.len(), if expiring { 14 } else { 11 }, "{commands:?}");
    }
}

#[test]
fn keys_are_redacted_and_checked() {
    let hex = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee0f";
    let key = EncryptionKey::from_hex(hex).unwrap();
    let shown = format!("{:?}", Encrypted::new(key.clone()).with_old(key));
    assert!(shown.len() < 120 && !shown.contains("2233"), "{shown}");
    for bad in ["", &hex[1..], &format!("{hex}00"), &hex.replace('0', "g")] {
        let error = EncryptionKey::from_hex(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
}
