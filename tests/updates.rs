//! No acknowledged update is lost, even if requests change, renew or end one session at the same time.

mod support;

use std::collections::BTreeMap;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Monitor, RedisServer, shared, unique};
use threaded_sessions::store::{Found, Touch};
use threaded_sessions::{
    Clock, ErrorKind, MemorySessionStore, OnConflict, Outcome, RedisSessionStore, SessionId, SessionManager,
    SessionStore,
};

type Fields = BTreeMap<String, u64>;

fn on_each_store(test: impl Fn(Box<dyn Fn() -> Box<dyn SessionStore>>)) {
    test(Box::new(|| Box::new(MemorySessionStore::new())));
    for expiring in [false, true] {
        let builder = move || {
            let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("updates"));
            let builder = if expiring { builder.expiring() } else { builder };
            Box::new(builder.build().unwrap()) as Box<dyn SessionStore>
        };
        test(Box::new(builder));
    }
}

fn manager<T: Serialize + for<'de> Deserialize<'de> + 'static>(
    store: Box<dyn SessionStore>,
    policy: OnConflict,
) -> SessionManager<T> {
    let store: std::sync::Arc<dyn SessionStore> = store.into();
    SessionManager::builder(store).on_conflict(policy).build().unwrap()
}

fn stored<T: Default + 'static>(sessions: &SessionManager<T>, value: T) -> SessionId {
    let mut session = sessions.fresh();
    *session = value;
    session.renew();
    *sessions.commit(session).unwrap().id().unwrap()
}

/// Runs `act` in 8 threads at once, 100 times each.
fn in_parallel(act: impl Fn(usize, usize) + Sync) {
    let (act, start) = (&act, &Barrier::new(8));
    thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                start.wait();
                (0..100).for_each(|round| act(thread, round));
            });
        }
    });
}

/// Returns `true` if a change was acknowledged. The only permitted error is too much contention.
fn is_kept<C>(result: Result<C, threaded_sessions::Error>) -> bool {
    result.map_err(|error| assert_eq!(error.kind(), ErrorKind::Conflict, "{error}")).is_ok()
}

#[test]
fn merge_keeps_every_acknowledged_field() {
    on_each_store(|store| {
        let sessions = manager::<Fields>(store(), OnConflict::Merge);
        let id = stored(&sessions, Fields::new());
        let kept = Mutex::new(Vec::new());
        in_parallel(|thread, round| {
            let (mut session, field) = (sessions.open_id(&id).unwrap().unwrap(), format!("{thread}/{round}"));
            session.insert(field.clone(), 1);
            if is_kept(sessions.commit(session)) {
                kept.lock().unwrap().push(field);
            }
        });
        let mut kept = kept.into_inner().unwrap();
        kept.sort();
        assert!(!kept.is_empty());
        assert!(sessions.open_id(&id).unwrap().unwrap().keys().eq(&kept));
    });
}

#[test]
fn update_counts_exactly() {
    on_each_store(|store| {
        let sessions = manager::<u64>(store(), OnConflict::Merge);
        let id = stored(&sessions, 0);
        let kept = AtomicU64::new(0);
        in_parallel(|_, _| {
            let updated = sessions.update(&id, |count| *count += 1);
            kept.fetch_add(u64::from(is_kept(updated.map(|found| found.unwrap()))), Ordering::Relaxed);
        });
        assert_eq!(*sessions.open_id(&id).unwrap().unwrap(), kept.into_inner());
    });
}

#[test]
fn fail_policy_counts_exactly_the_acknowledged_changes() {
    on_each_store(|store| {
        let sessions = manager::<u64>(store(), OnConflict::Fail);
        let id = stored(&sessions, 0);
        let kept = AtomicU64::new(0);
        in_parallel(|_, _| {
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            *session += 1;
            kept.fetch_add(u64::from(is_kept(sessions.commit(session))), Ordering::Relaxed);
        });
        assert_eq!(*sessions.open_id(&id).unwrap().unwrap(), kept.into_inner());
    });
}

#[test]
fn last_write_wins_if_configured() {
    on_each_store(|store| {
        let sessions = manager::<Fields>(store(), OnConflict::LastWriteWins);
        let id = stored(&sessions, Fields::new());
        let (mut first, mut second) =
            (sessions.open_id(&id).unwrap().unwrap(), sessions.open_id(&id).unwrap().unwrap());
        first.insert("first".into(), 1);
        second.insert("second".into(), 2);
        assert_eq!(sessions.commit(first).unwrap().outcome(), Outcome::Stored);
        assert_eq!(sessions.commit(second).unwrap().outcome(), Outcome::Stored);
        assert_eq!(sessions.open_id(&id).unwrap().unwrap().keys().collect::<Vec<_>>(), ["second"]);
    });
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Shop {
    user: Option<String>,
    cart: Vec<String>,
    hits: u64,
}

#[test]
fn update_in_keeps_earlier_changes_of_handler() {
    on_each_store(|store| {
        let sessions = manager::<Shop>(store(), OnConflict::Merge);
        let id = stored(&sessions, Shop::default());
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.user = Some("ada".into());
        for _ in 0..3 {
            sessions.update(&id, |shop| shop.hits += 1).unwrap();
        }
        let hits = sessions.update_in(&mut session, |shop| {
            shop.hits += 1;
            shop.hits
        });
        assert_eq!(hits.unwrap(), Some(4));
        assert_eq!((session.user.as_deref(), session.hits), (Some("ada"), 4));
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
        let shop = sessions.open_id(&id).unwrap().unwrap();
        assert_eq!((shop.user.as_deref(), shop.hits), (Some("ada"), 4));
    });
}

#[test]
fn update_in_ended_session_changes_nothing() {
    on_each_store(|store| {
        let sessions = manager::<u64>(store(), OnConflict::Merge);
        let id = stored(&sessions, 7);
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        assert!(sessions.store().delete(&id).unwrap());
        assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), None);
        assert_eq!(*session, 7);
        assert_eq!(sessions.update(&id, |count| *count += 1).unwrap(), None);
        assert!(sessions.open_id(&id).unwrap().is_none());

        let mut session = sessions.fresh();
        session.destroy();
        assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), None);
    });
}

#[test]
fn update_in_new_session_gives_cookie_at_commit() {
    on_each_store(|store| {
        let sessions = manager::<u64>(store(), OnConflict::Merge);
        let mut session = sessions.fresh();
        session.remember(true);
        assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), Some(()));
        assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), Some(()));
        let committed = sessions.commit(session).unwrap();
        assert_eq!(committed.outcome(), Outcome::Unchanged);
        let cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap();
        assert!(cookie.1.contains("Max-Age="));
        assert_eq!(*sessions.open_id(committed.id().unwrap()).unwrap().unwrap(), 2);
    });
}

#[test]
fn unmergeable_conflict_is_an_error() {
    let sessions = manager::<u64>(Box::new(MemorySessionStore::new()), OnConflict::Merge);
    let id = stored(&sessions, 0);
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    *session += 1;
    sessions.update(&id, |count| *count += 10).unwrap();
    assert_eq!(sessions.commit(session).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(*sessions.open_id(&id).unwrap().unwrap(), 10);
}

#[test]
fn renewal_keeps_changes_committed_before() {
    on_each_store(|store| {
        let sessions = manager::<Shop>(store(), OnConflict::Merge);
        let id = stored(&sessions, Shop::default());
        let mut login = sessions.open_id(&id).unwrap().unwrap();
        sessions.update(&id, |shop| shop.cart.push("tea".into())).unwrap();
        login.user = Some("ada".into());
        login.renew();
        let committed = sessions.commit(login).unwrap();
        let shop = sessions.open_id(committed.id().unwrap()).unwrap().unwrap();
        assert_eq!(*shop, Shop { user: Some("ada".into()), cart: vec!["tea".into()], hits: 0 });
    });
}

#[test]
fn restarted_lifetime_is_merged_like_other_changes() {
    on_each_store(|store| {
        let (clock, store) = (Clock::manual(), std::sync::Arc::<dyn SessionStore>::from(store()));
        let sessions: SessionManager<Shop> = SessionManager::builder(store).clock(clock.clone()).build().unwrap();
        let id = stored(&sessions, Shop::default());
        let open = || sessions.open_id(&id).unwrap().unwrap();
        let commit = |session| assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);

        // Another request changed something else before the login was committed.
        clock.advance(Duration::from_secs(60));
        let (login, mut login_session, mut other) = (clock.now(), open(), open());
        login_session.restart_lifetime();
        other.hits += 1;
        commit(other);
        commit(login_session);
        assert_eq!((open().created(), open().hits), (login, 1));

        // The other way round: who does not restart it takes over that it was.
        let mut other = open();
        clock.advance(Duration::from_secs(60));
        let (again, mut login_session) = (clock.now(), open());
        login_session.restart_lifetime();
        other.hits += 1;
        commit(login_session);
        commit(other);
        assert_eq!((open().created(), open().hits), (again, 2));

        // And with an update in between.
        clock.advance(Duration::from_secs(60));
        let (last, mut login_session) = (clock.now(), open());
        login_session.restart_lifetime();
        sessions.update(&id, |shop| shop.hits += 1).unwrap();
        assert_eq!(sessions.update_in(&mut login_session, |shop| shop.hits += 1).unwrap(), Some(()));
        assert_eq!((open().created(), open().hits, login_session.created()), (last, 4, last));
    });
}

#[test]
fn without_interference_a_save_is_one_command() {
    let server = RedisServer::start();
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(server.url()).prefix(unique("wire"));
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        let sessions = SessionManager::<u64>::new(store);
        let id = stored(&sessions, 0);
        // The server knows the scripts from here on.
        sessions.update(&id, |count| *count += 1).unwrap();
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        let monitor = Monitor::start(&server);
        *session += 1;
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
        let names: Vec<String> = monitor.commands().into_iter().map(|command| command[0].clone()).collect();
        assert_eq!(names, ["EVALSHA"]);
    }
}

#[test]
fn storing_equal_value_makes_new_payload() {
    let store = std::sync::Arc::new(MemorySessionStore::new());
    let sessions = SessionManager::<Fields>::new(store.clone());
    let payload = |id: &SessionId| match store.read(id, Touch::No).unwrap() {
        Found::Live(stored) => stored.payload,
        other => panic!("it lives: {other:?}"),
    };
    let id = stored(&sessions, Fields::new());
    let mut payloads = vec![payload(&id)];

    // Marked before, within and after an update, with the same value all the time.
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.renew();
    assert_eq!(sessions.update_in(&mut session, |_| ()).unwrap(), Some(()));
    payloads.push(payload(session.id().unwrap()));
    assert_eq!(sessions.update_in(&mut session, |_| ()).unwrap(), Some(()));
    payloads.push(payload(session.id().unwrap()));
    session.renew();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    payloads.push(payload(&id));
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.renew();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    payloads.push(payload(&id));

    let different: std::collections::BTreeSet<_> = payloads.iter().collect();
    assert_eq!(different.len(), payloads.len());
}

/// A login before an update: the id that the visitor came with, perhaps a planted one, is never signed in.
mod pending_renewal {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use threaded_sessions::Session;

    use super::*;

    type Sessions = SessionManager<Shop>;

    fn on_each(test: impl Fn(&Sessions, SessionId)) {
        on_each_store(|store| {
            let sessions = manager::<Shop>(store(), OnConflict::Merge);
            let id = stored(&sessions, Shop::default());
            test(&sessions, id);
        });
    }

    fn is_signed_in(sessions: &Sessions, id: &SessionId) -> bool {
        sessions.open_id(id).unwrap().is_some_and(|session| session.user.is_some())
    }

    fn sign_in(shop: &mut Shop) {
        shop.user = Some("ada".into());
    }

    #[test]
    fn update_in_after_renew_moves_to_new_id() {
        type Act = fn(&Sessions, &mut Session<Shop>);
        let acts: [Act; 3] = [
            |sessions, session| {
                session.renew();
                assert_eq!(sessions.update_in(session, sign_in).unwrap(), Some(()));
            },
            |sessions, session| {
                session.renew();
                sign_in(session);
                assert_eq!(sessions.update_in(session, |shop| shop.hits += 1).unwrap(), Some(()));
            },
            |sessions, session| {
                sign_in(session);
                session.renew();
                assert_eq!(sessions.update_in(session, |shop| shop.hits += 1).unwrap(), Some(()));
                assert_eq!(sessions.update_in(session, |shop| shop.hits += 1).unwrap(), Some(()));
            },
        ];
        for act in acts {
            on_each(|sessions, planted| {
                let mut session = sessions.open_id(&planted).unwrap().unwrap();
                act(sessions, &mut session);
                let id = *session.id().unwrap();
                assert_ne!(id, planted);
                assert!(!is_signed_in(sessions, &planted) && is_signed_in(sessions, &id));
                let committed = sessions.commit(session).unwrap();
                assert_eq!(committed.id(), Some(&id), "it is renewed once");
                let cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap().1;
                assert!(cookie.contains(&id.expose()));
            });
        }
    }

    #[test]
    fn panic_after_renew_signs_no_planted_id_in() {
        on_each(|sessions, planted| {
            let mut session = sessions.open_id(&planted).unwrap().unwrap();
            session.renew();
            sign_in(&mut session);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                sessions.update_in(&mut session, |shop| {
                    shop.hits = 99;
                    panic!("in the middle of a change");
                })
            }));
            assert!(panicked.is_err());
            assert!(!is_signed_in(sessions, &planted));
            // The renewal is still pending.
            let committed = sessions.commit(session).unwrap();
            let id = *committed.id().unwrap();
            assert!(id != planted && is_signed_in(sessions, &id) && !is_signed_in(sessions, &planted));
            assert_eq!(sessions.open_id(&id).unwrap().unwrap().hits, 0);
        });
    }

    #[test]
    fn failed_update_in_keeps_renewal_pending() {
        on_each(|sessions, planted| {
            let mut session = sessions.open_id(&planted).unwrap().unwrap();
            session.renew();
            let too_large = |shop: &mut Shop| shop.user = Some("x".repeat(2 << 20));
            assert_eq!(sessions.update_in(&mut session, too_large).unwrap_err().kind(), ErrorKind::Payload);
            assert_eq!(session.id(), Some(&planted));
            sign_in(&mut session);
            let id = *sessions.commit(session).unwrap().id().unwrap();
            assert!(id != planted && is_signed_in(sessions, &id) && !is_signed_in(sessions, &planted));
        });
    }

    #[test]
    fn panic_in_update_in_restores_session() {
        on_each(|sessions, id| {
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            session.remember(true);
            session.hits = 5; // a change that is pending
            let before = (session.created(), *session.id().unwrap());
            // The closure panics at its second call, after another request stored a version with another theme.
            let mut calls = 0;
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                sessions.update_in(&mut session, |shop| {
                    calls += 1;
                    assert!(calls < 2, "in the middle of a change");
                    shop.hits = 99;
                    sessions.update(&id, sign_in).unwrap();
                })
            }));
            assert!(panicked.is_err());
            assert_eq!((session.created(), *session.id().unwrap()), before);
            assert!(session.hits == 5 && session.user.is_none() && session.is_remembered());
            assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
            let session = sessions.open_id(&id).unwrap().unwrap();
            assert!(session.hits == 5 && session.user.as_deref() == Some("ada") && session.is_remembered());
        });
    }

    #[test]
    fn panic_in_update_stores_nothing() {
        on_each(|sessions, id| {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                sessions.update(&id, |shop| {
                    shop.hits = 99;
                    panic!("in the middle of a change");
                })
            }));
            assert!(panicked.is_err());
            assert_eq!(sessions.open_id(&id).unwrap().unwrap().hits, 0);
        });
    }
}
