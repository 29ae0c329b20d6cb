//! Several requests of one visitor at once, and ids that are unknown or dead: no change is lost silently, and no dead id revives.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::thread;

use support::{PATIENCE, shared, unique};
use threaded_sessions::store::RENEWED_FOR;
use threaded_sessions::{
    Clock, Committed, ErrorKind, MemorySessionStore, OnConflict, Outcome, RedisSessionStore, Session, SessionId,
    SessionManager, SessionStore,
};

type Fields = BTreeMap<String, u32>;

struct Room {
    sessions: SessionManager<Fields>,
    store: Arc<dyn SessionStore>,
    /// Lets the time pass for which this id is known as renewed.
    forget_renewal: Box<dyn Fn(&SessionId)>,
}

fn on_every_store(test: impl Fn(&Room)) {
    let memory = || {
        let clock = Clock::manual();
        let store = MemorySessionStore::new().with_clock(clock.clone());
        room(store, Box::new(move |_| clock.advance(RENEWED_FOR)))
    };
    let redis = |expiring| {
        let builder = RedisSessionStore::builder().url(shared().url()).deadline(PATIENCE).prefix(unique("races"));
        let store = if expiring { builder.expiring().build() } else { builder.build() }.unwrap();
        let keys = store.clone();
        let forget = move |id: &SessionId| {
            let forgotten = shared().cmd(&["DEL", &format!("{}:renewed", keys.key(id))]);
            assert_eq!(forgotten, redis::Value::Int(1), "it was known as renewed");
        };
        room(store, Box::new(forget))
    };
    for room in [memory(), redis(false), redis(true)] {
        println!("on {:?}", room.store);
        test(&room);
    }
}

fn room(store: impl SessionStore, forget_renewal: Box<dyn Fn(&SessionId)>) -> Room {
    let store: Arc<dyn SessionStore> = Arc::new(store);
    Room { sessions: SessionManager::new(store.clone()), store, forget_renewal }
}

impl Room {
    fn with(&self, on_conflict: OnConflict) -> SessionManager<Fields> {
        SessionManager::builder(self.store.clone()).on_conflict(on_conflict).build().unwrap()
    }

    /// A session of these fields.
    fn session(&self, value: &[(&str, u32)]) -> SessionId {
        let mut session = self.sessions.fresh();
        *session = fields(value);
        stored(self.sessions.commit(session).unwrap())
    }

    /// Opens the session of a request with this id in its cookie.
    fn open(&self, id: &SessionId) -> Session<Fields> {
        self.sessions.open([&*format!("__Host-session={}", id.expose())]).unwrap()
    }

    fn renew(&self, id: &SessionId) -> SessionId {
        let mut session = self.open(id);
        session.renew();
        stored(self.sessions.commit(session).unwrap())
    }

    fn destroy(&self, id: &SessionId) {
        let mut session = self.open(id);
        session.destroy();
        assert_eq!(self.sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
    }

    fn value(&self, id: &SessionId) -> Option<Fields> {
        self.sessions.open_id(id).unwrap().map(|session| session.clone())
    }
}

fn fields(value: &[(&str, u32)]) -> Fields {
    value.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
}

#[track_caller]
fn stored(committed: Committed) -> SessionId {
    assert_eq!(committed.outcome(), Outcome::Stored);
    *committed.id().expect("it is stored")
}

fn set_cookie(committed: &Committed) -> Option<&str> {
    committed.headers().find(|(name, _)| *name == "Set-Cookie").map(|(_, value)| value)
}

/// Nothing was stored, and the visitor keeps the cookie he has.
#[track_caller]
fn assert_left_alone(committed: &Committed, outcome: Outcome) {
    assert_eq!((committed.outcome(), committed.id(), set_cookie(committed)), (outcome, None, None));
    assert_eq!(outcome.is_lost(), outcome != Outcome::Unchanged);
}

/// Asserts that the session is stored under a new id, and that the visitor gets this id.
#[track_caller]
fn assert_begun(committed: Committed, dead: &SessionId) -> SessionId {
    let cookie = set_cookie(&committed).expect("the visitor gets the id").to_owned();
    let id = stored(committed);
    assert_ne!(id, *dead);
    assert!(cookie.starts_with(&format!("__Host-session={};", id.expose())));
    id
}

type Act = fn(&mut Session<Fields>);

/// Everything a request can do to its session.
const ACTS: [(&str, Act); 4] = [
    ("look", |_| ()),
    ("change", |session| session.extend(fields(&[("late", 1)]))),
    ("renew", |session| session.renew()),
    ("destroy", |session| session.destroy()),
];

#[test]
fn foreign_ids_are_never_adopted() {
    on_every_store(|room| {
        let made_up = SessionId::random();
        let destroyed = room.session(&[("a", 1)]);
        room.destroy(&destroyed);
        let renewed = room.session(&[("a", 1)]);
        let lives = room.renew(&renewed);
        (room.forget_renewal)(&renewed);
        for dead in [made_up, destroyed, renewed] {
            for (name, act) in ACTS {
                let mut session = room.open(&dead);
                assert!(session.is_new() && session.id().is_none() && session.is_empty(), "{name}");
                act(&mut session);
                let committed = room.sessions.commit(session).unwrap();
                match name {
                    "change" | "renew" => drop(assert_begun(committed, &dead)),
                    // Nor is its cookie cleared.
                    _ => assert_left_alone(&committed, Outcome::Unchanged),
                }
                assert_eq!(room.value(&dead), None, "{name}");
            }
        }
        assert_eq!(room.value(&lives), Some(fields(&[("a", 1)])));
    });
}

#[test]
fn request_racing_renewal_stores_nothing_and_keeps_cookie() {
    on_every_store(|room| {
        for opened_before in [true, false] {
            for (name, act) in ACTS {
                let old = room.session(&[("a", 1)]);
                let before = room.open(&old);
                let new = room.renew(&old);
                let mut late = if opened_before { before } else { room.open(&old) };
                assert_eq!((late.is_detached(), late.is_new()), (!opened_before, false));
                assert_eq!(late.is_empty(), !opened_before, "a detached session shows nothing of the renewed one");
                act(&mut late);
                let committed = room.sessions.commit(late).unwrap();
                match (opened_before, name) {
                    (true, "look") => {
                        assert_eq!((committed.outcome(), set_cookie(&committed)), (Outcome::Unchanged, None));
                    }
                    (false, "look") => assert_left_alone(&committed, Outcome::Unchanged),
                    // A login whose response was lost, so that the visitor repeats it with the old id.
                    (false, "renew") => {
                        let begun = assert_begun(committed, &old);
                        assert_ne!(begun, new);
                        assert_eq!(room.value(&begun), Some(fields(&[])));
                    }
                    _ => assert_left_alone(&committed, Outcome::Detached),
                }
                assert_eq!(room.value(&old), None, "{name}");
                assert_eq!(room.value(&new), Some(fields(&[("a", 1)])), "{name}");
            }
        }
    });
}

#[test]
fn a_slow_request_after_logout_stores_nothing() {
    on_every_store(|room| {
        for (name, act) in ACTS {
            let id = room.session(&[("a", 1)]);
            let mut slow = room.open(&id);
            room.destroy(&id);
            act(&mut slow);
            let committed = room.sessions.commit(slow).unwrap();
            match name {
                "look" => assert_eq!((committed.outcome(), set_cookie(&committed)), (Outcome::Unchanged, None)),
                // A second logout.
                "destroy" => assert_eq!(committed.outcome(), Outcome::Destroyed),
                _ => assert_left_alone(&committed, Outcome::Dropped),
            }
            assert_eq!(room.value(&id), None, "{name}");
        }
    });
}

#[test]
fn concurrent_changes_follow_the_conflict_policy() {
    let base = [("a", 1), ("b", 1), ("c", 1)];
    let cases = [
        (OnConflict::Merge, Ok(fields(&[("a", 2), ("b", 2), ("d", 2)]))),
        (OnConflict::LastWriteWins, Ok(fields(&[("a", 1), ("b", 2), ("d", 2)]))),
        (OnConflict::Fail, Err(fields(&[("a", 2), ("b", 1), ("c", 1)]))),
    ];
    on_every_store(|room| {
        for (on_conflict, expected) in &cases {
            for renews in [false, true] {
                let id = room.session(&base);
                let sessions = room.with(*on_conflict);
                let mut first = room.open(&id);
                let mut second = sessions.open_id(&id).unwrap().unwrap();
                first.insert("a".to_owned(), 2);
                second.extend(fields(&[("b", 2), ("d", 2)]));
                second.remove("c");
                if renews {
                    second.renew();
                }
                assert_eq!(stored(room.sessions.commit(first).unwrap()), id);
                // The renewal keeps all changes that were committed before.
                match (sessions.commit(second), expected) {
                    (Ok(committed), Ok(expected)) => {
                        let now = stored(committed);
                        assert_eq!(now != id, renews);
                        assert_eq!(room.value(&now).as_ref(), Some(expected), "{on_conflict:?}");
                    }
                    (Err(error), Err(expected)) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict);
                        assert_eq!(room.value(&id).as_ref(), Some(expected), "{on_conflict:?}");
                    }
                    (result, _) => panic!("{on_conflict:?}: {result:?}"),
                }
            }
        }
    });
}

/// Eight requests each set a different field while another request ends, renews or only reads the session. The outcomes of the
/// commits describe the stored session exactly.
#[test]
fn parallel_commits_report_their_true_outcome() {
    const REQUESTS: usize = 8;
    on_every_store(|room| {
        for (name, act) in ACTS.into_iter().filter(|(name, _)| *name != "change").cycle().take(30) {
            let id = room.session(&[("a", 1)]);
            let opened: Vec<_> = (0..REQUESTS).map(|n| (format!("by {n}"), room.open(&id))).collect();
            let mut other = room.open(&id);
            act(&mut other);
            let (sessions, start) = (&room.sessions, &Barrier::new(REQUESTS + 1));
            let commit = |session| {
                start.wait();
                sessions.commit(session).unwrap()
            };
            let (other, mut done) = thread::scope(|scope| {
                let change = |(field, mut session): (String, Session<Fields>)| {
                    session.insert(field.clone(), 1);
                    scope.spawn(move || (field, commit(session)))
                };
                let running: Vec<_> = opened.into_iter().map(change).collect();
                let other = commit(other);
                (other, running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
            });

            let lost = if name == "renew" { Outcome::Detached } else { Outcome::Dropped };
            done.retain(|(_, committed)| {
                assert_eq!(set_cookie(committed), None);
                let kept = committed.outcome() == Outcome::Stored;
                assert!(kept || committed.outcome() == lost, "{name}: {committed:?}");
                kept
            });
            let mut expected: Fields = done.into_iter().map(|(field, _)| (field, 1)).collect();
            expected.insert("a".to_owned(), 1);
            match name {
                "look" => {
                    assert_eq!(expected.len(), REQUESTS + 1);
                    assert_eq!(room.value(&id), Some(expected));
                }
                "renew" => assert_eq!(room.value(&assert_begun(other, &id)), Some(expected)),
                _ => assert_eq!(other.outcome(), Outcome::Destroyed),
            }
            assert_eq!(room.value(&id).is_some(), name == "look");
        }
    });
}
