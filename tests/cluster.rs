//! A store on a Redis Cluster: sessions are found on all nodes, while slots move, and after a master is lost.

mod support;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Cluster, PATIENCE, RedisServer, alone, eventually, shared_cluster, unique};
use threaded_sessions::store::{Bind, Created, Ending, Found, Saved, SessionIndex, Stored, Touch, Write};
use threaded_sessions::{Error, ErrorKind, RedisSessionStore, Result, SessionId, SessionManager, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);

/// In which a store is to be back once the cluster is; and how often it may miss that because the machine is busy.
const BACK: Duration = Duration::from_millis(2500);
const ROUNDS: usize = 3;

fn open(cluster: &Cluster, expiring: bool, deadline: Duration) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(cluster.full_url()).prefix(unique("cluster")).deadline(deadline);
    if expiring { builder.expiring() } else { builder }.build().unwrap()
}

fn index(store: &RedisSessionStore) -> &dyn SessionIndex {
    store.index().unwrap()
}

fn create(store: &RedisSessionStore) -> SessionId {
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(id.expose().as_bytes(), HOUR)).unwrap(), Created::Stored(_)));
    id
}

/// A session whose payload counts. A failover may undo the changes that the replica has not confirmed.
struct Visitor {
    /// The ids that the session may have, the newest last.
    ids: Vec<SessionId>,
    /// The values that it may have: from the last that the replica confirmed to the last that was sent.
    visits: RangeInclusive<u64>,
}

impl Visitor {
    fn arrive(store: &RedisSessionStore, id: SessionId) -> Self {
        assert!(matches!(store.create(&id, Write::new(&payload(&id, 0), HOUR)).unwrap(), Created::Stored(_)));
        Self { ids: vec![id], visits: 0..=0 }
    }

    fn id(&self) -> &SessionId {
        self.ids.last().unwrap()
    }

    /// Forgets earlier states, because the replica has the latest.
    fn confirm(&mut self) {
        self.ids = vec![*self.id()];
        self.visits = *self.visits.end()..=*self.visits.end();
    }

    /// Reads the session and counts on, with every operation that changes it in turn.
    fn visit(&mut self, store: &RedisSessionStore) -> Result<()> {
        let (id, stored) = self.read(store)?;
        let found = self.visits.clone().find(|visits| *stored.payload == *payload(&id, *visits));
        let next = found.expect("not what was stored there") + 1;
        self.visits = *self.visits.start()..=next;
        let saved = if next.is_multiple_of(4) {
            let new = store.fresh_id(Some(&id));
            self.ids.retain(|earlier| *earlier != id);
            self.ids.extend([id, new]);
            store.rotate(&id, &new, Write::new(&payload(&new, next), HOUR), Some(&stored.version))?
        } else {
            store.save(&id, Write::new(&payload(&id, next), HOUR), Some(&stored.version))?
        };
        assert!(matches!(saved, Saved::Stored(_)), "{saved:?}");
        Ok(())
    }

    fn read(&self, store: &RedisSessionStore) -> Result<(SessionId, Stored)> {
        for id in self.ids.iter().rev() {
            if let Found::Live(stored) = store.read(id, Touch::Set(HOUR))? {
                return Ok((*id, stored));
            }
        }
        panic!("a session is lost");
    }
}

fn payload(id: &SessionId, visits: u64) -> Vec<u8> {
    format!("{} {visits} {}", id.expose(), "x".repeat(100)).into_bytes()
}

#[test]
fn sessions_spread_evenly_over_masters() {
    let _alone = alone();
    let cluster = shared_cluster();
    let store = open(cluster, true, PATIENCE);
    let ids: Vec<SessionId> = (0..960).map(|_| create(&store)).collect();
    let masters = cluster.nodes.iter().filter(|node| node.text(&["INFO", "replication"]).contains("role:master"));
    let prefix = store.key(&ids[0]).split(':').next().unwrap().to_owned();
    for master in masters {
        let keys: Vec<String> = redis::from_redis_value(master.cmd(&["KEYS", &format!("{prefix}:*-*")])).unwrap();
        assert!((220..=420).contains(&keys.len()), "{} of 960", keys.len());
    }
    assert_eq!(index(&store).partitions(), 64);
    assert_eq!(index(&store).count().unwrap(), 960);
    let pages: BTreeSet<_> = index(&store).page(0, 2000).unwrap().into_iter().map(|entry| entry.handle).collect();
    assert_eq!(pages, ids.iter().map(|id| store.handle(id)).collect());
    let verified = index(&store).verify(Default::default()).unwrap();
    assert_eq!((verified.added, verified.dropped, verified.displaced), (0, 0, 0));
    assert!(store.check().unwrap().is_empty());
    // Also in one partition, where a cap is atomic.
    let builder = RedisSessionStore::builder().url(cluster.url()).prefix(unique("one")).partitions(1).expiring();
    let store = builder.build().unwrap();
    assert!(matches!(store.read(&create(&store), Touch::No).unwrap(), Found::Live(_)));
}

#[test]
fn the_index_of_every_node_is_repaired() {
    let _alone = alone();
    let cluster = shared_cluster();
    let store = open(cluster, true, PATIENCE);
    let ids: Vec<SessionId> = (0..300).map(|_| create(&store)).collect();
    let prefix = store.key(&ids[0]).split(':').next().unwrap().to_owned();
    for index in cluster.keys(&prefix).iter().filter(|key| key.ends_with(":index")) {
        cluster.master_of(index).cmd(&["DEL", index]);
    }
    assert_eq!(index(&store).count().unwrap(), 0);
    assert_eq!(index(&store).verify(Default::default()).unwrap().added, 300);
    assert_eq!(index(&store).count().unwrap(), 300);
}

#[test]
fn slot_move_under_load_loses_and_fails_nothing() {
    let _alone = alone();
    let cluster = Cluster::start();
    for expiring in [false, true] {
        let store = open(&cluster, expiring, PATIENCE);
        let first = store.fresh_id(None);
        let slot = cluster.slot(&store.key(&first));
        let (over, visits) = (&AtomicBool::new(false), &AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                // Most of them lie in the slot that moves.
                let id = if thread < 6 { store.fresh_id(Some(&first)) } else { store.fresh_id(None) };
                let mut visitor = Visitor::arrive(store, id);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        visitor.visit(store).unwrap();
                        visitor.confirm();
                        visits.fetch_add(1, Ordering::Relaxed);
                        if expiring && thread == 0 {
                            let bound = store.fresh_id(Some(&first));
                            let write = Write::new(b"bound", HOUR).with_bind(Bind::To { principal: "ada", cap: None });
                            assert!(matches!(store.create(&bound, write).unwrap(), Created::Stored(_)));
                            assert!(store.delete(&bound).unwrap());
                        }
                    }
                });
            }
            let moved = std::panic::catch_unwind(|| {
                for _ in 0..6 {
                    let before = visits.load(Ordering::Relaxed);
                    assert!(eventually(PATIENCE, || visits.load(Ordering::Relaxed) > before + 50));
                    let owner = cluster.owner(slot, &cluster.nodes[0]).unwrap().port();
                    let to = cluster.nodes[..3].iter().find(|node| node.port() != owner).unwrap();
                    cluster.migrate(slot, to);
                }
            });
            over.store(true, Ordering::Relaxed);
            assert!(moved.is_ok(), "the visits go on");
        });
        if expiring {
            // Wherever the session was while the slot moved, no list has it after its end.
            assert!(index(&store).list_by_principal("ada").unwrap().is_empty());
            index(&store).verify(Default::default()).unwrap();
        }
        assert_eq!(store.health().failed, 0);
    }
}

#[test]
fn ends_count_all_sessions_of_moving_slot() {
    let _alone = alone();
    let cluster = Cluster::start();
    let store = open(&cluster, true, PATIENCE);
    type End = fn(&dyn SessionIndex) -> u64;
    let ends: [End; 2] = [|index| index.end("ada", Ending::All).unwrap(), |index| index.end_everybody().unwrap()];
    for end in ends {
        let first = store.fresh_id(None);
        let mut ids: Vec<SessionId> = (0..6).map(|_| store.fresh_id(Some(&first))).collect();
        // Redis sorts the sessions of one millisecond by their keys.
        ids.sort_by_key(|id| store.key(id));
        for id in &ids {
            let write = Write::new(b"v", HOUR).with_bind(Bind::To { principal: "ada", cap: None });
            assert!(matches!(store.create(id, write).unwrap(), Created::Stored(_)));
        }
        // Some sessions are on the other node. The script ends those before them and fails there.
        let (slot, from, to) = move_some(&cluster, &store, &ids);
        let count = || from.text(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        let before = count();
        let ended = thread::scope(|scope| {
            let ending = scope.spawn(|| end(index(&store)));
            assert!(eventually(PATIENCE, || count() != before), "a session ends before the slot has moved");
            cluster.migrate(slot, to);
            ending.join().unwrap()
        });
        let live: Vec<bool> =
            ids.iter().map(|id| matches!(store.read(id, Touch::No).unwrap(), Found::Live(_))).collect();
        assert_eq!((ended, live), (ids.len() as u64, vec![false; 6]));
        assert!(ids.iter().all(|id| matches!(store.read(id, Touch::No).unwrap(), Found::Absent)));
    }

    // A plain store sends a pipeline, of which each node carries out a part.
    let store = open(&cluster, false, Duration::from_secs(1));
    let first = store.fresh_id(None);
    let ids: Vec<SessionId> = (0..6).map(|_| store.fresh_id(Some(&first))).collect();
    for id in &ids {
        assert!(matches!(store.create(id, Write::new(b"v", HOUR)).unwrap(), Created::Stored(_)));
    }
    move_some(&cluster, &store, &ids);
    let walked: Vec<_> = store.walk().unwrap().flat_map(|page| page.unwrap().keys).collect();
    assert_eq!(store.end_keys(&walked).unwrap(), ids.len() as u64);
    assert!(ids.iter().all(|id| matches!(store.read(id, Touch::No).unwrap(), Found::Absent)));
}

/// Begins to move the slot of these sessions, and moves all but the first three. Returns the slot and the two nodes.
fn move_some<'c>(
    cluster: &'c Cluster,
    store: &RedisSessionStore,
    ids: &[SessionId],
) -> (u16, &'c RedisServer, &'c RedisServer) {
    let slot = cluster.slot(&store.key(&ids[0]));
    let from = cluster.owner(slot, &cluster.nodes[0]).unwrap();
    let to = cluster.nodes[..3].iter().find(|node| node.port() != from.port()).unwrap();
    let [from_id, to_id] = [from, to].map(|node| node.text(&["CLUSTER", "MYID"]));
    to.cmd(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &from_id]);
    from.cmd(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &to_id]);
    for id in &ids[3..] {
        from.cmd(&["MIGRATE", "127.0.0.1", &to.port().to_string(), &store.key(id), "0", "5000"]);
    }
    (slot, from, to)
}

/// A way to lose a master.
type Loss = fn(&RedisServer);

#[test]
fn lost_master_affects_only_its_own_sessions() {
    let _alone = alone();
    for (expiring, lose) in [(false, RedisServer::kill as Loss), (true, RedisServer::stop)] {
        let mut back = Vec::new();
        while back.last().is_none_or(|back| *back > BACK) {
            assert!(back.len() < ROUNDS, "back after {back:?}");
            back.push(lose_a_master(expiring, lose));
        }
    }
}

/// Returns the time from the failover until all sessions are served again.
fn lose_a_master(expiring: bool, lose: Loss) -> Duration {
    // Otherwise all nodes refuse to serve until the failover.
    let cluster = Cluster::with(&["--cluster-require-full-coverage", "no"]);
    let store = open(&cluster, expiring, Duration::from_millis(500));
    let visitors: Vec<Mutex<Visitor>> = (0..24).map(|_| Visitor::arrive(&store, store.fresh_id(None)).into()).collect();
    let lost = cluster.master_of(&store.key(visitors[0].lock().unwrap().id()));
    let heir = cluster.replica_of(lost);
    let concerned = |visitor: &Visitor| cluster.master_of(&store.key(visitor.id())).port() == lost.port();
    let of_lost: Vec<bool> = visitors.iter().map(|visitor| concerned(&visitor.lock().unwrap())).collect();
    let confirmed: Vec<AtomicUsize> = visitors.iter().map(|_| AtomicUsize::new(0)).collect();
    let (over, strange) = (&AtomicBool::new(false), &Mutex::new(Vec::<Error>::new()));
    let succeeded: Vec<Mutex<Vec<Instant>>> = visitors.iter().map(|_| Mutex::default()).collect();
    let back = thread::scope(|scope| {
        for (number, visitor) in visitors.iter().enumerate() {
            let (store, confirmed, succeeded, of_lost) =
                (&store, &confirmed[number], &succeeded[number], of_lost[number]);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut visitor = visitor.lock().unwrap();
                    let begun = Instant::now();
                    match visitor.visit(store) {
                        Ok(()) => {
                            succeeded.lock().unwrap().push(Instant::now());
                            if !of_lost || is_replicated(store, &store.key(visitor.id())) {
                                visitor.confirm();
                                confirmed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        Err(error) => {
                            let expected = matches!(
                                error.kind(),
                                ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::MayHaveHappened
                            );
                            if !of_lost || !expected || begun.elapsed() > PATIENCE / 2 {
                                strange.lock().unwrap().push(error);
                            }
                        }
                    }
                    drop(visitor);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let watched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(eventually(PATIENCE, || confirmed.iter().all(|count| count.load(Ordering::Relaxed) > 3)));
            lose(lost);
            let began = Instant::now();
            let takes_over = || heir.text(&["INFO", "replication"]).contains("role:master");
            assert!(eventually(PATIENCE, takes_over), "the cluster fails over");
            let at = Instant::now();
            let all_back = || {
                let last = succeeded.iter().map(|times| times.lock().unwrap().last().copied());
                last.min().flatten().filter(|last| *last > at)
            };
            assert!(eventually(PATIENCE, || all_back().is_some()), "{:?}", store.health());
            let back = all_back().unwrap() - at;
            println!("the failover took {:?}, all sessions were served {back:?} after it", at - began);
            back
        }));
        over.store(true, Ordering::Relaxed);
        watched.unwrap()
    });
    let strange = std::mem::take(&mut *strange.lock().unwrap());
    assert!(strange.is_empty(), "{} such as {:?}", strange.len(), strange[0]);
    // The old one comes back, and does no harm.
    lost.restart();
    cluster.settle();
    for visitor in &visitors {
        visitor.lock().unwrap().visit(&store).unwrap();
    }
    back
}

/// Returns `true` if the replica of the server has all writes so far.
fn is_replicated(store: &RedisSessionStore, key: &str) -> bool {
    let Ok(mut connection) = store.pool().get_for(key) else { return false };
    // Redis waits only until the replica has the last write of this connection, so there has to be one.
    let written = redis::cmd("SET").arg(format!("{key}:written")).arg("").arg("PX").arg(1000).exec(&mut connection);
    written.is_ok()
        && redis::cmd("WAIT").arg(1).arg(200).query::<u64>(&mut connection).is_ok_and(|replicas| replicas >= 1)
}

#[test]
fn hanging_node_affects_only_its_own_sessions() {
    let _alone = alone();
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cmd(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
        node.cmd(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = open(&cluster, false, Duration::from_millis(250));
    let ids: Vec<SessionId> = (0..60).map(|_| create(&store)).collect();
    let hangs = cluster.master_of(&store.key(&ids[0]));
    let (its, others): (Vec<_>, Vec<_>) =
        ids.iter().partition(|id| cluster.master_of(&store.key(id)).port() == hangs.port());
    assert!(!others.is_empty());
    hangs.stop();
    let read = |id: &SessionId| store.read(id, Touch::No).map(drop).map_err(|error| error.kind());
    assert!(read(its[0]).is_err());
    assert!(eventually(PATIENCE, || store.health().failing_for.is_some()));
    let mut quick: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        for id in &its {
            let start = Instant::now();
            assert_eq!(read(id), Err(ErrorKind::Unavailable));
            quick.push(start.elapsed());
        }
        for id in &others {
            assert_eq!(read(id), Ok(()));
        }
    }
    quick.sort();
    assert!(quick[quick.len() / 2] < Duration::from_millis(100), "{quick:?}");
    hangs.resume();
    assert!(eventually(PATIENCE, || its.iter().all(|id| read(id) == Ok(()))));
}

#[test]
fn one_reachable_node_is_enough_to_start() {
    let _alone = alone();
    let cluster = Cluster::start();
    cluster.nodes[5].kill();
    let up = &cluster.nodes[1];
    let (down, up) = (cluster.nodes[5].port(), up.port());
    let url = format!("redis-cluster://127.0.0.1:{down}?node=127.0.0.1:{up}");
    let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).build().unwrap();
    for _ in 0..20 {
        assert!(matches!(store.read(&create(&store), Touch::No).unwrap(), Found::Live(_)));
    }
    // Without any reachable node the store fails fast. It works again once a node is back.
    let dead = RedisServer::start();
    dead.kill();
    let store = RedisSessionStore::builder().url(format!("redis-cluster://127.0.0.1:{}", dead.port())).build().unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(store.read(&SessionId::random(), Touch::No).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(start.elapsed() < PATIENCE / 2);
    }
}

#[test]
fn server_without_cluster_mode_is_reported() {
    let _alone = alone();
    let [server, away] = [RedisServer::start(), RedisServer::start()].map(|server| (server.port(), server));
    away.1.kill();
    for (one, other) in [(&server, &server), (&server, &away), (&away, &server)] {
        let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", one.0, other.0);
        let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).build().unwrap();
        for error in [store.read(&SessionId::random(), Touch::No).unwrap_err(), store.check().unwrap_err()] {
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{why}");
            assert!(why.contains("cluster support disabled"), "{error:?} {why}");
        }
    }
}

#[test]
fn session_lives_and_ends_in_a_cluster() {
    let _alone = alone();
    let store = open(shared_cluster(), true, PATIENCE);
    let sessions = SessionManager::<Vec<u32>>::builder(store).max_per_principal(2).build().unwrap();
    let login = |label: &str| {
        let mut session = sessions.fresh();
        session.push(1);
        session.bind("ada", label);
        *sessions.commit(session).unwrap().id().unwrap()
    };
    let ids = ["one", "two", "three"].map(login);
    let labels: Vec<String> = sessions.list("ada").unwrap().into_iter().map(|session| session.label).collect();
    assert_eq!(labels.len(), 2, "{labels:?}");
    assert!(sessions.open_id(&ids[0]).unwrap().is_none(), "the oldest had to go");
    let mut session = sessions.open_id(&ids[2]).unwrap().unwrap();
    session.renew();
    let new = *sessions.commit(session).unwrap().id().unwrap();
    assert!(sessions.open_id(&ids[2]).unwrap().is_none());
    assert_eq!(sessions.update(&new, |list| list.push(2)).unwrap(), Some(()));
    assert_eq!(sessions.end_all("ada").unwrap(), 2);
    assert!(sessions.open_id(&new).unwrap().is_none());
}

#[test]
fn touch_every_moves_only_old_deadlines_in_cluster() {
    let _alone = alone();
    let cluster = shared_cluster();
    let every = HOUR / 6;
    for expiring in [false, true] {
        let store = open(cluster, expiring, PATIENCE);
        let builder = SessionManager::<u32>::builder(store.clone()).idle_timeout(HOUR).touch_every(every);
        let sessions = builder.build().unwrap();
        let mut session = sessions.fresh();
        *session = 1;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let key = store.key(&id);
        let master = cluster.master_of(&key);
        let deadline = || redis::from_redis_value::<u128>(master.cmd(&["PEXPIRETIME", &key])).unwrap();
        let first = deadline();
        assert!(sessions.open_id(&id).unwrap().is_some());
        assert_eq!(deadline(), first, "the session was stored just now");
        let earlier = first - (every + Duration::from_secs(1)).as_millis();
        master.cmd(&["PEXPIREAT", &key, &earlier.to_string()]);
        assert!(sessions.open_id(&id).unwrap().is_some());
        assert!(deadline() >= first, "the last touch was too long ago");
    }
}

#[test]
#[cfg(feature = "cli")]
fn operators_tool_works_in_a_cluster() {
    use support::tool::{Tool, check_basics};
    let cluster = shared_cluster();
    let deadline = Duration::from_secs(5);
    for expiring in [true, false] {
        let prefix = unique("tool");
        let builder =
            RedisSessionStore::builder().url(cluster.full_url()).prefix(&prefix).deadline(deadline).partitions(4);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        check_basics(&Tool::new(cluster.full_url(), prefix), &store, expiring);
    }
}
