//! Ending sessions of one principal or of all: no ended session comes back, and no foreign session ends.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use threaded_sessions::{ErrorKind, Handle, MemorySessionStore, Outcome, SessionId};

use crate::support::{PATIENCE, eventually};
use crate::{Room, at_once, in_each_room};

#[test]
fn principal_ends_only_own_sessions() {
    in_each_room(|room| {
        let (phone, laptop) = (room.login("ada", "phone"), room.login("ada", "laptop"));
        let bobs = room.login("bob", "phone");
        let handle = |id| room.sessions.handle(&room.open(id)).unwrap();
        for (who, which) in [("ada", handle(&bobs)), ("nobody", handle(&phone)), ("ada", Handle::of_key(b"made up"))] {
            assert!(!room.sessions.end(who, which).unwrap());
        }
        assert_eq!(room.sessions.end_others(&room.sessions.fresh()).unwrap(), 0);
        assert_eq!(room.sessions.end_others(&room.open(&laptop)).unwrap(), 1);
        assert_eq!([&phone, &laptop, &bobs].map(|id| room.lives(id)), [false, true, true]);

        // Before a login is committed its session is not among his yet.
        let mut login = room.sessions.fresh();
        login.bind("ada", "tablet");
        assert_eq!(room.sessions.end_others(&login).unwrap(), 1);
        room.store(login);
        assert_eq!(room.labels("ada"), ["tablet"]);
        assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
        assert_eq!(room.sessions.end_all("ada").unwrap(), 0);
        assert_eq!(room.labels("bob"), ["phone"]);
    });
}

/// One session, under the ids that it has one after the other.
struct Path {
    now: Mutex<SessionId>,
    ids: Mutex<Vec<SessionId>>,
    renewals: AtomicUsize,
}

/// Marks the end as over when dropped, also if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Of each session one thread renews and one saves, without a pause, when all end.
fn end_all_while_they_are_renewed_and_saved(room: &Room) {
    const SESSIONS: usize = 3;
    let paths: Vec<Path> = iter::repeat_with(|| {
        let id = room.login("ada", "phone");
        Path { now: Mutex::new(id), ids: Mutex::new(vec![id]), renewals: AtomicUsize::new(0) }
    })
    .take(SESSIONS)
    .collect();
    let (start, over) = (&Barrier::new(2 * SESSIONS + 1), &AtomicBool::new(false));
    let commit = &|session| match room.sessions.commit(session) {
        Ok(committed) => committed.id().copied(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "the other thread was faster for a whole second");
            None
        }
    };
    thread::scope(|scope| {
        for path in &paths {
            // After the end, the session of this request must not be found.
            let open = || {
                let late = over.load(Ordering::SeqCst);
                let id = *path.now.lock().unwrap();
                let session = room.sessions.open_id(&id).unwrap();
                assert!(!late || session.is_none(), "a request that starts after the end sees a session");
                (session, late)
            };
            scope.spawn(move || {
                start.wait();
                while let (Some(mut session), _) = open() {
                    session.renew();
                    if let Some(id) = commit(session) {
                        path.ids.lock().unwrap().push(id);
                        *path.now.lock().unwrap() = id;
                        path.renewals.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            scope.spawn(move || {
                start.wait();
                loop {
                    match open() {
                        (Some(mut session), _) => {
                            *session.entry("saves".into()).or_default() += 1;
                            commit(session);
                        }
                        (None, true) => break,
                        // Renewed a moment ago.
                        (None, false) => {}
                    }
                }
            });
        }
        let over = Over(over);
        start.wait();
        let renewals = |path: &Path| path.renewals.load(Ordering::SeqCst);
        assert!(eventually(PATIENCE, || {
            assert_eq!(room.labels("ada").len(), SESSIONS, "a list is never wrong in between");
            paths.iter().all(|path| renewals(path) >= 3)
        }));
        let ended = room.sessions.end_all("ada").unwrap();
        drop(over);
        assert_eq!(ended, SESSIONS as u64);
        assert_eq!(room.labels("ada"), [""; 0]);
    });
    for id in paths.iter().flat_map(|path| path.ids.lock().unwrap().clone()) {
        assert!(!room.lives(&id), "a session came back");
    }
    assert_eq!(room.labels("ada"), [""; 0]);
    assert_eq!(room.keys(), [""; 0]);
}

#[test]
fn ended_sessions_of_principal_never_come_back() {
    in_each_room(|room| (0..8).for_each(|_| end_all_while_they_are_renewed_and_saved(&room)));
}

#[test]
fn login_racing_end_all_is_ended_or_listed() {
    in_each_room(|room| {
        for _ in 0..10 {
            let logins = at_once(4, |n| match n {
                0 => room.sessions.end_all("ada").map(|_| None).unwrap(),
                _ => Some(room.login("ada", "phone")),
            });
            let live = logins.iter().flatten().filter(|id| room.lives(id)).count();
            assert_eq!(room.labels("ada").len(), live);
            assert_eq!(room.sessions.end_all("ada").unwrap(), live as u64);
            assert_eq!(room.keys(), [""; 0]);
        }
    });
}

#[test]
fn more_than_a_thousand_sessions_end_at_once() {
    const MANY: usize = 1100;
    for room in [Room::new(MemorySessionStore::new(), |all| all), Room::redis(|all| all, |all| all)] {
        let ids = at_once(4, |_| iter::repeat_with(|| room.login("ada", "script")).take(MANY / 4).collect::<Vec<_>>());
        let ids = ids.concat();
        let last = room.login("ada", "phone");
        assert_eq!(room.sessions.end_others(&room.open(&last)).unwrap(), MANY as u64);
        assert!(!ids.iter().any(|id| room.lives(id)));
        assert!(room.lives(&last));

        let again = iter::repeat_with(|| room.login("ada", "script")).take(MANY).collect::<Vec<_>>();
        assert_eq!(room.sessions.end_all("ada").unwrap(), MANY as u64 + 1);
        assert!(!again.iter().chain([&last]).any(|id| room.lives(id)));
        assert_eq!(room.keys(), [""; 0]);
    }
}

impl Room {
    /// A session without an owner.
    fn visit(&self) -> SessionId {
        let mut session = self.sessions.fresh();
        session.insert("visits".into(), 1);
        self.store(session)
    }

    #[track_caller]
    fn assert_empty(&self) {
        let index = self.sessions.store().index().unwrap();
        assert_eq!((index.count().unwrap(), index.page(0, 10).unwrap()), (0, vec![]));
        assert_eq!(self.labels("ada"), [""; 0]);
        assert_eq!(self.keys(), [""; 0]);
    }
}

#[test]
fn end_of_all_also_ends_open_sessions() {
    in_each_room(|room| {
        let ids = [room.login("ada", "phone"), room.login("ada", "laptop"), room.login("bob", "phone"), room.visit()];
        let old = room.login("ada", "tablet");
        let renewed = room.renew(&old);
        let (mut changed, mut renewing, unchanged) = (room.open(&ids[0]), room.open(&ids[1]), room.open(&ids[2]));
        assert_eq!(room.sessions.end_everybody().unwrap(), 5);
        assert!(!ids.iter().chain([&old, &renewed]).any(|id| room.lives(id)));
        room.assert_empty();

        changed.insert("late".into(), 1);
        renewing.renew();
        for session in [changed, renewing] {
            let committed = room.sessions.commit(session).unwrap();
            assert_eq!((committed.outcome(), committed.id()), (Outcome::Dropped, None));
        }
        assert_eq!(room.sessions.commit(unchanged).unwrap().outcome(), Outcome::Unchanged);
        room.assert_empty();
        assert_eq!(room.sessions.end_everybody().unwrap(), 0);
        let again = room.login("ada", "phone");
        assert!(room.lives(&again));
        room.destroy(&again);
    });
}

#[test]
fn end_of_all_spans_several_scripts() {
    in_each_room(|room| {
        let ids = at_once(4, |n| {
            let begin = || if n % 2 == 0 { room.login("ada", "script") } else { room.visit() };
            iter::repeat_with(begin).take(125).collect::<Vec<_>>()
        });
        assert_eq!(room.sessions.end_everybody().unwrap(), 500);
        assert!(!ids.concat().iter().any(|id| room.lives(id)));
        room.assert_empty();
    });
}

/// Some sessions are renewed, and others begin, without a pause.
fn end_all_during_renewals_and_logins(room: &Room) {
    const SESSIONS: usize = 4;
    let olds: Vec<SessionId> = iter::repeat_with(|| room.login("ada", "phone")).take(SESSIONS).collect();
    let (start, over, begun) = (&Barrier::new(SESSIONS + 2), &AtomicBool::new(false), &AtomicUsize::new(0));
    let ended = thread::scope(|scope| {
        let renewing: Vec<_> = olds
            .iter()
            .map(|&id| {
                scope.spawn(move || {
                    let mut id = id;
                    start.wait();
                    loop {
                        let late = over.load(Ordering::SeqCst);
                        let Some(mut session) = room.sessions.open_id(&id).unwrap() else { return };
                        assert!(!late, "a session lives that began before the end");
                        session.renew();
                        match room.sessions.commit(session).unwrap().id() {
                            Some(new) => id = *new,
                            None => return,
                        }
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            start.wait();
            while !over.load(Ordering::SeqCst) {
                room.visit();
                begun.fetch_add(1, Ordering::SeqCst);
            }
        });
        let over = Over(over);
        start.wait();
        assert!(eventually(PATIENCE, || begun.load(Ordering::SeqCst) > 20));
        let ended = room.sessions.end_everybody().unwrap();
        drop(over);
        renewing.into_iter().for_each(|thread| thread.join().unwrap());
        ended
    });
    let begun = begun.load(Ordering::SeqCst) as u64;
    assert_eq!(room.labels("ada"), [""; 0]);
    let rest = room.sessions.end_everybody().unwrap();
    assert_eq!(ended + rest, SESSIONS as u64 + begun);
    room.assert_empty();
}

#[test]
fn end_of_all_leaves_no_earlier_session() {
    in_each_room(|room| (0..4).for_each(|_| end_all_during_renewals_and_logins(&room)));
}

/// The message of a logout survives, and the principal has no session left.
#[test]
fn reset_takes_the_session_from_its_owner() {
    in_each_room(|room| {
        let (old, kept) = (room.login("ada", "laptop"), room.login("ada", "phone"));
        let mut session = room.open(&old);
        session.insert("cart".into(), 1);
        let old = room.store(session);
        let mut session = room.open(&old);
        session.reset();
        session.insert("message".into(), 1);
        let new = room.store(session);

        assert!(!room.lives(&old) && room.lives(&kept));
        let session = room.open(&new);
        assert_eq!((session.principal(), session.keys().map(String::as_str).collect()), (None, vec!["message"]));
        assert_eq!(room.labels("ada"), ["phone"]);
        assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
        assert!(room.lives(&new) && !room.lives(&kept));
    });
}

/// Another request changes, moves or ends the session between the read and the reset.
#[test]
fn reset_ends_leftover_of_another_request() {
    in_each_room(|room| {
        for rebinds in [false, true] {
            let id = room.login("ada", "laptop");
            let mut reset = room.open(&id);
            let mut other = room.open(&id);
            other.insert("late".into(), 1);
            if rebinds {
                other.bind("eve", "tablet");
            }
            room.store(other);
            reset.reset();
            reset.bind("bob", "desk");
            let new = room.open(&room.store(reset));
            assert!(new.is_empty() && new.principal() == Some("bob") && !room.lives(&id));
            assert_eq!((room.labels("ada").len(), room.labels("eve").len(), room.labels("bob").len()), (0, 0, 1));
            room.destroy(new.id().unwrap());
        }
        let id = room.login("ada", "laptop");
        let (mut late, mut reset) = (room.open(&id), room.open(&id));
        room.destroy(&id);
        reset.reset();
        let new = room.store(reset);
        assert_eq!(room.open(&new).principal(), None);
        late.insert("late".into(), 1);
        assert_eq!(room.sessions.commit(late).unwrap().outcome(), Outcome::Dropped);

        let id = room.login("ada", "laptop");
        let mut reset = room.open(&id);
        let renewed = room.renew(&id);
        reset.reset();
        let committed = room.sessions.commit(reset).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Detached, None));
        assert!(room.lives(&renewed) && !committed.headers().any(|(name, _)| name == "Set-Cookie"));
    });
}
