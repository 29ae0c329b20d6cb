//! The three callers of the loop, against a store that follows a script: each outcome, with the commands on the way to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use OnConflict::{Fail, LastWriteWins, Merge};
use Reply::{Conflict, Missing, Stored as Kept};

use crate::codec::Envelope;
use crate::store::{Created, Found, Saved, SessionStore, Stored, Touch, Version, Write};
use crate::{
    Clock, Codec, Error, ErrorKind, Json, OnConflict, Outcome, Result, Session, SessionId, SessionManager, operation,
    sync,
};

type Fields = BTreeMap<String, u32>;

#[derive(Clone, Copy, Debug)]
enum Reply {
    Stored,
    Missing,
    Conflict,
}

/// Replies to each save with the next line of the script, and notes the call.
#[derive(Debug, Default)]
struct Scripted {
    script: Mutex<VecDeque<Reply>>,
    calls: Mutex<Vec<String>>,
    /// When the cookie of the stored session was sent, if it is remembered.
    remembered: Mutex<Option<std::time::SystemTime>>,
    /// Another request renewed the session.
    is_renewed: Mutex<bool>,
    is_unreachable: Mutex<bool>,
}

impl Scripted {
    fn stored(&self, fields: &[(&str, u32)], version: &str) -> Stored {
        let data: Fields = fields.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let mut envelope = Envelope::new(&data);
        envelope.remembered = *sync::lock(&self.remembered);
        let payload = Json::<Fields>::new().encode(&envelope).unwrap();
        Stored::new(payload, Version::new(version), None)
    }

    fn reply(&self, command: &str, write: Write<'_>, expected: Option<&Version>) -> Saved {
        let expected = expected.map_or("any", |version| std::str::from_utf8(version.as_bytes()).unwrap());
        let names = Json::<Fields>::new().decode(write.payload).unwrap().data.into_keys().collect::<Vec<_>>().join("+");
        sync::lock(&self.calls).push(format!("{command} {expected} {names}"));
        match sync::lock(&self.script).pop_front().expect("the script has another reply") {
            Reply::Stored => Saved::Stored(Version::new("stored")),
            Reply::Missing => Saved::Missing,
            Reply::Conflict => Saved::Conflict(self.stored(&[("base", 1), ("theirs", 1)], "theirs")),
        }
    }
}

impl SessionStore for Scripted {
    fn create(&self, _: &SessionId, _: Write<'_>) -> Result<Created> {
        sync::lock(&self.calls).push("create".to_owned());
        Ok(Created::Stored(Version::new("created")))
    }

    fn read(&self, _: &SessionId, touch: Touch) -> Result<Found> {
        if touch == Touch::No {
            sync::lock(&self.calls).push("read".to_owned());
            return Ok(if *sync::lock(&self.is_renewed) { Found::Renewed } else { Found::Absent });
        }
        Ok(Found::Live(self.stored(&[("base", 1)], "base")))
    }

    fn save(&self, _: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        Ok(self.reply("save", write, expected))
    }

    fn rotate(&self, _: &SessionId, _: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        if *sync::lock(&self.is_unreachable) {
            return Err(Error::new(ErrorKind::Unavailable, operation::ROTATE));
        }
        Ok(self.reply("rotate", write, expected))
    }

    fn delete(&self, _: &SessionId) -> Result<bool> {
        sync::lock(&self.calls).push("delete".to_owned());
        Ok(true)
    }
}

struct World {
    store: Arc<Scripted>,
    sessions: SessionManager<Fields>,
}

fn world(on_conflict: OnConflict, script: &[Reply]) -> World {
    let store = Arc::new(Scripted { script: Mutex::new(script.iter().copied().collect()), ..Scripted::default() });
    let sessions = SessionManager::builder(store.clone()).on_conflict(on_conflict).build().unwrap();
    World { store, sessions }
}

impl World {
    fn open(&self) -> Session<Fields> {
        self.sessions.open_id(&SessionId::random()).unwrap().unwrap()
    }

    /// The calls of the store. Nothing of the script may be left.
    fn calls(&self) -> Vec<String> {
        assert!(sync::lock(&self.store.script).is_empty());
        std::mem::take(&mut *sync::lock(&self.store.calls))
    }
}

fn mine(fields: &mut Fields) {
    fields.insert("mine".into(), 1);
}

/// How a commit or an update ends: with an outcome, or with the kind of an error.
type Ending<O> = std::result::Result<O, ErrorKind>;

/// A policy, the replies of the store, the ending, and the calls of the store.
type Row<O> = (OnConflict, &'static [Reply], Ending<O>, &'static [&'static str]);

fn commit(world: &World, session: Session<Fields>) -> Ending<Outcome> {
    world.sessions.commit(session).map(|committed| committed.outcome()).map_err(|error| error.kind())
}

#[test]
fn commit_of_change_merges_rejects_or_overwrites() {
    let table: [Row<Outcome>; 7] = [
        (Merge, &[Kept], Ok(Outcome::Stored), &["save base base+mine"]),
        (Merge, &[Missing], Ok(Outcome::Dropped), &["save base base+mine", "read"]),
        (Merge, &[Conflict, Kept], Ok(Outcome::Stored), &["save base base+mine", "save theirs base+mine+theirs"]),
        (
            Merge,
            &[Conflict, Conflict, Missing],
            Ok(Outcome::Dropped),
            &["save base base+mine", "save theirs base+mine+theirs", "save theirs base+mine+theirs", "read"],
        ),
        (Fail, &[Kept], Ok(Outcome::Stored), &["save base base+mine"]),
        (Fail, &[Conflict], Err(ErrorKind::Conflict), &["save base base+mine"]),
        (LastWriteWins, &[Kept], Ok(Outcome::Stored), &["save any base+mine"]),
    ];
    for (policy, script, ending, calls) in table {
        let world = world(policy, script);
        let mut session = world.open();
        mine(&mut session);
        assert_eq!(commit(&world, session), ending, "{policy:?} {script:?}");
        assert_eq!(world.calls(), calls, "{policy:?} {script:?}");
    }
}

#[test]
fn renewal_without_change_always_merges() {
    for policy in [Merge, Fail, LastWriteWins] {
        let world = world(policy, &[Conflict, Kept]);
        let mut session = world.open();
        session.renew();
        assert_eq!(commit(&world, session), Ok(Outcome::Stored), "{policy:?}");
        assert_eq!(world.calls(), ["rotate base base", "rotate theirs base+theirs"], "{policy:?}");
    }
}

#[test]
fn renewal_with_change_follows_the_policy() {
    let table: [Row<Outcome>; 3] = [
        (Merge, &[Conflict, Kept], Ok(Outcome::Stored), &["rotate base base+mine", "rotate theirs base+mine+theirs"]),
        (Fail, &[Conflict], Err(ErrorKind::Conflict), &["rotate base base+mine"]),
        (LastWriteWins, &[Kept], Ok(Outcome::Stored), &["rotate any base+mine"]),
    ];
    for (policy, script, ending, calls) in table {
        let world = world(policy, script);
        let mut session = world.open();
        session.renew();
        mine(&mut session);
        assert_eq!(commit(&world, session), ending, "{policy:?}");
        assert_eq!(world.calls(), calls, "{policy:?}");
    }
}

#[test]
fn reset_replaces_any_version_or_creates() {
    const FIRST: &str = "rotate any mine";
    /// The replies, whether another request renewed the session, the ending, and the calls.
    type ResetRow = (&'static [Reply], bool, Ending<Outcome>, &'static [&'static str]);
    let table: [ResetRow; 4] = [
        (&[Kept], false, Ok(Outcome::Stored), &[FIRST]),
        (&[Missing], false, Ok(Outcome::Stored), &[FIRST, "read", "create"]),
        (&[Missing], true, Ok(Outcome::Detached), &[FIRST, "read"]),
        (&[Conflict], false, Err(ErrorKind::Conflict), &[FIRST]),
    ];
    for policy in [Merge, Fail, LastWriteWins] {
        for (script, is_renewed, ending, calls) in table {
            let reset = || {
                let world = world(policy, script);
                *sync::lock(&world.store.is_renewed) = is_renewed;
                let mut session = world.open();
                session.insert("early".into(), 1);
                session.reset();
                (world, session)
            };
            let (world, mut session) = reset();
            mine(&mut session);
            assert_eq!(commit(&world, session), ending, "{policy:?} {script:?}");
            assert_eq!(world.calls(), calls, "{policy:?} {script:?}");

            let (world, mut session) = reset();
            let updated = world.sessions.update_in(&mut session, mine).map_err(|error| error.kind());
            assert_eq!(updated, ending.map(|outcome| (!outcome.is_lost()).then_some(())), "{policy:?} {script:?}");
            assert_eq!(world.calls(), calls, "{policy:?} {script:?}");
        }
    }
}

#[test]
fn failed_reset_fails_the_commit() {
    let world = world(Merge, &[]);
    *sync::lock(&world.store.is_unreachable) = true;
    let mut session = world.open();
    session.reset();
    assert_eq!(commit(&world, session), Err(ErrorKind::Unavailable));
    assert!(world.calls().is_empty());
}

#[test]
fn cookie_refresh_tries_once() {
    let table = [
        (Kept, Outcome::Stored, true, true),
        (Conflict, Outcome::Unchanged, true, false),
        (Missing, Outcome::Unchanged, false, false),
    ];
    for policy in [Merge, Fail, LastWriteWins] {
        for (reply, outcome, has_id, has_cookie) in table {
            let world = world(policy, &[reply]);
            *sync::lock(&world.store.remembered) = Some(Clock::system().now() - Duration::from_secs(6 * 86_400));
            let committed = world.sessions.commit(world.open()).unwrap();
            assert_eq!((committed.outcome(), committed.id().is_some()), (outcome, has_id), "{policy:?} {reply:?}");
            let sent = committed.headers().any(|(name, _)| name == "Set-Cookie");
            assert_eq!(sent, has_cookie, "{policy:?} {reply:?}");
            assert_eq!(world.calls(), ["save base base"], "{policy:?} {reply:?}");
        }
    }
}

#[test]
fn update_applies_change_to_latest_version() {
    let table: [(&[Reply], Option<usize>, &[&str]); 3] = [
        (&[Kept], Some(2), &["save base base+mine"]),
        (&[Conflict, Kept], Some(3), &["save base base+mine", "save theirs base+mine+theirs"]),
        (&[Conflict, Missing], None, &["save base base+mine", "save theirs base+mine+theirs"]),
    ];
    for policy in [Merge, Fail, LastWriteWins] {
        for (script, returned, calls) in table {
            let world = world(policy, script);
            let change = |fields: &mut Fields| {
                mine(fields);
                fields.len()
            };
            assert_eq!(world.sessions.update(&SessionId::random(), change).unwrap(), returned, "{policy:?} {script:?}");
            assert_eq!(world.calls(), calls, "{policy:?} {script:?}");
        }
    }
}

#[test]
fn update_in_keeps_or_rejects_earlier_changes() {
    const FIRST: &str = "save base base+early+mine";
    let table: [Row<Option<()>>; 4] = [
        (Merge, &[Kept], Ok(Some(())), &[FIRST]),
        (Merge, &[Conflict, Kept], Ok(Some(())), &[FIRST, "save theirs base+early+mine+theirs"]),
        (Fail, &[Conflict], Err(ErrorKind::Conflict), &[FIRST]),
        (Merge, &[Missing], Ok(None), &[FIRST]),
    ];
    for (policy, script, ending, calls) in table {
        let world = world(policy, script);
        let mut session = world.open();
        session.insert("early".into(), 1);
        let updated = world.sessions.update_in(&mut session, mine).map_err(|error| error.kind());
        assert_eq!(updated, ending, "{policy:?} {script:?}");
        assert_eq!(world.calls(), calls, "{policy:?} {script:?}");
        let names: Vec<&str> = session.keys().map(String::as_str).collect();
        let is_stored = ending == Ok(Some(()));
        assert_eq!(names.contains(&"mine"), is_stored, "{policy:?} {script:?}");
        assert_eq!(session.version().unwrap().as_bytes(), if is_stored { &b"stored"[..] } else { b"base" });
    }
}
