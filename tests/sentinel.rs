//! A store on the master that Sentinels name: no acknowledged and replicated change is lost when the master is lost, replaced, or
//! returns.

mod support;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use support::{PATIENCE, RedisServer, Sentinels, alone, eventually, texts, unique};
#[cfg(feature = "near-cache")]
use support::{heat, is_gone, near};
use threaded_sessions::redis::{self, Client};
use threaded_sessions::store::{Created, Found, Saved, Touch, Write};
use threaded_sessions::{EndReason, ErrorKind, RedisSessionStore, SessionId, SessionManager, SessionStore, contract};

const HOUR: Duration = Duration::from_secs(3600);
const THREADS: usize = 8;

/// For tests that leave the master where it is.
static SHARED: LazyLock<Sentinels> = LazyLock::new(Sentinels::start);

fn open(url: String) -> RedisSessionStore {
    RedisSessionStore::open(&url).unwrap()
}

fn create(store: &RedisSessionStore) -> Result<(), ErrorKind> {
    let created = store.create(&store.fresh_id(None), Write::new(b"v", HOUR));
    created.map(drop).map_err(|error| error.kind())
}

fn client(server: &RedisServer) -> Client {
    Client::open(server.url()).unwrap()
}

#[test]
fn the_contract_holds_with_sentinels_by_url() {
    let _alone = alone();
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(SHARED.url()).prefix(unique("url")).deadline(PATIENCE);
        contract::all(&if expiring { builder.expiring() } else { builder }.build().unwrap(), sleep);
    }
}

#[test]
fn the_contract_holds_with_sentinels_by_clients() {
    let _alone = alone();
    for expiring in [false, true] {
        // Where the client of the master leads does not matter.
        let master = Client::open("redis://127.0.0.1:1/2").unwrap();
        let sentinels = SHARED.sentinels.iter().map(client);
        let builder = RedisSessionStore::builder().sentinel(Sentinels::NAME, sentinels, master);
        let builder = builder.prefix(unique("clients")).deadline(PATIENCE);
        contract::all(&if expiring { builder.expiring() } else { builder }.build().unwrap(), sleep);
    }
}

#[test]
fn unknown_sentinel_master_name_is_reported() {
    let _alone = alone();
    let mut down = RedisServer::start();
    down.kill();
    let [first, second] = [&SHARED.sentinels[0], &SHARED.sentinels[1]];
    for sentinels in [&[first, second][..], &[&down, first], &[first, &down]] {
        let url = SHARED.url_by(sentinels).replace(Sentinels::NAME, "nobody");
        let error = open(url).read(&SessionId::random(), Touch::No).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let why = error.source().unwrap().to_string();
        assert!(why.contains("no master is named nobody"), "{why}");
    }
    // Of two that are named so, the other one.
    let error = open(SHARED.url_by(&[&down])).read(&SessionId::random(), Touch::No).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.source().unwrap().to_string().contains("refused"), "{error:?}");
    down = RedisServer::start();
    // A Redis is no Sentinel, which does not pass by itself.
    let away = RedisServer::start();
    away.kill();
    for sentinels in [&[&down][..], &[&away, &down], &[&down, &away]] {
        let error = open(SHARED.url_by(sentinels)).read(&SessionId::random(), Touch::No).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
        assert!(error.source().unwrap().to_string().contains("unknown command"), "{error:?}");
    }
}

/// A session whose payload has its name and a counter.
struct Visitor {
    id: SessionId,
    /// The count that a replica is known to have.
    confirmed: u64,
    /// The highest count that was sent.
    sent: u64,
    /// The highest count that was acknowledged.
    stored: u64,
    /// The number of acknowledged changes that were lost.
    undone: u64,
}

impl Visitor {
    fn new(store: &RedisSessionStore, replicas: usize) -> Self {
        let new = Self { id: store.fresh_id(None), confirmed: 0, sent: 0, stored: 0, undone: 0 };
        let created = store.create(&new.id, Write::new(new.payload(0).as_bytes(), HOUR)).unwrap();
        assert!(matches!(created, Created::Stored(_)));
        assert!(eventually(PATIENCE, || new.confirm(store, replicas).is_some()), "replicas follow");
        new
    }

    fn payload(&self, visits: u64) -> String {
        format!("{} {visits} {}", self.id.expose(), "x".repeat(300))
    }

    fn visits(&self, payload: &[u8]) -> u64 {
        let text = str::from_utf8(payload).unwrap();
        let visits = text.split(' ').nth(1).and_then(|visits| visits.parse().ok()).expect(text);
        assert_eq!(text, self.payload(visits), "not the visitor's own session");
        assert!((self.confirmed..=self.sent).contains(&visits), "{} {visits} {}", self.confirmed, self.sent);
        visits
    }

    /// Returns the count that so many replicas have: a later write over the same connection has reached them.
    fn confirm(&self, store: &RedisSessionStore, replicas: usize) -> Option<u64> {
        let mut connection = store.pool().get().ok()?;
        let there: Vec<u8> = redis::cmd("GET").arg(store.key(&self.id)).query(&mut connection).ok()?;
        redis::cmd("SET").arg(format!("{}:seen", store.key(&self.id))).arg(1).exec(&mut connection).ok()?;
        let have: usize = redis::cmd("WAIT").arg(replicas).arg(200).query(&mut connection).ok()?;
        (have >= replicas).then(|| self.visits(&there))
    }

    fn visit(&mut self, store: &RedisSessionStore) -> Result<(), ErrorKind> {
        let found = store.read(&self.id, Touch::Set(HOUR)).map_err(|error| error.kind())?;
        let Found::Live(there) = found else { panic!("a session is lost: {found:?}") };
        let visits = self.visits(&there.payload);
        self.undone += self.stored.saturating_sub(visits);
        self.stored = visits;
        self.sent = self.sent.max(visits + 1);
        let next = self.payload(visits + 1);
        match store.save(&self.id, Write::new(next.as_bytes(), HOUR), Some(&there.version)) {
            Ok(Saved::Stored(_)) => self.stored = visits + 1,
            // A write that timed out may have arrived late.
            Ok(Saved::Conflict(_)) => {}
            Ok(Saved::Missing | Saved::OverCap) => panic!("a session is lost"),
            Err(error) => return Err(error.kind()),
        }
        Ok(())
    }
}

/// When a visit was over, what it took and what came of it.
type Visit = (Instant, Duration, Result<(), ErrorKind>);

/// Threads that serve visitors, each its own.
struct Load<'a> {
    store: &'a RedisSessionStore,
    /// How many of them confirm a change.
    replicas: usize,
    visitors: Vec<Mutex<(Visitor, Vec<Visit>)>>,
    over: AtomicBool,
}

impl<'a> Load<'a> {
    fn run(store: &'a RedisSessionStore, replicas: usize, meanwhile: impl FnOnce(&Self)) {
        assert!(eventually(PATIENCE, || create(store).is_ok()));
        let visitors = (0..THREADS).map(|_| Mutex::new((Visitor::new(store, replicas), Vec::new()))).collect();
        let load = Self { store, replicas, visitors, over: AtomicBool::new(false) };
        thread::scope(|scope| {
            for visitor in &load.visitors {
                scope.spawn(|| load.serve(visitor));
            }
            let _ends_the_threads = OnDrop(|| load.over.store(true, Ordering::Relaxed));
            meanwhile(&load);
        });
        for visitor in &load.visitors {
            let (visitor, _) = &*visitor.lock().unwrap();
            let Found::Live(there) = store.read(&visitor.id, Touch::No).unwrap() else { panic!("a session is lost") };
            visitor.visits(&there.payload);
            assert!(visitor.confirmed > 0, "the replicas follow");
        }
    }

    fn serve(&self, visitor: &Mutex<(Visitor, Vec<Visit>)>) {
        while !self.over.load(Ordering::Relaxed) {
            let mut visitor = visitor.lock().unwrap();
            let begun = Instant::now();
            let result = visitor.0.visit(self.store);
            visitor.1.push((Instant::now(), begun.elapsed(), result));
            if visitor.1.len().is_multiple_of(8)
                && let Some(confirmed) = visitor.0.confirm(self.store, self.replicas)
            {
                visitor.0.confirmed = confirmed;
            }
            drop(visitor);
            sleep(Duration::from_millis(1));
        }
    }

    fn visits(&self) -> Vec<Visit> {
        self.visitors.iter().flat_map(|visitor| visitor.lock().unwrap().1.clone()).collect()
    }

    /// Waits until every thread had so many more visits that went well.
    fn continues(&self) {
        let from = Instant::now();
        let goes_well = |visitor: &Mutex<(Visitor, Vec<Visit>)>| {
            visitor.lock().unwrap().1.iter().filter(|visit| visit.0 > from && visit.2.is_ok()).count() > 20
        };
        assert!(eventually(PATIENCE * 3, || self.visitors.iter().all(goes_well)), "{:?}", self.store.health());
    }

    /// Asserts that the results of the visits so far are documented and came in time. Prints a summary of them.
    fn check(&self, since: Instant, case: &str) {
        let mut kinds = BTreeMap::new();
        for (_, took, result) in self.visits() {
            assert!(took < PATIENCE / 2, "{took:?} until {result:?}");
            if let Err(kind) = result {
                let expected =
                    [ErrorKind::Unavailable, ErrorKind::TimedOut, ErrorKind::MayHaveHappened, ErrorKind::ReadOnly];
                assert!(expected.contains(&kind), "{kind:?}");
                *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
            }
        }
        let longest = self.visits().iter().map(|visit| visit.1).max();
        let last = self.visits().iter().filter(|visit| visit.2.is_err()).map(|visit| visit.0).max();
        let undone: u64 = self.visitors.iter().map(|visitor| visitor.lock().unwrap().0.undone).sum();
        let well = last.map(|last| last.saturating_duration_since(since));
        println!(
            "{case}: errors {kinds:?}, the last after {well:?}; longest visit {longest:?}; {undone} changes undone"
        );
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Until all Sentinels of these name another master than this.
fn replaced<'a>(all: &'a Sentinels, old: &RedisServer, by: &[&RedisServer]) -> &'a RedisServer {
    let names_another = |sentinel: &&RedisServer| all.named_by(sentinel).port() != old.port();
    assert!(eventually(PATIENCE * 3, || by.iter().all(names_another)), "it is replaced");
    all.named_by(by[0])
}

#[test]
fn killed_master_is_replaced_and_may_return() {
    let _alone = alone();
    let all = Sentinels::start();
    let store = open(all.url());
    let old = &all.servers[0];
    Load::run(&store, 1, |load| {
        load.continues();
        let killed = Instant::now();
        old.kill();
        let new = replaced(&all, old, &[&all.sentinels[0]]);
        println!("another master is named after {:?}", killed.elapsed());
        load.continues();
        load.check(killed, "kill -9");

        // It comes back as it was started, an empty master, until the Sentinels make it a replica.
        old.restart();
        let returned = Instant::now();
        let as_master = "return {redis.call('INFO', 'replication'), redis.call('DBSIZE')}";
        let is_replica = || {
            // It cuts its connections when it becomes one, and then loads its data.
            let Ok(reply) = all.try_ask(old, &["EVAL", as_master, "0"]) else { return false };
            let (replication, keys): (String, usize) = redis::from_redis_value(reply).unwrap();
            let is_master = replication.contains("role:master");
            assert!(!is_master || keys == 0, "a client wrote to it");
            !is_master
        };
        assert!(eventually(PATIENCE * 3, is_replica), "it is made a replica");
        println!("the old master is a replica {:?} after its return", returned.elapsed());
        all.settle();
        load.continues();
        let refused: String = all.ask(old, &["INFO", "errorstats"]);
        assert!(!refused.contains("READONLY"), "a client wrote to it: {refused}");
        assert!(all.is_master(new));
        let back = load.visits().into_iter().filter(|visit| visit.0 > returned && visit.2.is_err()).count();
        assert_eq!(back, 0, "no operation fails");
    });
    assert!(store.health().is_healthy());
}

/// How often it may be missed that the store is the first to leave, because the machine is busy.
const ROUNDS: usize = 3;

/// The Sentinels demote the old master only after some ten seconds. Until then it accepts writes, which are lost. Its replicas
/// learn of the change at different times, so only writes that both confirm are safe.
#[test]
fn demoted_master_is_left_despite_taking_writes() {
    let _alone = alone();
    let all = Sentinels::start();
    let store = RedisSessionStore::builder().url(all.url()).announce_ends().build().unwrap();
    let listener = SessionManager::<u32>::new(store.clone()).listener().start().unwrap();
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(b"v", HOUR)).unwrap();
    let watch = listener.watch(&id);
    #[cfg(feature = "near-cache")]
    let cached = cached(all.url(), HOUR);
    Load::run(&store, 2, |load| {
        let is_first_to_leave = || {
            load.continues();
            #[cfg(feature = "near-cache")]
            let hot = heated(&cached);
            let old = all.named_by(&all.sentinels[0]);
            let ordered = Instant::now();
            let order = ["SENTINEL", "FAILOVER", Sentinels::NAME];
            assert!(eventually(PATIENCE * 3, || all.try_ask(&all.sentinels[1], &order).is_ok()));
            let new = replaced(&all, old, &all.sentinels.iter().collect::<Vec<_>>());
            let named = ordered.elapsed();
            let key = load.store.key(&load.visitors[0].lock().unwrap().0.id);
            let on_new = || all.ask::<Vec<u8>>(new, &["GET", &key]);
            let before = on_new();
            assert!(eventually(PATIENCE * 3, || on_new() != before), "it is written to");
            // The old master still replies to the cache, but announces no change on the new one. If the cache stays until the old
            // master is told, the round does not count.
            #[cfg(feature = "near-cache")]
            {
                let _: u64 = all.ask(new, &["DEL", &cached.key(&hot)]);
                assert!(eventually(PATIENCE, || is_gone(&cached, &hot)), "{:?}", near(&cached));
            }
            let (left, is_first) = (ordered.elapsed(), all.is_master(old));
            assert!(eventually(PATIENCE * 3, || !all.is_master(old)), "it is made a replica");
            let demoted = ordered.elapsed();
            println!(
                "named after {named:?}, the store leaves by {left:?}, the old master is demoted after {demoted:?}"
            );
            load.continues();
            all.settle();
            load.check(ordered, "SENTINEL FAILOVER");
            is_first
        };
        assert!((0..ROUNDS).any(|_| is_first_to_leave()), "it is left before it is demoted");
    });
    assert!(store.health().is_healthy());
    // The listener follows the master, and ends arrive from the new one.
    assert!(eventually(PATIENCE, || listener.is_listening()));
    assert!(store.delete(&id).unwrap());
    assert_eq!(watch.wait(PATIENCE).map(|ended| ended.reason), Some(EndReason::Destroyed));
}

#[test]
fn hanging_and_dead_sentinels_delay_no_operation() {
    let _alone = alone();
    let all = Sentinels::start();
    let store = open(all.url_by(&[&all.sentinels[0], &all.sentinels[1], &all.sentinels[2]]));
    let quiet = open(all.url());
    let old = &all.servers[0];
    Load::run(&store, 1, |load| {
        load.continues();
        // One hangs, also for those who come new; two agree on another master.
        all.sentinels[0].stop();
        let killed = Instant::now();
        old.kill();
        replaced(&all, old, &[&all.sentinels[1], &all.sentinels[2]]);
        println!("another master is named after {:?}", killed.elapsed());
        load.continues();
        load.check(killed, "kill -9, and the first Sentinel hangs");
        let begun = Instant::now();
        assert!(eventually(PATIENCE, || create(&open(all.url())).is_ok()), "who comes new");
        assert!(eventually(PATIENCE, || create(&quiet).is_ok()), "who was there, but quiet");
        println!("new and quiet stores are served after {:?}", begun.elapsed());

        // Without any Sentinel, open connections still work.
        all.sentinels[0].resume();
        all.sentinels.iter().for_each(RedisServer::kill);
        let alone = Instant::now();
        load.continues();
        sleep(Duration::from_secs(2));
        load.continues();
        let failed = load.visits().into_iter().filter(|visit| visit.0 > alone && visit.2.is_err()).count();
        assert_eq!(failed, 0, "no operation fails");
        assert!(store.health().is_healthy());
    });
    let begun = Instant::now();
    let error = open(all.url()).read(&SessionId::random(), Touch::No).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "new clients get an error");
    assert!(begun.elapsed() < PATIENCE / 2, "at once");
    all.sentinels[2].restart();
    assert!(eventually(PATIENCE, || create(&open(all.url())).is_ok()), "one is enough");
}

/// A Sentinel that always names this master.
fn stubborn_sentinel(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let port = port.to_string();
    let reply = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
    thread::spawn(move || {
        for mut asked in listener.incoming().flatten() {
            // A client sets up its connection with commands whose replies it ignores.
            let mut bytes = [0; 1024];
            let mut text = String::new();
            while let Ok(count @ 1..) = asked.read(&mut bytes) {
                text += &String::from_utf8_lossy(&bytes[..count]);
                for _ in 0..text.matches("SETINFO").count() {
                    let _ = asked.write_all(b"+OK\r\n");
                }
                if text.contains("GET-MASTER-ADDR-BY-NAME") {
                    let _ = asked.write_all(reply.as_bytes());
                }
                text.clear();
            }
        }
    });
    own
}

#[test]
fn outdated_sentinel_is_not_believed() {
    let _alone = alone();
    let (gone, replica) = (RedisServer::start(), &SHARED.servers[1]);
    gone.kill();
    for wrong in [gone.port(), replica.port()] {
        let url =
            SHARED.url().replacen(&SHARED.sentinels[0].port().to_string(), &stubborn_sentinel(wrong).to_string(), 1);
        let store = open(url);
        assert!(eventually(PATIENCE, || create(&store).is_ok()), "{:?}", store.health());
        // And stays away from it.
        for _ in 0..100 {
            assert_eq!(create(&store), Ok(()));
            sleep(Duration::from_millis(15));
        }
    }
}

/// The lease of a cache whose master is lost.
#[cfg(feature = "near-cache")]
const LEASE: Duration = Duration::from_millis(500);

#[cfg(feature = "near-cache")]
fn cached(url: String, lease: Duration) -> RedisSessionStore {
    let cache = threaded_sessions::NearCache::new().lease(lease);
    RedisSessionStore::builder().url(url).near_cache(cache).build().unwrap()
}

/// A session that the cache serves.
#[cfg(feature = "near-cache")]
fn heated(store: &RedisSessionStore) -> SessionId {
    let id = store.fresh_id(None);
    assert!(eventually(PATIENCE, || store.create(&id, Write::new(b"v", HOUR)).is_ok()));
    heat(store, &id);
    id
}

#[cfg(feature = "near-cache")]
fn reads_go_to_redis_while_it_is_gone(cached: &RedisSessionStore, hot: &SessionId) {
    sleep(LEASE);
    let hits = near(cached).hits;
    for _ in 0..10 {
        assert!(cached.read(hot, Touch::No).is_err(), "no server replies");
    }
    assert_eq!(near(cached).hits, hits);
    assert!(near(cached).out_of_service_for.is_some());
}

#[cfg(feature = "near-cache")]
fn changes_on_the_new_master_reach_the_cache(all: &Sentinels, new: &RedisServer, cached: &RedisSessionStore) {
    for _ in 0..5 {
        let hot = heated(cached);
        let _: u64 = all.ask(new, &["DEL", &cached.key(&hot)]);
        let ended = Instant::now();
        assert!(eventually(LEASE, || is_gone(cached, &hot)), "{:?} after {:?}", near(cached), ended.elapsed());
    }
}

#[test]
fn sentinels_have_passwords_of_their_own() {
    let _alone = alone();
    let all = Sentinels::with_passwords(["of-redis", "of-sentinels"]);
    let store = RedisSessionStore::builder().url(all.url()).expiring().deadline(PATIENCE).build().unwrap();
    contract::all(&store, sleep);
    for (url, word) in [
        (all.url().replace("of-redis", "wrong-one"), "WRONGPASS"),
        (all.url().replace(":of-redis@", ""), "NOAUTH"),
        (all.url().replace("of-sentinels", "wrong-one"), "WRONGPASS"),
        (all.url().replace("&sentinelPassword=of-sentinels", ""), "NOAUTH"),
    ] {
        let error = open(url).read(&SessionId::random(), Touch::No).unwrap_err();
        println!("{word}: {:?} {}", error.kind(), error.source().unwrap());
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        let shown = texts(&error);
        assert!(!shown.contains("of-") && !shown.contains("wrong-one"), "{shown}");
    }
    let credentials = || threaded_sessions::Credentials::password("of-redis");
    let url = all.url().replace("of-redis", "wrong-one");
    let store = RedisSessionStore::builder().url(url).credentials(credentials).build().unwrap();
    assert!(eventually(PATIENCE, || create(&store).is_ok()), "credentials are those of the master");
    #[cfg(feature = "near-cache")]
    let (cached, hot) = {
        let cached = cached(all.url(), LEASE);
        let hot = heated(&cached);
        (cached, hot)
    };
    all.servers[0].kill();
    #[cfg(feature = "near-cache")]
    reads_go_to_redis_while_it_is_gone(&cached, &hot);
    replaced(&all, &all.servers[0], &all.sentinels.iter().collect::<Vec<_>>());
    assert!(eventually(PATIENCE, || create(&store).is_ok()), "and of its successor");
    #[cfg(feature = "near-cache")]
    changes_on_the_new_master_reach_the_cache(&all, all.named_by(&all.sentinels[0]), &cached);
}

#[test]
#[cfg(feature = "cli")]
fn operators_tool_works_with_sentinels() {
    use support::tool::{Tool, check_basics};
    let _alone = alone();
    let prefix = unique("tool");
    let store = RedisSessionStore::builder().url(SHARED.url()).prefix(&prefix).expiring().build().unwrap();
    check_basics(&Tool::new(SHARED.url(), prefix), &store, true);
}
