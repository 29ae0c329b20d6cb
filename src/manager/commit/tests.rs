//! The table behind `plan`: each origin of a session, with each thing that a request can ask of it.

use std::time::Duration;

use super::{Action, Outcome};
use crate::session::Origin;
use crate::{Clock, MemorySessionStore, Session, SessionId, SessionManager};

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

type Ask = fn(&mut Session<u32>);
type Expected = fn(SessionId) -> Action;

struct PlanRow {
    ask: Ask,
    new: Expected,
    stored: Expected,
    /// The same as `stored`, of a remembered session whose cookie is past half its life.
    cookie_due: Expected,
    detached: Expected,
}

const KEEP: Expected = |_| Action::Keep;
const DETACH: Expected = |_| Action::Detach;
const CREATE: Expected = |_| Action::Create;

const PLAN_TABLE: [(&str, PlanRow); 13] = [
    ("nothing", PlanRow { ask: |_| (), new: KEEP, stored: KEEP, cookie_due: Action::Refresh, detached: KEEP }),
    (
        "a borrow without a change",
        PlanRow { ask: touch, new: KEEP, stored: KEEP, cookie_due: Action::Refresh, detached: KEEP },
    ),
    ("a change", PlanRow { ask: add, new: CREATE, stored: Action::Save, cookie_due: Action::Save, detached: DETACH }),
    (
        "a renewal",
        PlanRow {
            ask: Session::renew,
            new: CREATE,
            stored: Action::Rotate,
            cookie_due: Action::Rotate,
            detached: CREATE,
        },
    ),
    (
        "a change and a renewal",
        PlanRow { ask: both, new: CREATE, stored: Action::Rotate, cookie_due: Action::Rotate, detached: CREATE },
    ),
    ("a discard", PlanRow { ask: Session::discard, new: KEEP, stored: KEEP, cookie_due: KEEP, detached: KEEP }),
    ("a discarded renewal", PlanRow { ask: discarded, new: KEEP, stored: KEEP, cookie_due: KEEP, detached: KEEP }),
    ("a reset", PlanRow { ask: Session::reset, ..RESET }),
    ("a change, a renewal and a reset", PlanRow { ask: reset_after_both, ..RESET }),
    ("a reset, a change and a renewal", PlanRow { ask: both_after_reset, ..RESET }),
    ("a reset that was to be discarded", PlanRow { ask: discarded_reset, ..RESET }),
    (
        "an end",
        PlanRow {
            ask: Session::destroy,
            new: KEEP,
            stored: Action::Delete,
            cookie_due: Action::Delete,
            detached: DETACH,
        },
    ),
    (
        "an end after a change, a renewal and a reset",
        PlanRow { ask: ended, new: KEEP, stored: Action::Delete, cookie_due: Action::Delete, detached: DETACH },
    ),
];

const RESET: PlanRow = PlanRow {
    ask: Session::reset,
    new: CREATE,
    stored: Action::Replace,
    cookie_due: Action::Replace,
    detached: DETACH,
};

fn touch(session: &mut Session<u32>) {
    **session += 0;
}

fn add(session: &mut Session<u32>) {
    **session += 1;
}

fn both(session: &mut Session<u32>) {
    add(session);
    session.renew();
}

fn discarded(session: &mut Session<u32>) {
    session.renew();
    session.discard();
}

fn reset_after_both(session: &mut Session<u32>) {
    both(session);
    session.reset();
}

fn both_after_reset(session: &mut Session<u32>) {
    session.reset();
    both(session);
}

fn discarded_reset(session: &mut Session<u32>) {
    session.discard();
    session.reset();
    session.discard();
}

fn ended(session: &mut Session<u32>) {
    both(session);
    session.reset();
    session.destroy();
}

struct World {
    clock: Clock,
    sessions: SessionManager<u32>,
}

fn world(touch_on_read: bool) -> World {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::builder(store).clock(clock.clone()).touch_on_read(touch_on_read);
    let sessions = builder.idle_timeout(IDLE_TIMEOUT).remember_for(10 * IDLE_TIMEOUT).build().unwrap();
    World { clock, sessions }
}

impl World {
    fn store(&self, remember: bool) -> SessionId {
        let mut session = self.sessions.fresh();
        session.renew();
        session.remember(remember);
        *self.sessions.commit(session).unwrap().id().unwrap()
    }

    fn open(&self, id: &SessionId) -> Session<u32> {
        self.sessions.open_id(id).unwrap().unwrap()
    }

    fn detached(&self) -> Session<u32> {
        let mut session = self.sessions.fresh();
        session.origin = Origin::Detached;
        session
    }

    fn plan(&self, mut session: Session<u32>, ask: Ask) -> Action {
        ask(&mut session);
        self.sessions.0.plan(&session).action
    }
}

#[test]
fn plan_follows_origin_and_change() {
    let world = world(true);
    let due = world.store(true);
    world.clock.advance(6 * IDLE_TIMEOUT);
    let stored = world.store(false);
    for (asked, row) in PLAN_TABLE {
        let planned = [world.sessions.fresh(), world.open(&stored), world.open(&due), world.detached()]
            .map(|session| world.plan(session, row.ask));
        let expected = [(row.new)(stored), (row.stored)(stored), (row.cookie_due)(due), (row.detached)(stored)];
        assert_eq!(planned, expected, "{asked}");
    }
}

#[test]
fn old_id_is_planned_by_change() {
    let world = world(true);
    let id = world.store(false);
    let plan = |ask: Ask| world.plan(Session { is_renewal_due: true, ..world.open(&id) }, ask);
    assert_eq!([plan(|_| ()), plan(touch)], [Action::RenewByAge(id); 2]);
    assert_eq!([plan(add), plan(both)], [Action::Rotate(id); 2]);
    assert_eq!([plan(discarded), plan(ended)], [Action::Keep, Action::Delete(id)]);
    assert_eq!(plan(discarded_reset), Action::Replace(id));
}

#[test]
fn due_cookie_waits_for_change_without_touch() {
    let world = world(false);
    let due = world.store(true);
    world.clock.advance(6 * IDLE_TIMEOUT);
    assert_eq!(world.plan(world.open(&due), |_| ()), Action::Keep);
    assert_eq!(world.plan(world.open(&due), add), Action::Save(due));
}

#[test]
fn plan_alone_leaves_stored_session_alone() {
    let world = world(true);
    let id = world.store(false);
    for (asked, row) in PLAN_TABLE {
        world.plan(world.open(&id), row.ask);
        assert_eq!(*world.open(&id), 0, "{asked}");
    }
    let mut session = world.open(&id);
    session.destroy();
    assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
    assert!(world.sessions.open_id(&id).unwrap().is_none());
}

#[test]
fn reset_begins_anew_with_session_cookie() {
    let world = world(true);
    let old = world.store(true);
    world.clock.advance(IDLE_TIMEOUT);
    let mut session = world.open(&old);
    let created = session.created();
    *session = 7;
    session.reset();
    assert_eq!((*session, session.is_remembered()), (0, false));
    let committed = world.sessions.commit(session).unwrap();
    let cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap().1;
    assert!(!cookie.contains("Max-Age"), "a cookie of a session that is not remembered");
    let new = world.open(committed.id().unwrap());
    assert_eq!(new.created(), created + IDLE_TIMEOUT);
    assert!(*new == 0 && !new.is_remembered() && *new.id().unwrap() != old);
    assert!(world.sessions.open_id(&old).unwrap().is_none());
}

#[test]
fn reset_after_whole_lifetime_ends_old_session() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let builder = SessionManager::<u32>::builder(store).clock(clock.clone()).lifetime(10 * IDLE_TIMEOUT);
    let sessions = builder.idle_timeout(None).build().unwrap();
    let mut session = sessions.fresh();
    session.renew();
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.reset();
    clock.advance(10 * IDLE_TIMEOUT);
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Dropped);
    assert!(sessions.open_id(&id).unwrap().is_none());
}

#[test]
fn new_session_with_token_is_created() {
    let world = world(true);
    let token: Ask = |session| assert!(session.csrf_token().is_ok());
    assert_eq!(world.plan(world.sessions.fresh(), token), Action::Create);
    let id = world.store(false);
    assert_eq!(world.plan(world.open(&id), token), Action::Keep);
    let discarded: Ask = |session| {
        assert!(session.csrf_token().is_ok());
        session.discard();
    };
    assert_eq!(world.plan(world.sessions.fresh(), discarded), Action::Keep);
}
