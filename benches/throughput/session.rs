//! The session level: a typed value of 1 KiB, compared with bare commands that send a payload of the same size without a codec.

use std::sync::Arc;

use redis::Value;
use threaded_sessions::codec::Envelope;
use threaded_sessions::{
    Codec, Json, MessagePack, OnConflict, Outcome, RedisSessionStore, Session, SessionId, SessionManager,
};

use super::by_hand::{ByHand, Operation, seed};
use super::floor::Floor;
use super::measure::{Act, Load, Place, go};
use super::report::Report;
use super::store::plural;
use super::support::RedisServer;
use super::visit::Visit;

/// Sessions that a thread has open at once.
const SESSIONS: usize = 32;

pub(crate) fn run(report: &mut Report, server: &RedisServer) {
    for (place, threads) in [(Place::Together, 1), (Place::Apart, 16)] {
        go(place, server);
        level(report, server, threads, "JSON", Json::new);
        level(report, server, threads, "MessagePack", MessagePack::new);
    }
}

fn level<C: Codec<Visit>>(
    report: &mut Report,
    server: &RedisServer,
    threads: usize,
    name: &str,
    codec: impl Fn() -> C,
) {
    let mut visit = Visit::ordinary();
    let before = codec().encode(&Envelope::new(&visit)).expect("it can be encoded");
    visit.count += 1;
    let after = codec().encode(&Envelope::new(&visit)).expect("it can be encoded");
    let (bytes, what) = (before.len(), plural(threads));
    report.section(&format!("session, plain, {name} of {bytes} bytes, TCP, {threads} {what}"));
    let bench = Bench::new(server, threads, [before, after], codec);
    // Reading needs nothing to be prepared, so it is not cut into batches.
    let usual = Load::usual(threads);
    let long = report.plan(usual, 1);
    let batches = report.plan(Load { threads, each: SESSIONS }, usual.each.div_ceil(SESSIONS));
    let mut row = |name: &str, plan, floor: Operation, change| {
        let hand = ByHand::new(&bench.floor, floor, None);
        let leaner = name.ends_with("against SET XX");
        let by_hand = |load| if leaner { bench.set_xx(&hand, load) } else { bench.by_hand(&hand, floor, load) };
        let sessions = |load| bench.sessions(change, load);
        report.compare(name, plan, server, &by_hand, &sessions);
    };
    row("read", long, Operation::Read, Does::Read);
    row("read with touch", long, Operation::Touch, Does::ReadWithTouch);
    row("save, last write wins", batches, Operation::Save, Does::Save(OnConflict::LastWriteWins));
    row("  last write wins against SET XX", batches, Operation::Save, Does::Save(OnConflict::LastWriteWins));
    row("save, merge", batches, Operation::SaveIfUnchanged, Does::Save(OnConflict::Merge));
    row("  merge against SET XX", batches, Operation::Save, Does::Save(OnConflict::Merge));
    row("create", batches, Operation::Create, Does::Create);
    row("renew", batches, Operation::Renew, Does::Renew);
    row("destroy", batches, Operation::Destroy, Does::Destroy);
}

#[derive(Clone, Copy)]
enum Does {
    Read,
    ReadWithTouch,
    Save(OnConflict),
    Create,
    Renew,
    Destroy,
}

struct Bench<'a> {
    server: &'a RedisServer,
    floor: Floor,
    store: Arc<RedisSessionStore>,
    /// With and without a touch when it reads.
    touching: SessionManager<Visit>,
    reading: SessionManager<Visit>,
    /// The payload of a session before and after a change.
    before: Vec<u8>,
    after: Vec<u8>,
}

impl<'a> Bench<'a> {
    fn new<C: Codec<Visit>>(
        server: &'a RedisServer,
        threads: usize,
        [before, after]: [Vec<u8>; 2],
        codec: impl Fn() -> C,
    ) -> Self {
        let store = RedisSessionStore::builder().url(server.url()).pool_size(threads as u32).build();
        let store = Arc::new(store.expect("the settings are valid"));
        let builder = || SessionManager::builder_with_codec(store.clone(), codec());
        Self {
            server,
            floor: Floor::new(&server.url(), threads),
            touching: builder().build().expect("the settings are valid"),
            reading: builder().touch_on_read(false).build().expect("the settings are valid"),
            store,
            before,
            after,
        }
    }

    /// Stores a session for each time that a thread acts.
    fn stored(&self, load: Load) -> Vec<Vec<SessionId>> {
        let ids: Vec<Vec<SessionId>> =
            (0..load.threads).map(|_| (0..load.each).map(|_| SessionId::random()).collect()).collect();
        seed(&mut self.server.connection(), &self.keys(&ids.concat()), &self.before, None);
        ids
    }

    fn keys(&self, ids: &[SessionId]) -> Vec<String> {
        ids.iter().map(|id| self.store.key(id)).collect()
    }

    fn by_hand<'b>(&'b self, hand: &'b ByHand, operation: Operation, load: Load) -> Vec<Act<'b>> {
        self.for_each_key(operation, load, move |key| {
            let (before, after) = (&self.before, &self.after);
            match operation {
                Operation::Read | Operation::Touch => assert_eq!(hand.read(key).len(), before.len()),
                Operation::Save | Operation::SaveIfUnchanged | Operation::Create => hand.write(key, after, before),
                Operation::Renew => hand.renew(key, &self.store.key(&SessionId::random()), after, before),
                Operation::Destroy => hand.destroy(key),
            }
        })
    }

    /// A save that looks at nothing that is there but whether something is.
    fn set_xx<'b>(&'b self, hand: &'b ByHand, load: Load) -> Vec<Act<'b>> {
        self.for_each_key(Operation::Save, load, move |key| {
            assert_eq!(self.floor.query(hand.set(key, &self.after).arg("XX")), Value::Okay);
        })
    }

    /// Calls a function with one key for each act of a thread. A session is stored under each key, unless the act creates it.
    fn for_each_key<'b>(
        &'b self,
        operation: Operation,
        load: Load,
        act: impl Fn(&str) + Clone + Send + 'b,
    ) -> Vec<Act<'b>> {
        let ids = self.stored(load);
        if operation == Operation::Create {
            seed(&mut self.server.connection(), &[], &[], None);
        }
        let acts = ids.into_iter().map(|ids| {
            let (mut keys, act) = (self.keys(&ids).into_iter(), act.clone());
            Box::new(move || act(&keys.next().expect("one for each time"))) as Act<'b>
        });
        acts.collect()
    }

    fn sessions(&self, does: Does, load: Load) -> Vec<Act<'_>> {
        let manager = if matches!(does, Does::Read) { &self.reading } else { &self.touching };
        if matches!(does, Does::Read | Does::ReadWithTouch) {
            let act = |ids: Vec<SessionId>| {
                let mut ids = ids.into_iter();
                Box::new(move || {
                    let id = ids.next().expect("one for each time");
                    let session = manager.open_id(&id).expect("Redis responds").expect("it lives");
                    assert_eq!(session.count, 1);
                }) as Act<'_>
            };
            return self.stored(load).into_iter().map(act).collect();
        }
        if matches!(does, Does::Create) {
            seed(&mut self.server.connection(), &[], &[], None);
            let fresh = || (0..load.each).map(|_| (manager.fresh(), Visit::ordinary())).collect::<Vec<_>>();
            let act = |fresh: Vec<(Session<Visit>, Visit)>| {
                let mut fresh = fresh.into_iter();
                Box::new(move || {
                    let (mut session, visit) = fresh.next().expect("one for each time");
                    *session = visit;
                    assert_eq!(manager.commit(session).expect("Redis responds").outcome(), Outcome::Stored);
                }) as Act<'_>
            };
            return (0..load.threads).map(|_| fresh()).map(act).collect();
        }
        let act = |ids: Vec<SessionId>| {
            let open = |id| manager.open_id(id).expect("Redis responds").expect("it lives");
            let mut sessions = ids.iter().map(open).collect::<Vec<_>>().into_iter();
            Box::new(move || {
                let mut session = sessions.next().expect("one for each time");
                let outcome = match does {
                    Does::Save(policy) => {
                        session.on_conflict(policy);
                        session.count += 1;
                        Outcome::Stored
                    }
                    Does::Renew => {
                        session.renew();
                        Outcome::Stored
                    }
                    _ => {
                        session.destroy();
                        Outcome::Destroyed
                    }
                };
                assert_eq!(manager.commit(session).expect("Redis responds").outcome(), outcome);
            }) as Act<'_>
        };
        self.stored(load).into_iter().map(act).collect()
    }
}
