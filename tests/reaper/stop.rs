//! A busy reaper stops at once, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use threaded_sessions::{ExpiredSession, Reaper};

use super::reaping::Wrapped;
use super::*;

/// Ends a reaper either way. All that it could wait for by mistake takes longer than this: `PATIENCE`, hours, or until
/// the test continues.
#[track_caller]
fn assert_ends_at_once(end: fn(Reaper), reaper: Reaper) {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        end(reaper);
        let _ = sender.send(());
    });
    assert!(ended.recv_timeout(PATIENCE / 2).is_ok(), "it waits");
}

const EITHER_WAY: [fn(Reaper); 2] = [Reaper::stop, drop];

/// Held by the callback, and so let go of by the thread when it ends.
fn assert_thread_ends(token: &Arc<()>) {
    assert!(eventually(PATIENCE, || Arc::strong_count(token) == 1));
}

#[test]
fn sleeping_reaper_stops_at_once() {
    for end in EITHER_WAY {
        let (sessions, token) = (idle_for(MemorySessionStore::new(), HOUR), Arc::new(()));
        let held = token.clone();
        let reaper = sessions.reaper().resolution(HOUR * 5).on_expired(move |_| drop(held.clone())).start().unwrap();
        assert_eq!(reaper.reap_now().unwrap(), 0);
        assert_ends_at_once(end, reaper);
        assert_thread_ends(&token);
    }
}

#[test]
fn reaper_in_endless_backlog_stops_at_once() {
    for end in EITHER_WAY {
        for gentle in [true, false] {
            let batches = Arc::new(AtomicU64::new(0));
            let counted = batches.clone();
            let store = Wrapped::new(expiring(shared(), &unique("backlog"), 1), move |index, partition, limit, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut reaped = index.reap(partition, limit, false)?;
                reaped.backlog = 1;
                Ok(reaped)
            });
            let reaper = idle_for(store, HOUR).reaper().resolution(MILLISECOND).gentle(gentle).start().unwrap();
            assert!(eventually(PATIENCE, || batches.load(Ordering::Relaxed) > 10));
            assert_eq!(reaper.stats().rounds, 0);
            assert_ends_at_once(end, reaper);
            // The callback's place is taken by the store itself.
            assert!(eventually(PATIENCE, || Arc::strong_count(&batches) == 1));
        }
    }
}

#[test]
fn reaper_of_hanging_redis_stops_at_once() {
    for end in EITHER_WAY {
        let server = RedisServer::start();
        let token = Arc::new(());
        let ((asking, asked), (go_on, gate)) = (mpsc::channel(), mpsc::channel::<()>());
        let (gate, held) = (Mutex::new(gate), token.clone());
        // Its deadline for an operation is far away.
        let store = Wrapped::new(expiring(&server, "sessions", 1), move |index, partition, limit, payloads| {
            let _ = (asking.send(()), gate.lock().unwrap().recv(), &held);
            index.reap(partition, limit, payloads)
        });
        let sessions = idle_for(store, HOUR);
        create(&sessions, 1);
        let reaper = sessions.reaper().resolution(MILLISECOND).start().unwrap();
        drop(sessions);
        asked.recv_timeout(PATIENCE).unwrap();
        server.stop();
        drop(go_on);
        assert_ends_at_once(end, reaper);
        assert_eq!(Arc::strong_count(&token), 2, "the thread still waits for Redis");
        server.resume();
        assert_thread_ends(&token);
    }
}

#[test]
fn reaper_stopped_during_callback_finishes_its_batch() {
    for end in EITHER_WAY {
        let server = RedisServer::start();
        let token = Arc::new(());
        load(&server, "sessions:", 0..5, -1, -1);
        let ((entered, entries), (go_on, gate)) = (mpsc::channel(), mpsc::channel::<()>());
        let held = token.clone();
        let gated = move |session: ExpiredSession<u64>| {
            entered.send(session.data).unwrap();
            let _ = gate.recv();
            let _ = &held;
        };
        let sessions = idle_for(expiring(&server, "sessions", 1), HOUR);
        let reaper = sessions.reaper().resolution(MILLISECOND).batch(3).on_expired(gated).start().unwrap();
        entries.recv_timeout(PATIENCE).unwrap();
        assert_ends_at_once(end, reaper);
        drop(go_on);
        assert_eq!(entries.iter().collect::<Vec<u64>>(), [7, 7]);
        assert_thread_ends(&token);
        assert_eq!(ask::<u64>(&server, &["ZCARD", "sessions:index"]), 2);
    }
}

#[test]
fn reaper_stops_from_its_own_callback() {
    let server = RedisServer::start();
    load(&server, "sessions:", 0..2, -1, -1);
    let (slot, token) = (Arc::new(Mutex::new(None::<Reaper>)), Arc::new(()));
    let (own, held) = (slot.clone(), token.clone());
    let (sender, refused) = mpsc::channel();
    let stops_it = move |_| {
        let _ = &held;
        if let Some(reaper) = own.lock().unwrap().take() {
            sender.send(reaper.reap_now().unwrap_err().kind()).unwrap();
            reaper.stop();
        }
    };
    let reaper = idle_for(expiring(&server, "sessions", 1), HOUR).reaper().batch(1);
    // Locked, so that the callback finds the reaper.
    let mut own = slot.lock().unwrap();
    *own = Some(reaper.resolution(MILLISECOND).on_expired(stops_it).start().unwrap());
    drop(own);
    // To wait for itself it would wait for ever.
    assert_eq!(refused.recv_timeout(PATIENCE).unwrap(), ErrorKind::Unsupported);
    assert_thread_ends(&token);
    assert_eq!(ask::<u64>(&server, &["ZCARD", "sessions:index"]), 1);
}
