//! Counting and listing sessions by the index, without a scan of the keyspace.

use std::collections::BTreeSet;

use threaded_sessions::store::Entry;
use threaded_sessions::{Clock, Handle, MemorySessionStore, RedisSessionStore};

use super::*;

/// Stores twelve sessions: two that do not expire, one more a hour further away than the last, and one that `expire`
/// has expired. Returns the handles of the live sessions in order of their pages (the first two in any order).
fn fill(store: &dyn SessionStore, expire: impl Fn(&SessionId)) -> Vec<Handle> {
    let create = |ttl: Option<Duration>| {
        let id = store.fresh_id(None);
        assert!(matches!(store.create(&id, Write::new(b"v", ttl)).unwrap(), Created::Stored(_)));
        id
    };
    let hours = |hours| create(Some(HOUR * hours));
    let ids: Vec<SessionId> =
        [12, 3, 10, 5, 8, 7, 6, 9, 4].map(hours).into_iter().chain([create(None), create(None)]).collect();
    expire(&hours(2));
    // Deleted, renewed and touched sessions are where they belong.
    assert!(store.delete(&hours(11)).unwrap());
    let renewed = store.fresh_id(Some(&ids[0]));
    assert!(matches!(store.rotate(&ids[0], &renewed, Write::new(b"w", HOUR * 12), None).unwrap(), Saved::Stored(_)));
    let touched = hours(1);
    assert!(matches!(store.read(&touched, Touch::Set(HOUR * 11)).unwrap(), Found::Live(_)));
    [ids[9], ids[10], renewed, touched, ids[2], ids[7], ids[4], ids[5], ids[6], ids[3], ids[8], ids[1]]
        .map(|id| store.handle(&id))
        .to_vec()
}

fn check(store: &dyn SessionStore, expected: &[Handle]) {
    let index = store.index().unwrap();
    let page = |offset, limit| -> Vec<Entry> { index.page(offset, limit).unwrap() };
    let handles = |page: Vec<Entry>| page.into_iter().map(|entry| entry.handle).collect::<Vec<_>>();
    let all = page(0, 100);
    let times: Vec<_> = all.iter().map(|entry| entry.expires_in).collect();
    for (time, hours) in times[2..].iter().zip((3..=12).rev()) {
        let time = time.expect("it expires");
        assert!(time <= HOUR * hours && time > HOUR * (hours - 1), "{times:?}");
    }
    assert_eq!(times[..2], [None, None]);
    let all = handles(all);
    assert_eq!(all[..2].iter().collect::<BTreeSet<_>>(), expected[..2].iter().collect());
    assert_eq!(all[2..], expected[2..]);
    assert_eq!(index.count().unwrap(), 12);

    for (offset, limit) in [(0_usize, 1), (0, 12), (0, 13), (1, 3), (5, 100), (11, 1), (11, 2), (0, 0), (3, usize::MAX)]
    {
        let end = all.len().min(offset.saturating_add(limit));
        assert_eq!(handles(page(offset, limit)), all[offset..end], "{offset}, {limit}");
    }
    for offset in [12, 13, 1_000_000, usize::MAX - 100, usize::MAX] {
        assert_eq!(page(offset, 10), []);
        assert_eq!(page(offset, usize::MAX), []);
    }
}

#[test]
fn of_a_memory_store() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let expected = fill(&store, |id| {
        assert!(matches!(store.read(id, Touch::Set(Duration::from_millis(1))).unwrap(), Found::Live(_)));
        clock.advance(Duration::from_millis(1));
    });
    check(&store, &expected);
}

#[test]
fn of_an_expiring_store() {
    for (partitions, hashed) in [(1, false), (5, false), (5, true)] {
        let server = RedisServer::start();
        let builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).partitions(partitions);
        let builder = if hashed { builder.hashed_keys() } else { builder };
        let store = builder.expiring().build().unwrap();
        let expected = fill(&store, |id| {
            assert!(matches!(store.read(id, Touch::Set(Duration::from_millis(1))).unwrap(), Found::Live(_)));
            assert!(eventually(PATIENCE, || !is_live(&store, id)));
        });
        check(&store, &expected);
    }
}

#[test]
fn evicted_session_leaves_its_place_empty() {
    for partitions in [1, 5] {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", partitions);
        let sessions = idle_for(store.clone(), HOUR);
        let ids: Vec<SessionId> = (1..=20).map(|value| create(&sessions, value)).collect();
        for id in &ids[..5] {
            server.cmd(&["DEL", &store.key(id)]);
        }
        // The result is the same for sessions that have expired while the index still has them.
        for id in &ids[5..8] {
            server.cmd(&["PEXPIRE", &store.key(id), &(GRACE - 1).to_string()]);
        }
        assert_eq!(pages(&store, 3), ids[8..].iter().map(|id| store.handle(id)).collect::<BTreeSet<_>>());
    }
}

/// Entries that lag keep the place they have in the index, so that none is skipped from one page to the next.
#[test]
fn every_session_is_on_one_page_despite_damage() {
    for partitions in [1, 5] {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", partitions);
        let mut expected = BTreeSet::new();
        for partition in 0..partitions {
            let prefix = prefix_of(&store, partition);
            for at in 0..500 / partitions {
                let lag = i64::from(at * 7919 % 101) * 500;
                let keys = load(&server, &prefix, at..at + 1, HOUR_MILLIS, HOUR_MILLIS - lag);
                expected.insert(Handle::of_key(keys[0].as_bytes()));
            }
        }
        assert_eq!(pages(&store, 7), expected);
        assert_eq!(pages(&store, 450), expected);
    }
}

/// The sessions of all pages of so many, each seen once.
#[track_caller]
fn pages(store: &RedisSessionStore, limit: usize) -> BTreeSet<Handle> {
    let mut seen = BTreeSet::new();
    for offset in (0..index(store).count().unwrap() as usize).step_by(limit) {
        for entry in index(store).page(offset, limit).unwrap() {
            assert!(seen.insert(entry.handle), "on two pages");
        }
    }
    seen
}
