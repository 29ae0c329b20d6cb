//! Companions and tombstones of sessions: `verify` checks them, and no later session of the same id inherits them.

use std::ops::ControlFlow;

use threaded_sessions::store::{Bind, Companion, Progress, Verified, VerifyOptions};

use super::*;

/// A store whose sessions have two companions.
fn with_companions(server: &RedisServer, is_expiring: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE);
    let mut store = if is_expiring { builder.expiring() } else { builder }.build().unwrap();
    store.keep_companions(&["device".to_owned(), "seen".to_owned()]).unwrap();
    store
}

fn both() -> [Companion; 2] {
    [Companion::new("device", "phone"), Companion::new("seen", "today")]
}

fn create_with(store: &RedisSessionStore, payload: &str, companions: &[Companion]) -> SessionId {
    let id = store.fresh_id(None);
    create_under(store, &id, payload, companions);
    id
}

#[track_caller]
fn create_under(store: &RedisSessionStore, id: &SessionId, payload: &str, companions: &[Companion]) {
    let write = Write::new(payload.as_bytes(), HOUR).with_companions(companions);
    assert!(matches!(store.create(id, write).unwrap(), Created::Stored(_)));
}

fn verify(store: &RedisSessionStore, dry_run: bool) -> Verified {
    index(store).verify(VerifyOptions::new().dry_run(dry_run)).unwrap()
}

/// The dry run finds the same as the verification, and after that there is nothing to find.
#[track_caller]
fn verify_thrice(store: &RedisSessionStore) -> Verified {
    let dry = verify(store, true);
    assert_eq!(verify(store, false), dry);
    let again = verify(store, false);
    assert_eq!(Verified::default(), {
        let mut clean = again;
        clean.kept_aside = 0;
        clean
    });
    dry
}

#[test]
fn verify_corrects_companions_and_drops_those_without_session() {
    let server = RedisServer::start();
    let store = with_companions(&server, true);
    let [healthy, early, for_ever, gone, expired] = [(); 5].map(|()| create_with(&store, "v", &both()));
    let device = |id| format!("{}:device", store.key(id));
    server.cmd(&["PEXPIRE", &device(&early), "1000000"]);
    server.cmd(&["PERSIST", &device(&for_ever)]);
    server.cmd(&["DEL", &store.key(&gone)]);
    server.cmd(&["PERSIST", &device(&gone)]);
    server.cmd(&["PEXPIRE", &store.key(&expired), &(GRACE - 1).to_string()]);

    let found = verify_thrice(&store);
    assert_eq!((found.companions_corrected, found.companions_dropped, found.dropped), (4, 2, 1));
    for id in [&healthy, &early, &for_ever, &expired] {
        let deadline: i64 = ask(&server, &["PEXPIRETIME", &store.key(id)]);
        assert_eq!(ask::<i64>(&server, &["PEXPIRETIME", &device(id)]), deadline);
    }
    assert_eq!(ask::<u64>(&server, &["EXISTS", &device(&gone)]), 0);
    for id in [&healthy, &early, &for_ever] {
        assert_eq!(store.companion(id, "device").unwrap().unwrap(), b"phone");
    }
}

#[test]
fn verify_displaces_companion_of_another_type() {
    let server = RedisServer::start();
    let store = with_companions(&server, true);
    let id = create_with(&store, "v", &both());
    let seen = format!("{}:seen", store.key(&id));
    server.cmd(&["DEL", &seen]);
    server.cmd(&["RPUSH", &seen, "another program's"]);
    assert_wrong_type(store.companion(&id, "seen"));
    assert_eq!(verify_thrice(&store).displaced, 1);
    assert_eq!(store.companion(&id, "seen").unwrap(), None);
    assert_eq!(store.companion(&id, "device").unwrap().unwrap(), b"phone");
    let aside: Vec<String> = ask(&server, &["KEYS", "*:clobbered:*"]);
    assert_eq!(ask::<Vec<String>>(&server, &["LRANGE", &aside[0], "0", "-1"]), ["another program's"]);
}

#[test]
fn verify_gives_tombstones_a_ttl() {
    let server = RedisServer::start();
    let store = with_companions(&server, true);
    let old = create_with(&store, "v", &both());
    let new = store.fresh_id(Some(&old));
    assert!(matches!(store.rotate(&old, &new, Write::new(b"w", HOUR), None).unwrap(), Saved::Stored(_)));
    let tombstone = format!("{}:renewed", store.key(&old));
    server.cmd(&["PERSIST", &tombstone]);
    assert_eq!(verify_thrice(&store).tombstones_corrected, 1);
    let left: i64 = ask(&server, &["PTTL", &tombstone]);
    assert!((1..=30_000).contains(&left), "{left}");
}

#[test]
fn verify_spares_lookalike_companions_of_other_programs() {
    let server = RedisServer::start();
    let store = with_companions(&server, true);
    let key = store.key(&SessionId::random());
    let companion = format!("{key}:seen");
    server.cmd(&["HSET", &key, ":user", "ada"]);
    server.cmd(&["SET", &companion, "1500000000000"]);
    server.cmd(&["SET", &format!("{key}:renewed"), "theirs"]);
    server.cmd(&["SET", "sessions:store", "of this store"]);
    server.cmd(&["ZADD", INDEX, "1", &key]);
    assert_eq!(verify_thrice(&store), {
        let mut found = Verified::default();
        found.dropped = 1;
        found
    });
    assert_eq!(ask::<u64>(&server, &["EXISTS", &key, &companion, &format!("{key}:renewed"), "sessions:store"]), 4);
    assert_eq!(ask::<i64>(&server, &["PTTL", &format!("{key}:renewed")]), -1);
}

#[test]
fn verify_reports_progress_step_by_step() {
    let server = RedisServer::start();
    let store = with_companions(&server, true);
    (0..450).for_each(|_| _ = create_with(&store, "v", &both()));
    server.cmd(&["DEL", INDEX]);
    let seen = std::cell::RefCell::new(Vec::new());
    let progress = |so_far: &Verified, progress: Progress| {
        seen.borrow_mut().push((so_far.added, progress));
        ControlFlow::Continue(())
    };
    let options = VerifyOptions::new().on_progress(&progress);
    assert_eq!(index(&store).verify(options).unwrap().added, 450);
    let (added, progress): (Vec<u64>, Vec<Progress>) = seen.into_inner().into_iter().unzip();
    assert!(added.len() > 3 && added.is_sorted() && added.last() == Some(&450), "{added:?}");
    assert!(progress.is_sorted_by_key(|progress| progress.done), "{progress:?}");
    let last = progress.last().unwrap();
    assert_eq!(last.done, last.total, "all keys, and the entries that were added");
}

/// The ways by which a session ends and its companions can stay.
const ENDS: [&str; 2] = ["expired", "dropped by Redis"];

fn end(server: &RedisServer, store: &RedisSessionStore, id: &SessionId, how: &str) {
    if how == "expired" {
        server.cmd(&["PEXPIRE", &store.key(id), &(GRACE - 1).to_string()]);
    } else {
        server.cmd(&["DEL", &store.key(id)]);
    }
}

#[test]
fn create_over_an_ended_session_takes_no_companion() {
    for how in ENDS {
        let server = RedisServer::start();
        let store = with_companions(&server, true);
        let id = create_with(&store, "before", &both());
        end(&server, &store, &id, how);
        create_under(&store, &id, "after", &[Companion::new("device", "laptop")]);
        assert_eq!(store.companion(&id, "device").unwrap().unwrap(), b"laptop", "{how}");
        assert_eq!(store.companion(&id, "seen").unwrap(), None, "{how}");
    }
}

#[test]
fn rotate_onto_ended_session_takes_nothing_over() {
    for how in ENDS {
        for (owner, its_owner) in [(None, Some("ada")), (Some("ada"), Some("ada")), (Some("bob"), Some("ada"))] {
            let server = RedisServer::start();
            let store = with_companions(&server, true);
            let bind = |owner: Option<&'static str>| match owner {
                Some(principal) => Bind::To { principal, cap: None },
                None => Bind::Keep,
            };
            let (old, new) = (store.fresh_id(None), store.fresh_id(None));
            let (only_device, both) = ([Companion::new("device", "laptop")], both());
            let write = Write::new(b"ended", HOUR).with_companions(&both).with_bind(bind(its_owner));
            assert!(matches!(store.create(&new, write).unwrap(), Created::Stored(_)));
            let write = Write::new(b"before", HOUR).with_companions(&only_device).with_bind(bind(owner));
            assert!(matches!(store.create(&old, write).unwrap(), Created::Stored(_)));
            end(&server, &store, &new, how);
            let rotated = store.rotate(&old, &new, Write::new(b"after", HOUR), None).unwrap();
            assert!(matches!(rotated, Saved::Stored(_)), "{rotated:?}");

            let listed = |principal| index(&store).list_by_principal(principal).unwrap().len();
            assert_eq!(listed("ada"), usize::from(owner == Some("ada")), "{how}, {owner:?}");
            assert_eq!(listed("bob"), usize::from(owner == Some("bob")), "{how}, {owner:?}");
            let owners: Vec<String> = ask(&server, &["HKEYS", "sessions:principals"]);
            let expected: Vec<String> = owner.iter().map(|_| store.key(&new)).collect();
            assert_eq!(owners, expected, "{how}, {owner:?}");
            assert_eq!(ask::<Vec<String>>(&server, &["KEYS", "sessions:principal:*"]).len(), expected.len());
            assert_eq!(store.companion(&new, "device").unwrap().unwrap(), b"laptop", "{how}, {owner:?}");
            assert_eq!(store.companion(&new, "seen").unwrap(), None, "{how}, {owner:?}");
        }
    }
}

/// In a plain store a companion can only be left if Redis dropped the session alone.
#[test]
fn plain_session_takes_no_companion_of_dropped_session() {
    let server = RedisServer::start();
    let store = with_companions(&server, false);
    let [dropped, also_dropped] = [(); 2].map(|()| create_with(&store, "before", &both()));
    let old = create_with(&store, "old", &[]);
    for id in [&dropped, &also_dropped] {
        server.cmd(&["DEL", &store.key(id)]);
    }
    create_under(&store, &dropped, "after", &[]);
    assert!(matches!(store.rotate(&old, &also_dropped, Write::new(b"new", HOUR), None).unwrap(), Saved::Stored(_)));
    for id in [&dropped, &also_dropped] {
        assert_eq!(store.companion(id, "device").unwrap(), None);
        assert_eq!(store.companion(id, "seen").unwrap(), None);
    }
}
