//! Several cookies of one name: what browsers send after the attributes of the cookie changed, and what a sibling host plants.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::Jar;
use threaded_sessions::step::on_delete;
use threaded_sessions::{
    Clock, Committed, Error, ErrorKind, MemorySessionStore, Outcome, Session, SessionId, SessionManager,
    SessionManagerBuilder, StepStore, Unreadable,
};

const HOST: &str = "shop.example.com";
const PAGE: &str = "/shop/cart";
const MINUTE: Duration = Duration::from_secs(60);

type Sessions = SessionManager<String>;
type Settings = fn(SessionManagerBuilder<String>) -> SessionManagerBuilder<String>;

struct World {
    clock: Clock,
    store: MemorySessionStore,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual();
        Self { store: MemorySessionStore::new().with_clock(clock.clone()), clock }
    }

    fn sessions(&self, settings: Settings) -> Sessions {
        settings(Sessions::builder(self.store.clone()).clock(self.clock.clone())).build().unwrap()
    }
}

fn set_cookie(committed: &Committed) -> Option<&str> {
    committed.headers().find(|(name, _)| *name == "Set-Cookie").map(|(_, value)| value)
}

/// A request of the browser: its session goes through the handler, and the cookies of the response into the jar.
#[track_caller]
fn visit(sessions: &Sessions, jar: &mut Jar, handler: impl FnOnce(&mut Session<String>)) -> Outcome {
    let mut session = sessions.open([&*jar.header(HOST, PAGE)]).unwrap();
    handler(&mut session);
    let committed = sessions.commit(session).unwrap();
    if let Some(cookie) = set_cookie(&committed) {
        assert!(jar.take(HOST, cookie), "a browser refuses {cookie}");
    }
    committed.outcome()
}

fn sign_in(user: &str) -> impl FnOnce(&mut Session<String>) {
    move |session| {
        session.renew();
        **session = user.to_owned();
    }
}

#[track_caller]
fn user(sessions: &Sessions, jar: &mut Jar) -> String {
    let mut user = String::new();
    visit(sessions, jar, |session| user = session.to_string());
    user
}

fn store(sessions: &Sessions, user: &str) -> SessionId {
    let mut session = sessions.fresh();
    session.renew();
    *session = user.to_owned();
    *sessions.commit(session).unwrap().id().unwrap()
}

fn lives(sessions: &Sessions, id: &SessionId) -> bool {
    sessions.open_id(id).unwrap().is_some()
}

fn header(ids: &[&SessionId]) -> String {
    ids.iter().map(|id| format!("__Host-session={}", id.expose())).collect::<Vec<_>>().join("; ")
}

const SETTINGS: [(&str, Settings); 12] = [
    ("default", |b| b),
    ("path", |b| b.cookie_path("/shop")),
    ("domain", |b| b.cookie_domain("example.com")),
    ("partitioned", |b| b.partitioned(true)),
    ("insecure", |b| b.secure(false)),
    ("path and domain", |b| b.cookie_path("/shop").cookie_domain("example.com")),
    ("named", |b| b.cookie_name("sid")),
    ("named, path", |b| b.cookie_name("sid").cookie_path("/shop")),
    ("named, domain", |b| b.cookie_name("sid").cookie_domain("example.com")),
    ("named, partitioned", |b| b.cookie_name("sid").partitioned(true)),
    ("named, insecure", |b| b.cookie_name("sid").secure(false)),
    ("named, all", |b| b.cookie_name("sid").cookie_path("/shop").cookie_domain("example.com").partitioned(true)),
];

#[test]
fn login_works_after_any_change_of_attributes() {
    for (from, before) in SETTINGS {
        for (to, after) in SETTINGS {
            let world = World::new();
            let (before, after, mut jar) = (world.sessions(before), world.sessions(after), Jar::default());
            visit(&before, &mut jar, |session| **session = "guest".to_owned());
            visit(&after, &mut jar, sign_in("ada"));
            for _ in 0..3 {
                assert_eq!(user(&after, &mut jar), "ada", "from {from} to {to}");
                visit(&after, &mut jar, |session| session.push('.'));
                visit(&after, &mut jar, sign_in("ada"));
                world.clock.advance(MINUTE);
            }
            // The change may be taken back, and made again.
            visit(&before, &mut jar, sign_in("bob"));
            assert_eq!(user(&before, &mut jar), "bob", "back from {to} to {from}");
            visit(&after, &mut jar, sign_in("eve"));
            assert_eq!(user(&after, &mut jar), "eve", "again from {from} to {to}");
            visit(&after, &mut jar, |session| session.destroy());
            assert_eq!(user(&after, &mut jar), "", "signed out, from {from} to {to}");
        }
    }
}

/// With the default name some changes rename the cookie. The visitor starts anew, and the old cookie does no harm.
#[test]
fn renamed_cookie_starts_a_new_session() {
    for (to, after) in &SETTINGS[1..6] {
        let world = World::new();
        let (before, after, mut jar) = (world.sessions(|b| b), world.sessions(*after), Jar::default());
        visit(&before, &mut jar, sign_in("ada"));
        let keeps_its_name = *to == "partitioned";
        assert_eq!(user(&after, &mut jar), if keeps_its_name { "ada" } else { "" }, "{to}");
        visit(&after, &mut jar, sign_in("bob"));
        assert_eq!(user(&after, &mut jar), "bob", "{to}");
    }
}

#[test]
fn logout_ends_every_session_of_the_cookies() {
    let world = World::new();
    let sessions = world.sessions(|b| b);
    for position in 0..3 {
        let (own, others) = (store(&sessions, "ada"), [store(&sessions, "bob"), store(&sessions, "eve")]);
        let mut ids = others.iter().collect::<Vec<_>>();
        ids.insert(position, &own);
        let cookies = header(&ids);
        let mut session = sessions.open([&*cookies]).unwrap();
        session.destroy();
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
        assert!(sessions.open([&*cookies]).unwrap().is_new());
        assert!(ids.iter().all(|id| !lives(&sessions, id)));
    }
}

#[test]
fn login_keeps_its_session_despite_planted_one() {
    let world = World::new();
    let sessions = world.sessions(|b| b);
    // The browser sends the planted cookie first or last, and the visitor had a session or not.
    for (is_first, had_session) in [(true, true), (true, false), (false, true), (false, false)] {
        let planted = store(&sessions, "mallory");
        let own = if had_session { store(&sessions, "") } else { SessionId::random() };
        let sent = |own: &SessionId| if is_first { header(&[&planted, own]) } else { header(&[own, &planted]) };
        let mut session = sessions.open([&*sent(&own)]).unwrap();
        sign_in("ada")(&mut session);
        let committed = sessions.commit(session).unwrap();
        assert_eq!(*sessions.open([&*sent(committed.id().unwrap())]).unwrap(), "ada", "{is_first} {had_session}");
        assert!(!lives(&sessions, &planted), "{is_first} {had_session}");
    }
}

#[test]
fn update_in_after_renewal_ends_rivals_at_commit() {
    let world = World::new();
    let sessions = world.sessions(|b| b);
    let (own, planted) = (store(&sessions, "guest"), store(&sessions, "mallory"));
    let mut session = sessions.open([&*header(&[&own, &planted])]).unwrap();
    sign_in("ada")(&mut session);
    sessions.update_in(&mut session, |user| user.push('!')).unwrap().unwrap();
    let committed = sessions.commit(session).unwrap();
    assert_eq!(*sessions.open([&*header(&[committed.id().unwrap(), &planted])]).unwrap(), "ada!");
    assert!(!lives(&sessions, &planted) && !lives(&sessions, &own));
}

#[test]
fn requests_without_renewal_leave_rivals_alone() {
    let world = World::new();
    let sessions = world.sessions(|b| b);
    let (own, other) = (store(&sessions, "ada"), store(&sessions, "bob"));
    let handlers: [fn(&mut Session<String>); 5] = [
        |_| (),
        |session| session.push('.'),
        |session| session.bind("ada", "laptop"),
        |session| session.discard(),
        |session| {
            session.renew();
            session.discard();
        },
    ];
    for handler in handlers {
        let mut session = sessions.open([&*header(&[&own, &other])]).unwrap();
        handler(&mut session);
        let _ = sessions.commit(session).unwrap();
        assert!(lives(&sessions, &own) && lives(&sessions, &other));
    }
}

#[test]
fn live_id_is_preferred_to_renewed_id() {
    let world = World::new();
    let sessions = world.sessions(|b| b);
    let (renewed, other) = (store(&sessions, "ada"), store(&sessions, "bob"));
    let mut session = sessions.open_id(&renewed).unwrap().unwrap();
    session.renew();
    let new = *sessions.commit(session).unwrap().id().unwrap();
    let unknown = SessionId::random();
    assert_eq!(*sessions.open([&*header(&[&renewed, &new])]).unwrap(), "ada");
    assert_eq!(*sessions.open([&*header(&[&unknown, &renewed, &other])]).unwrap(), "bob");
    for ids in [[&renewed, &unknown], [&unknown, &renewed]] {
        let mut session = sessions.open([&*header(&ids)]).unwrap();
        assert!(session.is_detached() && !session.is_new());
        session.push('x');
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Detached);
    }
    world.clock.advance(MINUTE);
    assert!(sessions.open([&*header(&[&renewed, &unknown])]).unwrap().is_new());
}

#[test]
fn session_past_its_lifetime_is_passed_over() {
    let world = World::new();
    let sessions = world.sessions(|b| b.lifetime(2 * MINUTE));
    let over = store(&sessions, "over");
    world.clock.advance(MINUTE);
    let live = store(&sessions, "ada");
    // One manager touches sessions beyond the lifetime that another one sets.
    let endless = world.sessions(|b| b);
    assert!(lives(&endless, &over));
    world.clock.advance(MINUTE);
    assert_eq!(*sessions.open([&*header(&[&over, &live])]).unwrap(), "ada");
}

#[test]
fn unreadable_session_is_passed_over_when_starting_fresh() {
    let world = World::new();
    let numbers = SessionManager::<u64>::builder(world.store.clone()).clock(world.clock.clone()).build().unwrap();
    let mut session = numbers.fresh();
    *session = 7;
    let unreadable = *numbers.commit(session).unwrap().id().unwrap();
    let sessions = world.sessions(|b| b.unreadable(Unreadable::StartFresh));
    let live = store(&sessions, "ada");
    let cookies = header(&[&unreadable, &live]);
    assert_eq!(*sessions.open([&*cookies]).unwrap(), "ada");
    // A change leaves the unreadable session to expire. A login ends it, as every other session of the cookies.
    let mut session = sessions.open([&*cookies]).unwrap();
    session.push('!');
    let _ = sessions.commit(session).unwrap();
    assert!(numbers.open_id(&unreadable).unwrap().is_some());
    let mut session = sessions.open([&*cookies]).unwrap();
    sign_in("ada")(&mut session);
    let _ = sessions.commit(session).unwrap();
    assert!(numbers.open_id(&unreadable).unwrap().is_none());
}

#[test]
fn failed_end_of_rival_is_reported() {
    for kind in [ErrorKind::Unavailable, ErrorKind::TimedOut, ErrorKind::Denied] {
        let (fails, inner) = (Arc::new(AtomicBool::new(false)), MemorySessionStore::new());
        let step = on_delete({
            let fails = fails.clone();
            move |operation, next| match fails.load(Ordering::Relaxed) {
                true => Err(Error::new(kind, "deleting")),
                false => next.delete(operation),
            }
        });
        let sessions = Sessions::new(StepStore::builder(inner).step(step).build().unwrap());
        let (own, planted) = (store(&sessions, "guest"), store(&sessions, "mallory"));
        let mut session = sessions.open([&*header(&[&own, &planted])]).unwrap();
        sign_in("ada")(&mut session);
        fails.store(true, Ordering::Relaxed);
        let error = sessions.commit(session).unwrap_err();
        // The login has happened, so "nothing happened" would be wrong.
        assert_eq!(error.kind(), if kind.is_temporary() { ErrorKind::MayHaveHappened } else { kind });
        assert!(error.to_string().contains("other sessions"), "{error}");
        assert!(!lives(&sessions, &own) && lives(&sessions, &planted));
        fails.store(false, Ordering::Relaxed);
        let mut session = sessions.open([&*header(&[&own, &planted])]).unwrap();
        session.destroy();
        let _ = sessions.commit(session).unwrap();
        assert!(!lives(&sessions, &planted), "another attempt ends it");
    }
}
