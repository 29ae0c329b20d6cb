//! Index and sessions compared in both directions.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use threaded_sessions::{RedisSessionStore, SessionManager};

use super::*;

#[test]
fn verify_repairs_both_directions_and_counts_repairs() {
    for (partitions, hashed) in [(1, false), (1, true), (5, false), (5, true)] {
        let server = RedisServer::start();
        let builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).partitions(partitions);
        let builder = if hashed { builder.hashed_keys() } else { builder };
        let store = builder.expiring().build().unwrap();
        let sessions = idle_for(store.clone(), HOUR);
        // So many that neither keyspace nor index come in one step.
        let ids: Vec<SessionId> = (1..=1500).map(|value| create(&sessions, value)).collect();
        let indexes: Vec<String> = ask(&server, &["KEYS", "*index"]);
        assert_eq!(indexes.len(), partitions as usize);
        let all = || indexes.iter().flat_map(|index| entries(&server, index)).map(|(key, _)| key);
        let whole: BTreeSet<String> = all().collect();
        let zadd = |id, score: &str| {
            let index = indexes.iter().find(|index| is_entry(&server, index, &store.key(id))).expect("it is indexed");
            server.cmd(&["ZADD", index, score, &store.key(id)]);
        };
        let far = (now(&server) + HOUR_MILLIS * 3).to_string();

        let (unindexed, dataless, early, late, expired) =
            (&ids[..30], &ids[30..50], &ids[50..57], &ids[57..62], &ids[62..72]);
        early.iter().for_each(|id| zadd(id, "1"));
        late.iter().for_each(|id| zadd(id, &far));
        for id in expired {
            server.cmd(&["PEXPIRE", &store.key(id), &(GRACE - 1).to_string()]);
        }
        for id in unindexed.iter().chain(&expired[..4]) {
            for index in &indexes {
                server.cmd(&["ZREM", index, &store.key(id)]);
            }
        }
        for id in dataless {
            server.cmd(&["DEL", &store.key(id)]);
        }
        // Foreign keys: one that is not text, one with a number as its name, and some that resemble keys of sessions.
        redis::cmd("SET").arg(b"\xff\xfe").arg("x").exec(&mut server.connection()).unwrap();
        let id = ids[0].expose();
        let score: i64 = ask(&server, &["PEXPIRETIME", &store.key(&ids[100])]);
        let scores = (score - GRACE - 2..=score - GRACE + 2).map(|score| score.to_string());
        let keys =
            ["sessions:".to_owned(), format!("other:{id}"), format!("sessions:{id}:x"), format!("sessions:{{9}}:{id}")];
        let foreign: Vec<String> = keys.into_iter().chain(scores).collect();
        for key in &foreign {
            server.cmd(&["SET", key, "x", "PX", "1000000"]);
        }

        let verified = store.verify(Default::default()).unwrap();
        assert_eq!(
            (verified.added, verified.corrected, verified.dropped, verified.displaced),
            (30 + 4, 7 + 5 + 6, 20, 0),
            "{partitions}, {hashed}"
        );
        let dropped: BTreeSet<String> = dataless.iter().map(|id| store.key(id)).collect();
        assert_eq!(all().collect::<BTreeSet<_>>(), &whole - &dropped);
        assert_eq!(index(&store).count().unwrap(), 1500 - 20 - 10);
        // The reaper now finds the expired sessions.
        assert_eq!((0..partitions).map(|partition| reap_all(&store, partition)).sum::<u64>(), 10);
        for index in &indexes {
            assert_scores(&server, index, HOUR_MILLIS);
        }

        let verified = store.verify(Default::default()).unwrap();
        assert_eq!((verified.added, verified.corrected, verified.dropped, verified.displaced), (0, 0, 0, 0));
        let live = ids.iter().filter(|id| is_live(&store, id)).count();
        assert_eq!(live, 1500 - 20 - 10);
        assert!(foreign.iter().all(|key| ask::<u64>(&server, &["EXISTS", key]) == 1));
    }
}

fn is_entry(server: &RedisServer, index: &str, key: &str) -> bool {
    ask::<Option<f64>>(server, &["ZSCORE", index, key]).is_some()
}

#[test]
fn small_lag_is_fixed_but_not_counted() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    // A 64th is 56 s.
    for (lag, corrected) in [(0, 0), (40_000, 0), (70_000, 1), (-70_000, 1)] {
        server.cmd(&["FLUSHALL"]);
        let left = HOUR_MILLIS;
        let keys = load(&server, "sessions:", 0..1, left, left - lag);
        assert_eq!(store.verify(Default::default()).unwrap().corrected, corrected, "{lag}");
        let truth: i64 = ask(&server, &["PEXPIRETIME", &keys[0]]);
        let [(_, score)] = entries(&server, INDEX)[..] else { panic!("one entry") };
        assert!((truth - GRACE - score as i64).abs() < 1000, "{lag}");
    }
}

/// Sessions in this many partitions.
fn with_a_hundred(partitions: u32) -> (RedisServer, RedisSessionStore) {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", partitions);
    let sessions = idle_for(store.clone(), HOUR);
    for value in 1..=100 {
        create(&sessions, value);
    }
    (server, store)
}

#[test]
fn one_partition_clobbered_is_one_displaced() {
    let (server, store) = with_a_hundred(5);
    let lost: u64 = ask(&server, &["ZCARD", "sessions:{3}:index"]);
    server.cmd(&["SET", "sessions:{3}:index", "precious"]);
    let verified = store.verify(Default::default()).unwrap();
    assert_eq!((verified.displaced, verified.added, verified.dropped), (1, lost, 0));
    let aside: Vec<String> = ask(&server, &["KEYS", "sessions:{3}:index:clobbered:*"]);
    assert_eq!(ask::<String>(&server, &["GET", &aside[0]]), "precious");
    assert_eq!(index(&store).count().unwrap(), 100);
}

#[test]
fn concurrent_verify_displaces_each_key_once() {
    let (server, store) = with_a_hundred(16);
    for _ in 0..5 {
        let indexes: Vec<String> = ask(&server, &["KEYS", "sessions:*:index"]);
        let lists: Vec<String> = indexes.iter().map(|index| index.replace(":index", ":principals")).collect();
        for name in indexes.iter().chain(&lists) {
            server.cmd(&["SET", name, "something else"]);
        }
        let start = Barrier::new(2);
        let verify = || {
            start.wait();
            store.verify(Default::default()).unwrap().displaced
        };
        let displaced: u64 = thread::scope(|scope| {
            [scope.spawn(verify), scope.spawn(verify)].map(|thread| thread.join().unwrap()).into_iter().sum()
        });
        assert_eq!(displaced, 2 * indexes.len() as u64);
        assert_eq!(index(&store).count().unwrap(), 100);
        assert_eq!(store.check().unwrap(), []);
    }
}

/// Without an entry, a mapped key looks like a foreign key.
#[test]
fn mapped_keys_with_an_entry_are_verified() {
    let server = RedisServer::start();
    let builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring();
    let store = builder.key_mapper(|id| format!("mine/{}", id.expose())).build().unwrap();
    let sessions: SessionManager<u64> = idle_for(store.clone(), HOUR);
    let [known, unknown, dataless] = [1, 2, 3].map(|value| create(&sessions, value));
    server.cmd(&["ZADD", INDEX, "1", &store.key(&known)]);
    server.cmd(&["ZREM", INDEX, &store.key(&unknown)]);
    server.cmd(&["DEL", &store.key(&dataless)]);
    let notes = [known, dataless].map(|id| [":ended", ":renewed"].map(|suffix| store.key(&id) + suffix)).concat();
    notes.iter().for_each(|note| drop(server.cmd(&["SET", note, "destroyed"])));
    let verified = store.verify(Default::default()).unwrap();
    assert_eq!((verified.added, verified.corrected, verified.dropped), (0, 1, 1));
    assert_eq!(verified.tombstones_corrected, 4, "each note of an entry has a TTL now");
    assert!(notes.iter().all(|note| ask::<i64>(&server, &["PTTL", note]) > 0));
    assert_eq!(index(&store).count().unwrap(), 1);
    let mut session = sessions.open_id(&unknown).unwrap().expect("no session ends");
    *session = 4;
    let _ = sessions.commit(session).unwrap();
    assert_eq!(index(&store).count().unwrap(), 2);
}
