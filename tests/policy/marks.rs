//! Marks on a session (changed, renew, discard, destroy): the strongest mark decides what a commit does.

use threaded_sessions::{OnConflict, Outcome, Session, SessionId};

use super::{World, set_cookie, world};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Value,
    Renew,
    Discard,
    Destroy,
}

/// Every order of every choice of marks.
fn every_order() -> Vec<Vec<Mark>> {
    let mut orders = vec![vec![]];
    let mut done = 0;
    while done < orders.len() {
        for mark in [Mark::Value, Mark::Renew, Mark::Discard, Mark::Destroy] {
            if !orders[done].contains(&mark) {
                orders.push([&orders[done][..], &[mark]].concat());
            }
        }
        done += 1;
    }
    assert_eq!(orders.len(), 65);
    orders
}

fn apply(session: &mut Session<u32>, marks: &[Mark]) {
    for mark in marks {
        match mark {
            Mark::Value => **session = 7,
            Mark::Renew => session.renew(),
            Mark::Discard => session.discard(),
            Mark::Destroy => session.destroy(),
        }
    }
}

/// The strongest mark decides: destroy, then discard, then renew, then a changed value.
fn strongest(marks: &[Mark]) -> Option<Mark> {
    [Mark::Destroy, Mark::Discard, Mark::Renew, Mark::Value].into_iter().find(|mark| marks.contains(mark))
}

fn value(world: &World, id: &SessionId) -> Option<u32> {
    world.sessions.open_id(id).unwrap().map(|session| *session)
}

#[test]
fn strongest_mark_decides_for_stored_session() {
    let world = world(|builder| builder);
    for marks in every_order() {
        let id = world.create();
        let mut session = world.open(&id);
        apply(&mut session, &marks);
        let committed = world.sessions.commit(session).unwrap();
        let (outcome, cookie) = (committed.outcome(), set_cookie(&committed).is_some());
        let changed = if marks.contains(&Mark::Value) { 7 } else { 1 };
        match strongest(&marks) {
            None | Some(Mark::Discard) => {
                assert_eq!((outcome, committed.id(), cookie), (Outcome::Unchanged, Some(&id), false), "{marks:?}");
                assert_eq!(value(&world, &id), Some(1), "{marks:?}");
            }
            Some(Mark::Value) => {
                assert_eq!((outcome, committed.id(), cookie), (Outcome::Stored, Some(&id), false), "{marks:?}");
                assert_eq!(value(&world, &id), Some(7), "{marks:?}");
            }
            Some(Mark::Renew) => {
                let new = *committed.id().expect("it has a new id");
                assert_eq!((outcome, new != id, cookie), (Outcome::Stored, true, true), "{marks:?}");
                assert_eq!((value(&world, &id), value(&world, &new)), (None, Some(changed)), "{marks:?}");
            }
            Some(Mark::Destroy) => {
                assert_eq!((outcome, committed.id(), cookie), (Outcome::Destroyed, None, true), "{marks:?}");
                assert_eq!(value(&world, &id), None, "{marks:?}");
            }
        }
    }
}

#[test]
fn only_value_or_renewal_stores_new_session() {
    for marks in every_order() {
        let world = world(|builder| builder);
        let mut session = world.sessions.fresh();
        apply(&mut session, &marks);
        let committed = world.sessions.commit(session).unwrap();
        let stored = matches!(strongest(&marks), Some(Mark::Value | Mark::Renew));
        let outcome = if stored { Outcome::Stored } else { Outcome::Unchanged };
        assert_eq!((committed.outcome(), committed.id().is_some()), (outcome, stored), "{marks:?}");
        assert_eq!((set_cookie(&committed).is_some(), world.count()), (stored, u64::from(stored)), "{marks:?}");
    }
}

#[test]
fn detached_session_stores_nothing_unless_renewed() {
    for marks in every_order() {
        let world = world(|builder| builder);
        let old = world.create();
        let mut session = world.open(&old);
        session.renew();
        let new = *world.sessions.commit(session).unwrap().id().unwrap();

        let mut session = world.sessions.open([&*format!("__Host-session={}", old.expose())]).unwrap();
        assert!(session.is_detached());
        apply(&mut session, &marks);
        let committed = world.sessions.commit(session).unwrap();
        let (outcome, stored) = match strongest(&marks) {
            None | Some(Mark::Discard) => (Outcome::Unchanged, false),
            Some(Mark::Value | Mark::Destroy) => (Outcome::Detached, false),
            Some(Mark::Renew) => (Outcome::Stored, true),
        };
        assert_eq!((committed.outcome(), committed.id().is_some()), (outcome, stored), "{marks:?}");
        assert_eq!(outcome.is_lost(), outcome == Outcome::Detached);
        assert_eq!((set_cookie(&committed).is_some(), world.count()), (stored, 1 + u64::from(stored)), "{marks:?}");
        assert_eq!(value(&world, &new), Some(1), "{marks:?}");
    }
}

#[test]
fn restored_value_is_not_stored() {
    let world = world(|builder| builder.on_conflict(OnConflict::Fail));
    let id = world.create();
    let (mut session, mut other) = (world.open(&id), world.open(&id));
    *session = 7;
    *session = 1;
    let committed = world.sessions.commit(session).unwrap();
    assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
    // Had it been stored, this would be a conflict.
    *other = 2;
    assert_eq!(world.sessions.commit(other).unwrap().outcome(), Outcome::Stored);
    assert_eq!(value(&world, &id), Some(2));
}
