//! `renew_every`: a request that uses a session whose id is old gives it a new id, and other requests keep working.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
#[cfg(feature = "msgpack")]
use threaded_sessions::MessagePack;
use threaded_sessions::step::on_write;
#[cfg(feature = "encryption")]
use threaded_sessions::step::{Encrypted, EncryptionKey};
use threaded_sessions::{
    Clock, Error, ErrorKind, MemorySessionStore, Outcome, RedisSessionStore, Session, SessionId, SessionManager,
    SessionManagerBuilder, SessionStore, StepStore,
};

use super::support::{shared, unique};
use super::{HOUR, MILLISECOND, World, set_cookie, world};

const EVERY: Duration = HOUR;

fn cookie(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

/// A world with a session whose id is due.
fn due() -> (World, SessionId) {
    let world = world(|builder| builder.renew_every(EVERY));
    let id = world.create();
    world.clock.advance(EVERY + MILLISECOND);
    (world, id)
}

fn visit(sessions: &SessionManager<u32>, id: &SessionId) -> Session<u32> {
    sessions.open([&*cookie(id)]).unwrap()
}

fn value(world: &World, id: &SessionId) -> Option<u32> {
    world.sessions.open_id(id).unwrap().map(|session| *session)
}

/// A request that only reads. Returns the id after it.
fn read(sessions: &SessionManager<u32>, id: &SessionId) -> SessionId {
    let committed = sessions.commit(visit(sessions, id)).unwrap();
    let is_renewed = committed.id() != Some(id);
    assert_eq!(committed.outcome(), if is_renewed { Outcome::Stored } else { Outcome::Unchanged });
    assert_eq!(set_cookie(&committed).is_some(), is_renewed);
    *committed.id().unwrap()
}

/// A session that was stored without the setting gets a new id when it is old, and again when the new id is old.
fn renews_by_age(build: impl Fn() -> SessionManagerBuilder<u32>) {
    let clock = Clock::manual();
    let without = build().clock(clock.clone()).build().unwrap();
    let sessions = build().clock(clock.clone()).renew_every(EVERY).build().unwrap();
    let mut session = without.fresh();
    (*session, _) = (7, session.remember(true));
    let first = *without.commit(session).unwrap().id().unwrap();
    let mut ids = vec![first];
    for _ in 0..3 {
        let id = *ids.last().unwrap();
        clock.advance(EVERY);
        assert_eq!(read(&sessions, &id), id, "an id of exactly this age stays");
        clock.advance(MILLISECOND);
        let next = read(&sessions, &id);
        assert!(!ids.contains(&next) && sessions.open_id(&id).unwrap().is_none());
        let session = without.open_id(&next).unwrap().unwrap();
        assert_eq!((*session, session.is_remembered()), (7, true));
        ids.push(next);
    }
}

#[test]
fn old_id_is_renewed_in_every_store() {
    let redis = || RedisSessionStore::builder().url(shared().url()).prefix(unique("renew"));
    let stores: [Arc<dyn SessionStore>; 3] = [
        Arc::new(MemorySessionStore::new()),
        Arc::new(redis().build().unwrap()),
        Arc::new(redis().expiring().build().unwrap()),
    ];
    for store in stores {
        renews_by_age(|| SessionManager::builder(store.clone()));
        #[cfg(feature = "msgpack")]
        renews_by_age(|| SessionManager::builder_with_codec(store.clone(), MessagePack::new()));
        #[cfg(feature = "encryption")]
        {
            let step = Encrypted::new(EncryptionKey::from_bytes([7; 32]));
            let encrypted = Arc::new(StepStore::builder(store).step(step).build().unwrap());
            renews_by_age(|| SessionManager::builder(encrypted.clone()));
        }
    }
}

#[test]
fn changed_session_is_stored_under_new_id() {
    let (world, old) = due();
    let mut session = visit(&world.sessions, &old);
    *session = 2;
    let committed = world.sessions.commit(session).unwrap();
    let new = *committed.id().unwrap();
    assert!(new != old && set_cookie(&committed).is_some());
    assert_eq!((value(&world, &old), value(&world, &new)), (None, Some(2)));
    assert_eq!(read(&world.sessions, &new), new, "the new id is young");
}

/// A read does not need the renewal, so it fails only if the visitor may need the new cookie, or if waiting does not help.
#[test]
fn failed_renewal_by_age_fails_few_reads() {
    use ErrorKind::{
        Conflict, Denied, MayHaveHappened, Other, OutOfMemory, Payload, ReadOnly, Refused, TimedOut, Unavailable,
    };
    let (clock, failure) = (Clock::manual(), Arc::new(Mutex::new(None)));
    let fail = failure.clone();
    let step = on_write(move |operation, next| match *fail.lock().unwrap() {
        Some(kind) => Err(Error::new(kind, "testing")),
        None => next.write(operation),
    });
    let memory = MemorySessionStore::new().with_clock(clock.clone());
    let store = StepStore::builder(memory).step(step).build().unwrap();
    let sessions = SessionManager::<u32>::builder(store).clock(clock.clone()).renew_every(EVERY).build().unwrap();
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    clock.advance(EVERY + MILLISECOND);
    let harmless = [Conflict, Payload, Refused, Unavailable, TimedOut, ReadOnly, OutOfMemory];
    for kind in [&harmless[..], &[MayHaveHappened, Denied, Other]].concat() {
        *failure.lock().unwrap() = Some(kind);
        let read = sessions.commit(visit(&sessions, &id));
        *failure.lock().unwrap() = None;
        let fails = !harmless.contains(&kind);
        assert_eq!(
            read.map_err(|error| error.kind()).map(|read| read.outcome()),
            if fails { Err(kind) } else { Ok(Outcome::Unchanged) }
        );
    }
    assert_ne!(read(&sessions, &id), id, "a later read renews it");
}

#[test]
fn renewal_by_handler_restarts_the_age() {
    let world = world(|builder| builder.renew_every(EVERY));
    let old = world.create();
    world.clock.advance(EVERY);
    let mut session = visit(&world.sessions, &old);
    session.renew();
    let new = *world.sessions.commit(session).unwrap().id().unwrap();
    world.clock.advance(EVERY);
    assert_eq!(read(&world.sessions, &new), new);
}

#[test]
fn update_in_renews_an_old_id() {
    let (world, old) = due();
    let mut session = visit(&world.sessions, &old);
    let token = session.csrf_token().unwrap();
    assert_eq!(world.sessions.update_in(&mut session, |count| *count += 1).unwrap(), Some(()));
    let committed = world.sessions.commit(session).unwrap();
    let new = *committed.id().unwrap();
    assert!(new != old && set_cookie(&committed).is_some());
    assert_eq!((value(&world, &old), value(&world, &new)), (None, Some(2)));
    assert!(visit(&world.sessions, &new).verify_csrf(&token));
}

#[test]
fn request_without_visitor_keeps_old_id() {
    let (world, id) = due();
    let sessions = &world.sessions;
    let token = format!("Bearer {}", id.expose());
    let mut discarded = visit(sessions, &id);
    *discarded = 9;
    discarded.discard();
    for session in
        [sessions.peek([&*cookie(&id)]).unwrap(), sessions.open_bearer([&*token]).unwrap(), world.open(&id), discarded]
    {
        let committed = sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
    }
    assert_eq!(sessions.update(&id, |count| *count += 1).unwrap(), Some(()));
    assert_eq!(value(&world, &id), Some(2));
}

#[test]
fn parallel_reads_renew_old_id_once() {
    let (world, old) = due();
    let [one, other] = [(); 2].map(|()| visit(&world.sessions, &old));
    let first = world.sessions.commit(one).unwrap();
    let second = world.sessions.commit(other).unwrap();
    assert_eq!((first.outcome(), second.outcome()), (Outcome::Stored, Outcome::Unchanged));
    assert!(second.id().is_none() && set_cookie(&second).is_none(), "the cookie of the first one stays");
    assert_eq!((value(&world, first.id().unwrap()), world.count()), (Some(1), 1));
}

#[test]
fn renewal_takes_over_a_parallel_change() {
    let (world, old) = due();
    let reader = visit(&world.sessions, &old);
    let token = reader.csrf_token().unwrap();
    world.sessions.update(&old, |count| *count = 5).unwrap().unwrap();
    let new = *world.sessions.commit(reader).unwrap().id().unwrap();
    assert!(new != old && visit(&world.sessions, &new).verify_csrf(&token));
    assert_eq!((value(&world, &new), read(&world.sessions, &new)), (Some(5), new));
}

#[test]
fn parallel_change_is_stored_or_reported() {
    for is_change_first in [true, false] {
        let (world, old) = due();
        let (reader, mut writer) = (visit(&world.sessions, &old), visit(&world.sessions, &old));
        *writer = 5;
        let commit = |session| world.sessions.commit(session).unwrap();
        if is_change_first {
            let (writer, reader) = (commit(writer), commit(reader));
            assert_eq!((writer.outcome(), reader.outcome()), (Outcome::Stored, Outcome::Unchanged));
            assert_eq!(value(&world, writer.id().unwrap()), Some(5));
        } else {
            let (reader, writer) = (commit(reader), commit(writer));
            assert_eq!((reader.outcome(), writer.outcome()), (Outcome::Stored, Outcome::Detached));
            assert!(writer.outcome().is_lost() && set_cookie(&writer).is_none());
            assert_eq!(value(&world, reader.id().unwrap()), Some(1));
        }
        assert_eq!(world.count(), 1, "the visitor is signed in");
    }
}

/// A deploy lowers the limit and changes a timeout.
#[test]
fn read_of_too_large_session_succeeds() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let manager = || SessionManager::<String>::builder(store.clone()).clock(clock.clone());
    let before = manager().build().unwrap();
    let mut session = before.fresh();
    *session = "x".repeat(1000);
    let id = *before.commit(session).unwrap().id().unwrap();
    clock.advance(EVERY + MILLISECOND);
    for after in [manager().idle_timeout(HOUR), manager().renew_every(EVERY)] {
        let after = after.max_payload(500).build().unwrap();
        let committed = after.commit(after.open([&*cookie(&id)]).unwrap()).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
    }
}

#[derive(Default, Deserialize, Serialize)]
struct Old {
    count: u32,
}

#[derive(Default, Deserialize, Serialize)]
struct New {
    count: u32,
    #[serde(default)]
    role: String,
}

/// The old and the new version of a program share sessions during a deploy, and the old one has other settings.
#[test]
fn read_by_old_version_keeps_new_fields() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let new = SessionManager::<New>::builder(store.clone()).clock(clock.clone()).remember_for(48 * HOUR);
    let new = new.idle_timeout(2 * HOUR).build().unwrap();
    let mut session = new.fresh();
    session.role = "editor".to_owned();
    session.remember(true);
    let id = *new.commit(session).unwrap().id().unwrap();
    clock.advance(EVERY + MILLISECOND);
    let old = || SessionManager::<Old>::builder(store.clone()).clock(clock.clone());
    for old in
        [old().idle_timeout(HOUR), old().renew_every(EVERY), old().remember_for(EVERY * 3 / 2).idle_timeout(HOUR)]
    {
        let old = old.build().unwrap();
        let session = old.open([&*cookie(&id)]).unwrap();
        let token = session.csrf_token().unwrap();
        assert_eq!(old.commit(session).unwrap().outcome(), Outcome::Unchanged);
        let session = new.open([&*cookie(&id)]).unwrap();
        assert!(session.role == "editor" && session.verify_csrf(&token));
    }
    // A change of the old version drops them, as the guide says.
    let old = old().build().unwrap();
    let mut session = old.open([&*cookie(&id)]).unwrap();
    session.count += 1;
    assert_eq!(old.commit(session).unwrap().outcome(), Outcome::Stored);
    assert_eq!(new.open([&*cookie(&id)]).unwrap().role, "");
}
