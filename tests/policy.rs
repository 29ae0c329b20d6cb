//! The decisions of a session manager, on a clock that the tests move.

#[path = "policy/anonymous.rs"]
mod anonymous;
#[path = "policy/cookies.rs"]
mod cookies;
#[cfg(target_os = "linux")]
#[path = "policy/jumps.rs"]
mod jumps;
#[path = "policy/lifetime.rs"]
mod lifetime;
#[path = "policy/marks.rs"]
mod marks;
#[path = "policy/memory.rs"]
mod memory;
#[path = "policy/peek.rs"]
mod peek;
#[path = "policy/remember.rs"]
mod remember;
#[path = "policy/renew_every.rs"]
mod renew_every;
mod support;
#[path = "policy/time.rs"]
mod time;
#[path = "policy/touch_every.rs"]
mod touch_every;

use std::cell::Cell;
use std::time::Duration;

use serde_json::json;
use threaded_sessions::codec::Envelope;
use threaded_sessions::store::{self, SessionStore};
use threaded_sessions::{
    Attributes, Clock, Committed, Error, ErrorKind, Handle, Json, MemorySessionStore, Outcome, RedisConnection,
    RedisConnectionManager, RedisPool, RedisSessionStore, RedisSessionStoreBuilder, RedisWarning, Session, SessionId,
    SessionManager, SessionManagerBuilder,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Sessions in memory, with a clock that store and manager share.
struct World {
    clock: Clock,
    store: MemorySessionStore,
    sessions: SessionManager<u32>,
}

fn world(settings: impl FnOnce(SessionManagerBuilder<u32>) -> SessionManagerBuilder<u32>) -> World {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::builder(store.clone()).clock(clock.clone());
    let sessions = settings(builder).build().expect("the settings are valid");
    World { clock, store, sessions }
}

impl World {
    /// Stores a session with the value 1.
    fn create(&self) -> SessionId {
        let mut session = self.sessions.fresh();
        *session = 1;
        *self.sessions.commit(session).unwrap().id().expect("it was stored")
    }

    fn open(&self, id: &SessionId) -> Session<u32> {
        self.sessions.open_id(id).unwrap().expect("the session lives")
    }

    fn lives(&self, id: &SessionId) -> bool {
        self.sessions.open_id(id).unwrap().is_some()
    }

    fn count(&self) -> u64 {
        self.store.index().unwrap().count().unwrap()
    }
}

fn header<'c>(committed: &'c Committed, wanted: &str) -> Option<&'c str> {
    let mut values = committed.headers().filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    let value = values.next();
    assert_eq!(values.next(), None, "there is one {wanted} at most");
    value
}

fn set_cookie(committed: &Committed) -> Option<&str> {
    header(committed, "Set-Cookie")
}

/// The cookie that a browser sends after this `Set-Cookie`.
fn cookie(set_cookie: &str) -> &str {
    set_cookie.split(';').next().unwrap()
}

#[test]
fn session_reports_its_origin() {
    let world = world(|builder| builder.idle_timeout(HOUR));
    let began = world.clock.now();
    let state = |session: &Session<u32>| (session.is_new(), session.is_detached(), session.id().is_some());
    const NEW: (bool, bool, bool) = (true, false, false);
    const STORED: (bool, bool, bool) = (false, false, true);
    const DETACHED: (bool, bool, bool) = (false, true, false);

    let mut session = world.sessions.open(None).unwrap();
    assert_eq!((state(&session), *session), (NEW, 0));
    assert_eq!((session.created(), session.expires_in(), session.is_remembered()), (began, None, false));
    assert_eq!(world.sessions.handle(&session), None);
    *session = 7;
    assert_eq!(state(&session), NEW, "until it is committed");
    let committed = world.sessions.commit(session).unwrap();
    let old = *committed.id().unwrap();
    let old_cookie = cookie(set_cookie(&committed).unwrap()).to_owned();

    world.clock.advance(MILLISECOND);
    let mut session = world.sessions.open([&*old_cookie]).unwrap();
    assert_eq!((state(&session), *session, session.id()), (STORED, 7, Some(&old)));
    assert_eq!((session.created(), session.expires_in()), (began, Some(HOUR)));
    assert_eq!(world.sessions.handle(&session), Some(world.store.handle(&old)));

    session.renew();
    let committed = world.sessions.commit(session).unwrap();
    let new = *committed.id().unwrap();
    let new_cookie = cookie(set_cookie(&committed).unwrap()).to_owned();
    let session = world.sessions.open([&*new_cookie]).unwrap();
    assert_eq!((state(&session), *session, session.created()), (STORED, 7, began), "created survives a renewal");
    let session = world.sessions.open([&*old_cookie]).unwrap();
    assert_eq!((state(&session), *session, session.created()), (DETACHED, 0, world.clock.now()));
    assert_eq!((session.expires_in(), world.sessions.handle(&session)), (None, None));
    assert!(world.sessions.open_id(&old).unwrap().is_none());

    world.clock.advance(store::RENEWED_FOR);
    assert_eq!(state(&world.sessions.open([&*old_cookie]).unwrap()), NEW, "no longer known as renewed");
    world.clock.advance(HOUR);
    assert_eq!(state(&world.sessions.open([&*new_cookie]).unwrap()), NEW, "it has expired");
    assert!(world.sessions.open_id(&new).unwrap().is_none());
}

#[test]
fn attributes_are_a_value_with_keys() {
    let sessions = SessionManager::<Attributes>::new(MemorySessionStore::new());
    let mut session = sessions.fresh();
    session.insert("name", "ada").unwrap();
    session.insert("cart", vec![(1, "tea"), (2, "milk")]).unwrap();
    session.insert("nothing", None::<u8>).unwrap();
    let id = *sessions.commit(session).unwrap().id().unwrap();

    // Two requests at once that touch different names.
    let (mut one, mut two) = (sessions.open_id(&id).unwrap().unwrap(), sessions.open_id(&id).unwrap().unwrap());
    assert_eq!(one.names().collect::<Vec<_>>(), ["cart", "name", "nothing"]);
    let values = [("cart", json!([[1, "tea"], [2, "milk"]])), ("name", json!("ada")), ("nothing", json!(null))];
    assert!(one.iter().eq(values.iter().map(|(name, value)| (*name, value))));
    assert_eq!((one.len(), one.is_empty()), (3, false));
    assert!(one.contains("nothing") && !one.contains("none"));
    assert_eq!(one.get::<String>("name").unwrap().as_deref(), Some("ada"));
    assert_eq!(one.get::<Option<u8>>("nothing").unwrap(), Some(None));
    assert_eq!(one.get::<u8>("none").unwrap(), None);
    assert!(one.remove("name") && !one.remove("none"));
    two.insert("visits", 1).unwrap();
    for session in [one, two] {
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    }
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    assert_eq!(session.names().collect::<Vec<_>>(), ["cart", "nothing", "visits"]);
    assert_eq!(session.get::<Vec<(u8, String)>>("cart").unwrap().unwrap()[1].1, "milk");

    assert_eq!(session.take::<String>("visits").unwrap_err().kind(), ErrorKind::Payload);
    assert_eq!((session.take::<u8>("visits").unwrap(), session.take::<u8>("visits").unwrap()), (Some(1), None));
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    assert_eq!(session.take::<u8>("visits").unwrap(), None);
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged, "there was nothing to take");

    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.clear();
    assert!(session.is_empty() && session.iter().next().is_none());
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    assert_eq!(sessions.open_id(&id).unwrap().unwrap().names().count(), 0, "an empty session is still one");
}

#[test]
fn shared_types_are_send_and_sync() {
    fn both<T: Send + Sync>() {}
    fn send<T: Send>() {}
    // A value that is not `Sync` does not infect the manager.
    both::<SessionManager<Cell<u32>>>();
    both::<SessionManagerBuilder<Cell<u32>>>();
    both::<Json<Cell<u32>>>();
    send::<Session<Cell<u32>>>();
    both::<Session<u32>>();
    send::<threaded_sessions::ReaperBuilder<Cell<u32>>>();
    both::<threaded_sessions::Reaper>();
    both::<threaded_sessions::ExpiredSession<u32>>();
    both::<MemorySessionStore>();
    both::<RedisSessionStore>();
    both::<RedisSessionStoreBuilder>();
    both::<RedisPool>();
    both::<RedisConnectionManager>();
    send::<RedisConnection>();
    both::<Box<dyn SessionStore>>();
    both::<(Attributes, Clock, Committed, Envelope<u32>, Error, Handle, Outcome, SessionId)>();
    both::<(store::Found, store::Created, store::Saved, store::Stored, store::Version, store::Health)>();
    both::<(store::Touch, store::Write<'_>, RedisWarning)>();
}
