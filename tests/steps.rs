//! Steps around every operation, and the companions that they write: steps see each payload, and companions end with their session.

mod support;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use support::{PATIENCE, eventually, shared, texts, unique};
use threaded_sessions::step::{
    DeleteOperation, Deleted, Next, ReadOperation, Subject, WriteKind, WriteOperation, Written, WrittenAt, on_delete,
    on_read, on_write,
};
use threaded_sessions::store::{Bind, Bytes, Companion, Created, Ending, Found, Saved, Touch, Write};
use threaded_sessions::{
    Clock, Error, ErrorKind, MemorySessionStore, RedisSessionStore, Result, SessionId, SessionManager, SessionStore,
    Step, StepStore, contract, redis,
};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

fn redis_store(prefix: &str, expiring: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(prefix);
    if expiring { builder.expiring() } else { builder }.build().unwrap()
}

fn create(store: &dyn SessionStore, ttl: Duration) -> SessionId {
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(b"v", ttl)).unwrap(), Created::Stored(_)));
    id
}

fn live(store: &dyn SessionStore, id: &SessionId, touch: Touch) -> Vec<u8> {
    match store.read(id, touch).unwrap() {
        Found::Live(stored) => stored.payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Reaps until `count` sessions are gone.
fn reap(store: &dyn SessionStore, count: u64) -> Vec<Vec<u8>> {
    let (mut removed, mut payloads) = (0, Vec::new());
    let done = eventually(PATIENCE, || {
        let reaped = store.index().unwrap().reap(0, 100, true).unwrap();
        removed += reaped.removed;
        payloads.extend(reaped.sessions.iter().map(|expired| expired.payload.to_vec()));
        removed >= count
    });
    assert!(done, "{removed} of {count} were reaped");
    payloads
}

/// All keys under a prefix.
fn keys(prefix: &str) -> Vec<String> {
    redis::from_redis_value(shared().cmd(&["KEYS", &format!("{prefix}:*")])).unwrap()
}

/// A step that does nothing.
#[derive(Debug)]
struct Idle;

impl Step for Idle {}

/// A step that records when it runs before and after the other steps, and the steps that ran before it.
#[derive(Clone, Debug)]
struct Named(&'static str, Arc<Mutex<Vec<String>>>);

/// The steps that have run in this operation.
struct Spoken(Vec<&'static str>);

impl Named {
    fn say(&self, when: &str, spoken: Option<&Spoken>) -> Spoken {
        let mut names = spoken.map_or(Vec::new(), |spoken| spoken.0.clone());
        self.1.lock().unwrap().push(format!("{when} {}, heard {}", self.0, names.join(" ")));
        names.push(self.0);
        Spoken(names)
    }
}

macro_rules! speak {
    ($self:ident, $operation:ident, $run:expr) => {{
        let spoken = $self.say("before", $operation.values().get());
        $operation.values().insert(spoken);
        let result = $run?;
        let spoken = $self.say("after", $operation.values().get());
        $operation.values().insert(spoken);
        Ok(result)
    }};
}

impl Step for Named {
    fn read(&self, operation: &mut ReadOperation<'_>, next: Next<'_>) -> Result<Found> {
        speak!(self, operation, next.read(operation))
    }

    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        speak!(self, operation, next.write(operation))
    }

    fn delete(&self, operation: &mut DeleteOperation<'_>, next: Next<'_>) -> Result<Deleted> {
        speak!(self, operation, next.delete(operation))
    }
}

/// Stores every payload with its own mark and the handle's first digits before it.
#[derive(Debug)]
struct Marked(&'static str);

impl Marked {
    fn mark(&self, handle: impl fmt::Display) -> String {
        format!("{}{}", self.0, &handle.to_string()[..4])
    }
}

impl Step for Marked {
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        let payload = [self.mark(operation.handle()).as_bytes(), operation.payload()].concat();
        operation.set_payload(payload);
        next.write(operation)
    }

    fn restore(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let unmarked = payload.strip_prefix(self.mark(session.handle()).as_bytes());
        unmarked.map(|unmarked| payload.slice_ref(unmarked)).ok_or_else(|| Error::new(ErrorKind::Payload, "unmarking"))
    }
}

#[test]
fn every_store_with_steps_keeps_the_contract() {
    fn around<S: SessionStore>(store: impl Fn() -> S, wait: impl Fn(Duration)) {
        let chains = [
            StepStore::builder(store()),
            StepStore::builder(store()).step(Idle),
            StepStore::builder(store()).step(WrittenAt::new()),
            StepStore::builder(store()).step(Marked("a")).step(WrittenAt::new()).step(Marked("b")),
        ];
        for chain in chains {
            contract::all(&chain.build().unwrap(), &wait);
        }
    }
    let clock = Clock::manual();
    around(|| MemorySessionStore::new().with_clock(clock.clone()), |time| clock.advance(time));
    around(|| redis_store(&unique("contract"), false), sleep);
    around(|| redis_store(&unique("contract"), true), sleep);
    around(|| StepStore::builder(redis_store(&unique("contract"), true)).step(Marked("c")).build().unwrap(), sleep);
}

#[test]
fn closures_see_each_operation_of_their_kind_once() {
    let counts: [Arc<AtomicUsize>; 3] = Default::default();
    let [reads, writes, deletes] = counts.clone();
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    let store = StepStore::builder(MemorySessionStore::new())
        .step(on_read(move |operation, next| {
            count(&reads);
            next.read(operation)
        }))
        .step(on_write(move |operation, next| {
            count(&writes);
            next.write(operation)
        }))
        .step(on_delete(move |operation, next| {
            count(&deletes);
            next.delete(operation)
        }))
        .build()
        .unwrap();
    let counted = || counts.each_ref().map(|counter| counter.load(Ordering::Relaxed));
    assert_eq!(counted(), [0, 0, 0]);
    let id = create(&store, HOUR);
    assert_eq!(counted(), [0, 1, 0]);
    live(&store, &id, Touch::No);
    assert_eq!(counted(), [1, 1, 0]);
    let _ = store.save(&id, Write::new(b"w", HOUR), None).unwrap();
    assert_eq!(counted(), [1, 2, 0]);
    let new = store.fresh_id(Some(&id));
    let _ = store.rotate(&id, &new, Write::new(b"x", HOUR), None).unwrap();
    assert_eq!(counted(), [1, 3, 0]);
    assert!(store.delete(&new).unwrap());
    assert_eq!(counted(), [1, 3, 1]);
}

#[test]
fn last_step_is_outermost_and_steps_share_values() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let named = |name| Named(name, said.clone());
    let store = StepStore::builder(MemorySessionStore::new()).step(named("first")).step(named("last"));
    let store = store.build().unwrap();
    let id = store.fresh_id(None);
    let check = |operation: &str, act: &dyn Fn()| {
        act();
        let expected = [
            "before last, heard ",
            "before first, heard last",
            "after first, heard last first",
            "after last, heard last first first",
        ];
        assert_eq!(std::mem::take(&mut *said.lock().unwrap()), expected, "{operation}");
    };
    check("create", &|| drop(store.create(&id, Write::new(b"v", HOUR)).unwrap()));
    check("read", &|| drop(store.read(&id, Touch::No).unwrap()));
    check("save", &|| drop(store.save(&id, Write::new(b"w", SHORT), None).unwrap()));
    check("reap", &|| drop(reap(&store, 1)));
    check("delete", &|| assert!(!store.delete(&id).unwrap()));
}

#[test]
fn a_step_can_change_an_operation() {
    let clock = Clock::manual();
    let store = StepStore::builder(MemorySessionStore::new().with_clock(clock.clone()))
        .step(on_write(|operation, next| {
            assert_eq!((operation.payload(), operation.ttl()), (&b"v"[..], Some(HOUR)));
            assert_eq!(operation.kind(), WriteKind::Create);
            operation.set_payload(*b"changed");
            operation.set_ttl(HOUR * 2);
            next.write(operation)
        }))
        .step(on_read(|operation, next| {
            assert_eq!(operation.touch(), Touch::Set(SHORT));
            operation.set_touch(Touch::No);
            next.read(operation)
        }))
        .build()
        .unwrap();
    let id = create(&store, HOUR);
    assert_eq!(live(&store, &id, Touch::Set(SHORT)), b"changed");
    clock.advance(HOUR * 2 - SHORT);
    assert_eq!(live(&store, &id, Touch::Set(SHORT)), b"changed");
    clock.advance(SHORT);
    assert!(matches!(store.read(&id, Touch::Set(SHORT)).unwrap(), Found::Absent));
}

#[test]
fn refusal_reaches_caller_and_nothing_is_done() {
    #[derive(Debug, PartialEq)]
    struct Reason(&'static str);
    impl fmt::Display for Reason {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Reason {}
    fn refuse<A>(why: &'static str) -> Result<A> {
        Err(Error::new(ErrorKind::Refused, "minding the rules").with_source(Reason(why)))
    }
    let inner = Arc::new(MemorySessionStore::new());
    let store = StepStore::builder(inner.clone())
        .step(on_read(|_, _| refuse("no reads")))
        .step(on_write(|_, _| refuse("no writes")))
        .step(on_delete(|_, _| refuse("no deletes")))
        .build()
        .unwrap();
    let sessions = SessionManager::<u32>::new(store);
    let id = create(&inner, HOUR);
    let mut fresh = sessions.fresh();
    *fresh += 1;
    let refused = [
        (sessions.open_id(&id).map(drop), "no reads"),
        (sessions.commit(fresh).map(drop), "no writes"),
        (sessions.store().save(&id, Write::new(b"w", HOUR), None).map(drop), "no writes"),
        (sessions.store().delete(&id).map(drop), "no deletes"),
    ];
    for (result, why) in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.to_string(), "minding the rules: a step rejected the operation");
        assert_eq!(error.downcast_ref(), Some(&Reason(why)));
        assert!(!texts(&error).contains(why), "{error:?}");
    }
    assert_eq!(live(&inner, &id, Touch::No), b"v");
    assert_eq!(inner.index().unwrap().count().unwrap(), 1);
}

#[test]
fn every_returned_payload_is_restored() {
    for store in
        [Box::new(MemorySessionStore::new()) as Box<dyn SessionStore>, Box::new(redis_store(&unique("out"), true))]
    {
        let store = StepStore::builder(Arc::<dyn SessionStore>::from(store)).step(Marked("a")).step(Marked("b"));
        let store = store.build().unwrap();
        // From here on what expires waits for the reaper.
        assert_eq!(store.index().unwrap().reap(0, 1, true).unwrap().removed, 0);
        let (id, new) = (store.fresh_id(None), store.fresh_id(None));
        let ada = Bind::To { principal: "ada", cap: None };
        let Created::Stored(stale) = store.create(&id, Write::new(b"1", HOUR).with_bind(ada)).unwrap() else {
            panic!()
        };
        assert_eq!(live(&store, &id, Touch::No), b"1");
        assert!(live(store.inner(), &id, Touch::No).starts_with(b"a"));
        let Saved::Stored(_) = store.save(&id, Write::new(b"2", HOUR), Some(&stale)).unwrap() else { panic!() };
        let conflicts = [
            store.save(&id, Write::new(b"3", HOUR), Some(&stale)).unwrap(),
            store.rotate(&id, &new, Write::new(b"3", HOUR), Some(&stale)).unwrap(),
        ];
        for conflict in conflicts {
            let Saved::Conflict(theirs) = conflict else { panic!("{conflict:?}") };
            assert_eq!(&*theirs.payload, b"2");
            let Saved::Stored(_) = store.save(&id, Write::new(b"2", HOUR), Some(&theirs.version)).unwrap() else {
                panic!("the version is not what is stored");
            };
        }
        // A session that a step cannot read is left out, and the others are there.
        let alien = Write::new(b"alien", HOUR).with_bind(ada);
        let _ = store.inner().create(&store.fresh_id(None), alien).unwrap();
        let his = store.index().unwrap().list_by_principal("ada").unwrap();
        assert_eq!(his.iter().map(|belonging| &*belonging.payload).collect::<Vec<_>>(), [b"2"]);
        let _ = store.inner().create(&store.fresh_id(None), Write::new(b"alien", SHORT)).unwrap();
        let _ = store.save(&id, Write::new(b"4", SHORT), None).unwrap();
        assert_eq!(reap(&store, 2), [b"4"]);
    }
}

#[test]
fn reaped_sessions_pass_the_delete_steps() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let store = StepStore::builder(redis_store(&unique("reaped"), true)).step(Marked("a"));
    let store = store.step(on_delete({
        let seen = seen.clone();
        move |operation, next| {
            let (handle, is_reaped) = (operation.handle(), operation.is_reaped());
            let deleted = next.delete(operation)?;
            seen.lock().unwrap().push((handle, is_reaped, deleted.payload.clone()));
            match deleted.payload.as_deref() {
                Some(b"refused") => Err(Error::new(ErrorKind::Refused, "looking on")),
                _ => Ok(deleted),
            }
        }
    }));
    let store = store.build().unwrap();
    let (refused, reported, deleted) = (store.fresh_id(None), store.fresh_id(None), create(&store, HOUR));
    let _ = store.create(&refused, Write::new(b"refused", SHORT)).unwrap();
    let _ = store.create(&reported, Write::new(b"reported", SHORT)).unwrap();
    assert!(store.delete(&deleted).unwrap());
    // Steps see them also if the caller does not want the payloads.
    let index = store.index().unwrap();
    assert!(eventually(PATIENCE, || {
        assert!(index.reap(0, 9, false).unwrap().sessions.is_empty());
        seen.lock().unwrap().len() == 3
    }));
    let mut seen = seen.lock().unwrap();
    let mut expected = [
        (store.handle(&refused), true, Some(Bytes::from("refused"))),
        (store.handle(&reported), true, Some(Bytes::from("reported"))),
        (store.handle(&deleted), false, None),
    ];
    seen.sort();
    expected.sort();
    assert_eq!(*seen, expected);
    drop(seen);
    for payload in [b"refused".as_slice(), b"reported"] {
        let _ = store.create(&store.fresh_id(None), Write::new(payload, SHORT)).unwrap();
    }
    assert_eq!(reap(&store, 2), [b"reported"], "only the rejected session is not reported");
}

#[test]
fn written_at_lives_and_ends_with_its_session() {
    let prefix = unique("written");
    let clock = Clock::manual();
    let store = StepStore::builder(redis_store(&prefix, true))
        .step(WrittenAt::new().with_clock(clock.clone()))
        .build()
        .unwrap();
    let key = |id: &SessionId| store.inner().key(id);
    let left = |key: &str| redis::from_redis_value::<i64>(shared().cmd(&["PEXPIRETIME", key])).unwrap();
    let written_at = |id: &SessionId| {
        assert_eq!(left(&key(id)), left(&format!("{}:written-at", key(id))), "one deadline for both");
        WrittenAt::of(&store, id).unwrap().map(|time| clock.now().duration_since(time).unwrap().as_secs())
    };
    assert_eq!(WrittenAt::of(&store, &store.fresh_id(None)).unwrap(), None);
    let id = create(&store, HOUR);
    assert_eq!(written_at(&id), Some(0));
    clock.advance(HOUR);
    assert_eq!(written_at(&id), Some(3600));
    for touch in [Touch::Set(HOUR * 2), Touch::Extend(HOUR * 3), Touch::Set(HOUR)] {
        live(&store, &id, touch);
        assert_eq!(written_at(&id), Some(3600), "a read is no write");
    }
    for ttl in [Some(HOUR * 2), None, Some(HOUR)] {
        let _ = store.save(&id, Write::new(b"w", ttl), None).unwrap();
        assert_eq!(written_at(&id), Some(0));
    }
    // A write without the step keeps what is there.
    clock.advance(HOUR);
    let _ = store.inner().save(&id, Write::new(b"x", HOUR * 5), None).unwrap();
    assert_eq!(written_at(&id), Some(3600));
    let between = store.fresh_id(Some(&id));
    let _ = store.inner().rotate(&id, &between, Write::new(b"y", HOUR), None).unwrap();
    assert_eq!(written_at(&between), Some(3600));
    let new = store.fresh_id(Some(&between));
    let _ = store.rotate(&between, &new, Write::new(b"z", HOUR), None).unwrap();
    assert_eq!(written_at(&new), Some(0));
    // A write that does not happen writes nothing.
    let stale = threaded_sessions::store::Version::new(*b"stale");
    clock.advance(HOUR);
    let _ = store.save(&new, Write::new(b"late", HOUR), Some(&stale)).unwrap();
    let _ = store.save(&id, Write::new(b"late", HOUR), None).unwrap();
    assert_eq!(written_at(&new), Some(3600));
    assert!(store.delete(&new).unwrap());
    let left_behind: Vec<String> = keys(&prefix).into_iter().filter(|key| key.contains("written-at")).collect();
    assert!(left_behind.is_empty(), "{left_behind:?}");
}

#[test]
fn written_at_ends_with_its_session() {
    type End = fn(&StepStore<RedisSessionStore>, &SessionId);
    let ends: [(&str, bool, End); 9] = [
        ("deleted", true, |store, id| assert!(store.delete(id).unwrap())),
        ("deleted in a plain store", false, |store, id| assert!(store.delete(id).unwrap())),
        ("ended", true, |store, _| assert_eq!(store.index().unwrap().end("ada", Ending::All).unwrap(), 1)),
        ("all ended", true, |store, _| assert_eq!(store.index().unwrap().end_everybody().unwrap(), 1)),
        ("beyond the cap", true, |store, _| {
            let bind = Bind::To { principal: "ada", cap: Some(1) };
            let newest = store.fresh_id(None);
            let _ = store.create(&newest, Write::new(b"v", HOUR).with_bind(bind)).unwrap();
            assert!(WrittenAt::of(store, &newest).unwrap().is_some());
            assert!(store.delete(&newest).unwrap());
        }),
        ("reaped", true, |store, id| {
            live(store, id, Touch::Set(SHORT));
            reap(store, 1);
        }),
        ("evicted, then reaped", true, |store, id| {
            live(store, id, Touch::Set(SHORT));
            shared().cmd(&["DEL", &store.inner().key(id)]);
            let due = || redis::from_redis_value::<u64>(shared().cmd(&["ZCARD", &index(store, id)])).unwrap();
            assert!(eventually(PATIENCE, || store.index().unwrap().reap(0, 9, false).is_ok() && due() == 0));
        }),
        ("expired in a plain store", false, |store, id| {
            live(store, id, Touch::Set(SHORT));
            assert!(eventually(PATIENCE, || matches!(store.read(id, Touch::No).unwrap(), Found::Absent)));
        }),
        ("evicted, then verified", true, |store, id| {
            shared().cmd(&["DEL", &store.inner().key(id)]);
            assert_eq!(store.index().unwrap().verify(Default::default()).unwrap().dropped, 1);
        }),
    ];
    for (how, expiring, end) in ends {
        let prefix = unique("ended");
        let store = StepStore::builder(redis_store(&prefix, expiring)).step(WrittenAt::new()).build().unwrap();
        let bind = if expiring { Bind::To { principal: "ada", cap: None } } else { Bind::Keep };
        let id = store.fresh_id(None);
        let _ = store.create(&id, Write::new(b"v", HOUR).with_bind(bind)).unwrap();
        assert!(keys(&prefix).contains(&format!("{}:written-at", store.inner().key(&id))), "{how}");
        assert!(WrittenAt::of(&store, &id).unwrap().is_some(), "{how}");
        end(&store, &id);
        assert_eq!(WrittenAt::of(&store, &id).unwrap(), None, "{how}");
        assert_eq!(keys(&prefix), Vec::<String>::new(), "{how}");
    }
}

fn index(store: &StepStore<RedisSessionStore>, id: &SessionId) -> String {
    store.inner().key(id).replace(&id.expose(), "index")
}

#[test]
fn companions_of_expired_session_are_not_inherited() {
    let store = StepStore::builder(redis_store(&unique("heir"), true)).step(WrittenAt::new()).build().unwrap();
    let id = create(&store, SHORT);
    assert!(eventually(PATIENCE, || matches!(store.read(&id, Touch::No).unwrap(), Found::Absent)));
    assert_eq!(WrittenAt::of(&store, &id).unwrap(), None, "it is not visible any more");
    let again = store.inner().create(&id, Write::new(b"w", HOUR)).unwrap();
    assert!(matches!(again, Created::Stored(_)));
    assert_eq!(WrittenAt::of(&store, &id).unwrap(), None, "it was another session's");
}

#[test]
fn the_memory_store_keeps_companions_too() {
    let (inner, clock) = (MemorySessionStore::new(), Clock::manual());
    let inner = inner.with_clock(clock.clone());
    let store = StepStore::builder(inner).step(WrittenAt::new().with_clock(clock.clone())).build().unwrap();
    let id = create(&store, HOUR);
    let first = WrittenAt::of(&store, &id).unwrap().unwrap();
    clock.advance(HOUR / 2);
    let new = store.fresh_id(Some(&id));
    let _ = store.inner().rotate(&id, &new, Write::new(b"w", HOUR), None).unwrap();
    assert_eq!(WrittenAt::of(&store, &new).unwrap(), Some(first));
    assert_eq!(WrittenAt::of(&store, &id).unwrap(), None);
    let _ = store.save(&new, Write::new(b"x", HOUR), None).unwrap();
    assert_eq!(WrittenAt::of(&store, &new).unwrap(), Some(first + HOUR / 2));
    clock.advance(HOUR);
    assert_eq!(WrittenAt::of(&store, &new).unwrap(), None);
}

#[test]
fn unsupported_companions_are_rejected() {
    #[derive(Debug)]
    struct Has(&'static [&'static str]);
    impl Step for Has {
        fn companions(&self) -> Vec<String> {
            self.0.iter().map(|suffix| suffix.to_string()).collect()
        }
    }
    let kind = |result: Result<StepStore<MemorySessionStore>>| result.unwrap_err().kind();
    let builder = || StepStore::builder(MemorySessionStore::new());
    for suffix in ["", "renewed", "a:b", "a b", "a\n", "{a}", "ä"] {
        let suffixes = Box::leak(Box::new([suffix]));
        assert_eq!(kind(builder().step(Has(suffixes)).build()), ErrorKind::Misconfigured, "{suffix:?}");
    }
    assert_eq!(kind(builder().step(WrittenAt::new()).step(WrittenAt::new()).build()), ErrorKind::Misconfigured);
    let shared_already = Arc::new(MemorySessionStore::new());
    let refused = StepStore::builder(shared_already.clone()).step(WrittenAt::new()).build();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misconfigured);

    let undeclared = || {
        on_write(|operation, next| {
            operation.set_companion("surprise", "!");
            next.write(operation)
        })
    };
    for store in [
        Arc::new(MemorySessionStore::new()) as Arc<dyn SessionStore>,
        Arc::new(redis_store(&unique("undeclared"), false)),
    ] {
        let store = StepStore::builder(store).step(undeclared()).build().unwrap();
        let id = store.fresh_id(None);
        let error = store.create(&id, Write::new(b"v", HOUR)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let companions = [Companion::new("surprise", "!")];
        let write = Write::new(b"v", HOUR).with_companions(&companions);
        assert_eq!(store.inner().save(&id, write, None).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(matches!(store.read(&id, Touch::No).unwrap(), Found::Absent));
    }
}
