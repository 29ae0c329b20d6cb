//! A change is retried if its connection died after Redis applied it. The retry recognises the first attempt, and never reports a
//! change that another request made in between as a conflict.

mod support;

use std::thread;
use std::time::Duration;

use support::{Fault, PATIENCE, Proxy, eventually, shared, unique};
use threaded_sessions::store::{Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{Error, ErrorKind, OnConflict, RedisSessionStore, SessionId, SessionManager, SessionStore};

const HOUR: Duration = Duration::from_secs(3600);

struct Pair {
    proxy: Proxy,
    /// Over the proxy.
    store: RedisSessionStore,
    other: RedisSessionStore,
}

impl Pair {
    fn new(expiring: bool) -> Self {
        let (proxy, prefix) = (Proxy::start(shared()), unique("doubt"));
        let open = |url: String| {
            let builder = RedisSessionStore::builder().url(url).prefix(&prefix).deadline(PATIENCE);
            if expiring { builder.expiring() } else { builder }.build().unwrap()
        };
        let pair = Self { store: open(proxy.url()), other: open(shared().url()), proxy };
        // From here on the server knows the scripts.
        pair.other.check().unwrap();
        assert!(pair.store.read(&SessionId::random(), Touch::No).is_ok());
        pair
    }

    fn session(&self) -> (SessionId, Version) {
        let id = self.other.fresh_id(None);
        match self.other.create(&id, Write::new(b"start", HOUR)).unwrap() {
            Created::Stored(version) => (id, version),
            taken => panic!("{taken:?}"),
        }
    }

    fn put(&self, id: &SessionId, payload: &str) {
        assert!(matches!(self.other.save(id, Write::new(payload.as_bytes(), HOUR), None), Ok(Saved::Stored(_))));
    }

    fn payload(&self, id: &SessionId) -> Option<String> {
        match self.other.read(id, Touch::No).unwrap() {
            Found::Live(stored) => Some(String::from_utf8(stored.payload.to_vec()).unwrap()),
            _ => None,
        }
    }

    /// Runs `change`, loses its reply, and runs `meanwhile` before the retry.
    fn cut<A: Send>(
        &self,
        change: impl Fn(&RedisSessionStore) -> A + Sync,
        meanwhile: impl Fn(&RedisSessionStore),
    ) -> A {
        let fired = self.proxy.fired();
        // The new connection waits for the reply to its PING.
        self.proxy.set_once_then(Fault::CutAfterExecuted, Fault::Stall);
        thread::scope(|scope| {
            let changing = scope.spawn(|| change(&self.store));
            assert!(eventually(PATIENCE, || self.proxy.fired() > fired));
            meanwhile(&self.other);
            self.proxy.set(Fault::None);
            changing.join().unwrap()
        })
    }
}

fn on_both(test: impl Fn(Pair)) {
    [false, true].into_iter().for_each(|expiring| test(Pair::new(expiring)));
}

fn doubt<O: std::fmt::Debug>(result: Result<O, Error>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::MayHaveHappened);
}

#[test]
fn retried_save_finding_other_change_is_in_doubt() {
    on_both(|pair| {
        let (id, version) = pair.session();
        let save = |store: &RedisSessionStore| store.save(&id, Write::new(b"mine", HOUR), Some(&version));
        // On top of it, and without having seen it.
        doubt(pair.cut(save, |_| {
            assert_eq!(pair.payload(&id).as_deref(), Some("mine"));
            pair.put(&id, "theirs");
        }));
        assert_eq!(pair.payload(&id).as_deref(), Some("theirs"));
        // A conflict of the first attempt is one.
        assert!(matches!(save(&pair.store), Ok(Saved::Conflict(_))));
    });
}

#[test]
fn merge_and_update_stop_at_doubtful_save() {
    let pair = Pair::new(false);
    for policy in [OnConflict::Merge, OnConflict::Fail] {
        let manager = |store: &RedisSessionStore| {
            SessionManager::<[u64; 1]>::builder(store.clone()).on_conflict(policy).build().unwrap()
        };
        let (sessions, others) = (manager(&pair.store), manager(&pair.other));
        let mut session = others.fresh();
        session[0] = 1;
        let id = *others.commit(session).unwrap().id().unwrap();
        let count_on = |value: &mut [u64; 1]| value[0] += 1;
        let by_another = |_: &RedisSessionStore| assert!(others.update(&id, count_on).unwrap().is_some());
        // Its read passes unharmed.
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session[0] = 10;
        let session = std::sync::Mutex::new(Some(session));
        doubt(pair.cut(|_| sessions.commit(session.lock().unwrap().take().unwrap()), by_another));
        assert_eq!(others.open_id(&id).unwrap().unwrap()[0], 11, "nothing was done twice");
    }
}

#[test]
fn doubtful_creation_keeps_token_of_page() {
    let pair = Pair::new(false);
    let sessions = SessionManager::<u64>::new(pair.store.clone());
    let mut session = sessions.fresh();
    let token = session.csrf_token().unwrap();
    // The first attempt stores the session, and neither reply arrives.
    pair.proxy.set(Fault::CutAfterExecuted);
    doubt(sessions.update_in(&mut session, |value| *value += 1));
    pair.proxy.set(Fault::None);
    *session = 7;
    let committed = sessions.commit(session).unwrap();
    let stored = sessions.open_id(committed.id().unwrap()).unwrap().unwrap();
    assert_eq!((*stored, stored.verify_csrf(&token)), (7, true));
}

#[test]
fn retried_creation_finding_other_session_is_in_doubt() {
    on_both(|pair| {
        let id = pair.store.fresh_id(None);
        let create = |store: &RedisSessionStore| store.create(&id, Write::new(b"mine", HOUR));
        doubt(pair.cut(create, |_| pair.put(&id, "theirs")));
        assert!(matches!(create(&pair.store), Ok(Created::Taken)));
    });
}

#[test]
fn retried_renewal_is_recognised_and_revives_nothing() {
    on_both(|pair| {
        let ((old, version), new) = (pair.session(), pair.store.fresh_id(None));
        let rotate = |store: &RedisSessionStore| store.rotate(&old, &new, Write::new(b"mine", HOUR), Some(&version));
        assert!(matches!(pair.cut(rotate, |_| ()), Ok(Saved::Stored(_))));
        assert_eq!((pair.payload(&old), pair.payload(&new).as_deref()), (None, Some("mine")));

        let ((old, version), new) = (pair.session(), pair.store.fresh_id(None));
        let rotate = |store: &RedisSessionStore| store.rotate(&old, &new, Write::new(b"mine", HOUR), Some(&version));
        doubt(pair.cut(rotate, |_| pair.put(&new, "theirs")));
        assert_eq!((pair.payload(&old), pair.payload(&new).as_deref()), (None, Some("theirs")));

        let ((old, version), new) = (pair.session(), pair.store.fresh_id(None));
        let rotate = |store: &RedisSessionStore| store.rotate(&old, &new, Write::new(b"mine", HOUR), Some(&version));
        assert!(matches!(pair.cut(rotate, |other| assert!(other.delete(&new).unwrap())), Ok(Saved::Missing)));
        assert_eq!((pair.payload(&old), pair.payload(&new)), (None, None));
    });
}

#[test]
fn retried_save_or_deletion_revives_no_ended_session() {
    on_both(|pair| {
        let (id, version) = pair.session();
        let save = |store: &RedisSessionStore| store.save(&id, Write::new(b"mine", HOUR), Some(&version));
        assert!(matches!(pair.cut(save, |other| assert!(other.delete(&id).unwrap())), Ok(Saved::Missing)));
        assert_eq!(pair.payload(&id), None);

        let (id, _) = pair.session();
        assert!(!pair.cut(|store| store.delete(&id), |_| ()).unwrap(), "there was none any more");
        assert_eq!(pair.payload(&id), None);
    });
}

#[test]
fn retried_change_of_all_is_in_doubt() {
    let pair = Pair::new(true);
    let ((id, version), new) = (pair.session(), pair.store.fresh_id(None));
    let key = pair.other.walk().unwrap().next().unwrap().unwrap().keys.remove(0);
    let change_version =
        |store: &RedisSessionStore, version: &Version| store.save_key(&key, Write::new(b"mine", HOUR), version);
    // From here on the server knows the script.
    assert!(matches!(change_version(&pair.other, &Version::new(b"other")), Ok(Saved::Conflict(_))));
    let change = |store: &RedisSessionStore| change_version(store, &version);
    doubt(pair.cut(change, |other| {
        let (write, mine) = (Write::new(b"mine and theirs", HOUR), Version::new(b"mine"));
        assert!(matches!(other.rotate(&id, &new, write, Some(&mine)), Ok(Saved::Stored(_))));
    }));
    assert_eq!(pair.payload(&new).as_deref(), Some("mine and theirs"));
}

#[test]
fn retried_change_of_rotated_session_is_in_doubt() {
    on_both(|pair| {
        let ((id, version), [mid, new]) = (pair.session(), [(); 2].map(|()| pair.store.fresh_id(None)));
        // Another request reads the change, and takes it along to a new id.
        let take_along = |from: &SessionId, to: &SessionId| {
            let (write, mine) = (Write::new(b"mine and theirs", HOUR), Version::new(b"mine"));
            assert!(matches!(pair.other.rotate(from, to, write, Some(&mine)), Ok(Saved::Stored(_))));
        };
        let save = |expected: Option<Version>| {
            let write = Write::new(b"mine", HOUR);
            move |store: &RedisSessionStore| store.save(&id, write, expected.as_ref())
        };
        doubt(pair.cut(save(Some(version)), |_| take_along(&id, &mid)));
        assert_eq!(pair.payload(&mid).as_deref(), Some("mine and theirs"));

        let rotate = |store: &RedisSessionStore| store.rotate(&mid, &new, Write::new(b"mine", HOUR), None);
        let newest = pair.store.fresh_id(None);
        doubt(pair.cut(rotate, |_| take_along(&new, &newest)));
        assert_eq!(pair.payload(&newest).as_deref(), Some("mine and theirs"));

        let (id, _) = pair.session();
        let save = |store: &RedisSessionStore| store.save(&id, Write::new(b"mine", HOUR), None);
        let last = pair.store.fresh_id(None);
        doubt(pair.cut(save, |_| take_along(&id, &last)));
        assert_eq!(pair.payload(&last).as_deref(), Some("mine and theirs"));
    });
}
