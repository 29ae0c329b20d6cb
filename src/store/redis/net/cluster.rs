//! A Redis Cluster: sends each command to the node that owns its hash slot, and follows redirections.
//!
//! The pool uses it if its address is that of a cluster. It does not use the client's own `ClusterClient`, for two reasons.
//! Each connection of that client holds a connection to every node, replicas included, so one node that hangs affects all
//! sessions. It also retries commands by itself, and then a store cannot distinguish its own success from another change.
//!
//! Invariant: one operation goes to one hash slot, and is sent to another node only after a redirection or if it was not sent.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, ErrorKind as Kind, RedisError, RedisResult, ServerErrorKind, Value};
use scheduled_thread_pool::ScheduledThreadPool;

use super::address;
use super::circuit;
use super::connection::RedisConnection;
use super::connector::{RedisConnectionManager, Settings};
use super::error::{self, Cause, unreachable};
use super::server::{Outcome, Server};
use super::slots::{self, SlotMap, parse_slots, slot};
use super::threads;
use crate::process::Origin;
use crate::{Error, ErrorKind, Result, operation, sync};

/// The shortest pause between two refreshes of the slot map.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// The first wait for a slot that is being migrated, or for the first slot map. Each wait for a migration is twice as long as
/// the one before.
const FIRST_SLOT_WAIT: Duration = Duration::from_millis(1);
const LONGEST_SLOT_WAIT: Duration = Duration::from_millis(32);

/// Part of the error of a script that meets a key that is being migrated.
const NON_LOCAL_KEY: &str = "non local key";

/// The number of redirections that one operation follows without a wait.
const UNPAUSED_REDIRECTIONS: u32 = 2;

/// The number of redirections to other nodes that one operation follows, unless a slot changes its owner just now. More of them
/// mean that nodes redirect to each other.
const MAX_REDIRECTIONS: u32 = 8;

/// Nodes may redirect to each other while a slot changes its owner, for this part of the deadline.
const LOOP_PATIENCE: u32 = 3;

pub(crate) struct Cluster {
    /// The addresses of the nodes that the caller named.
    seeds: Vec<(String, u16)>,
    /// How to connect to a node, except for its address.
    manager: RedisConnectionManager,
    /// The largest number of connections to each node.
    size: u32,
    /// The threads in which connections to all nodes are opened.
    threads: Arc<ScheduledThreadPool>,
    origin: Origin,
    /// The slots for which nodes redirect to each other.
    loops: Mutex<BTreeMap<u16, Loop>>,
    map: RwLock<SlotMap>,
    /// The time of the last refresh of the slot map. The thread that refreshes the map holds the lock.
    last_refresh: Mutex<Option<Instant>>,
}

/// The node that a command goes to.
struct Route {
    node: Arc<Server>,
    /// True if the node is importing the slot, and serves it only after `ASKING`.
    asking: bool,
}

impl Route {
    fn to(node: Arc<Server>) -> Self {
        Self { node, asking: false }
    }

    fn send(
        &self,
        operation: &'static str,
        kind: circuit::Kind,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        self.node.send(operation, kind, until, |connection| {
            if self.asking { connection.asking(&command) } else { command(connection) }
        })
    }
}

/// Nodes that redirect to each other.
struct Loop {
    since: Instant,
    /// When an operation met it last.
    seen: Instant,
}

/// The reply of a node that does not serve the slot, or not all of its keys.
enum Redirection {
    /// Another node owns the slot.
    Moved(Arc<Server>),
    /// Another node imports the slot, and has the key already.
    Ask(Arc<Server>),
    /// The keys of the command are being migrated.
    Wait,
}

/// Counts the redirections of one operation, and waits between them.
struct Redirections {
    /// How often the operation was sent to another node.
    followed: u32,
    wait: Duration,
}

impl Redirections {
    fn new() -> Self {
        Self { followed: 0, wait: FIRST_SLOT_WAIT }
    }

    /// Counts a detour around a node that cannot be reached. Returns `false` if there were too many.
    fn detour(&mut self) -> bool {
        self.followed += 1;
        !self.are_many()
    }

    /// Returns `true` if there were so many that nodes seem to redirect to each other.
    fn are_many(&self) -> bool {
        self.followed > MAX_REDIRECTIONS
    }

    /// Waits if this redirection needs it.
    ///
    /// # Errors
    ///
    /// Returns the reason if the operation must end, without a wait.
    fn before(&mut self, redirection: &Redirection, until: Instant) -> Result<(), &'static str> {
        let waits = matches!(redirection, Redirection::Wait);
        self.followed += u32::from(!waits);
        if self.followed <= UNPAUSED_REDIRECTIONS && !waits {
            return Ok(());
        }
        if Instant::now() + self.wait >= until {
            return Err("the slot was still moving at the deadline");
        }
        thread::sleep(self.wait);
        self.wait = (self.wait * 2).min(LONGEST_SLOT_WAIT);
        Ok(())
    }
}

impl Cluster {
    /// Creates the cluster that these nodes belong to. The settings of the first one hold for all nodes.
    pub(crate) fn new(seeds: &[Client], settings: &Settings, size: u32) -> Result<Self> {
        let refuse = |why: &'static str| Error::misconfigured(operation::BUILD_POOL, why);
        let first = seeds.first().ok_or_else(|| refuse("a cluster needs an address to begin with"))?;
        let manager = RedisConnectionManager::new(first.clone())?.with(settings)?;
        let addresses = seeds.iter().map(|seed| address::of(seed.get_connection_info()));
        let seeds = addresses.map(|address| address.map(|(host, port)| (host.to_owned(), port)));
        let seeds = seeds.collect::<Option<_>>().ok_or_else(|| refuse("nodes of a cluster are not at Unix sockets"))?;
        Ok(Self {
            seeds,
            manager,
            size,
            threads: threads::for_cluster()?,
            origin: Origin::here(),
            loops: Mutex::default(),
            map: RwLock::default(),
            last_refresh: Mutex::default(),
        })
    }

    pub(crate) fn manager(&self) -> &RedisConnectionManager {
        &self.manager
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Sends a command to the node that owns the slot of this key.
    ///
    /// # Errors
    ///
    /// Returns an error only if no node carried out the command.
    pub(crate) fn send(
        &self,
        operation: &'static str,
        kind: circuit::Kind,
        until: Instant,
        key: &[u8],
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        let slot = slot(key);
        let mut route = Route::to(self.owner(operation, until, slot)?);
        let mut redirections = Redirections::new();
        loop {
            let failed = match route.send(operation, kind, until, &command) {
                Ok(Outcome::Failed(error)) => error,
                Ok(replied) => {
                    if redirections.followed > 0 {
                        sync::lock(&self.loops).remove(&slot);
                    }
                    return Ok(replied);
                }
                Err(not_sent) => {
                    let detour = self.detour(operation, until, slot, &route.node).filter(|_| redirections.detour());
                    route = detour.ok_or(not_sent)?;
                    continue;
                }
            };
            let Some(redirection) = self.redirection(&failed, &route.node) else {
                return Ok(Outcome::Failed(failed));
            };
            if let Err(why) =
                redirections.before(&redirection, until).and_then(|()| self.check_loop(slot, &redirections))
            {
                let why = format!("{why}: {}", Cause::of(&failed));
                return Err(Error::new(ErrorKind::Unavailable, operation).with_source(why));
            }
            route = self.follow(redirection, operation, until, slot)?;
        }
    }

    /// Fails if nodes have redirected to each other for too long. They may do so for a moment while the slot changes its owner.
    /// Operations share this time: only the first ones wait, and later ones fail after [`MAX_REDIRECTIONS`].
    fn check_loop(&self, slot: u16, redirections: &Redirections) -> Result<(), &'static str> {
        if !redirections.are_many() {
            return Ok(());
        }
        let (now, patience) = (Instant::now(), self.manager.deadline() / LOOP_PATIENCE);
        let mut loops = sync::lock(&self.loops);
        let this = loops.entry(slot).or_insert(Loop { since: now, seen: now });
        // No operation has met the loop for a while, so this is another one.
        if now.duration_since(this.seen) > patience {
            this.since = now;
        }
        this.seen = now;
        if now.duration_since(this.since) < patience {
            return Ok(());
        }
        Err("the nodes of the cluster redirect to each other")
    }

    /// Returns the route to a node that took over the slot of an unreachable node, if there is one.
    fn detour(&self, operation: &'static str, until: Instant, slot: u16, unreachable: &Arc<Server>) -> Option<Route> {
        self.refresh(operation, until, None).ok()?;
        self.known_owner(slot).filter(|owner| !Arc::ptr_eq(owner, unreachable)).map(Route::to)
    }

    fn redirection(&self, error: &RedisError, source: &Server) -> Option<Redirection> {
        match error.kind() {
            Kind::Server(ServerErrorKind::Moved) => self.redirected_to(error, source).map(Redirection::Moved),
            Kind::Server(ServerErrorKind::Ask) => self.redirected_to(error, source).map(Redirection::Ask),
            Kind::Server(ServerErrorKind::TryAgain) => Some(Redirection::Wait),
            // A script failed at a key that is being migrated. Scripts read before they write, so nothing has changed.
            Kind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains(NON_LOCAL_KEY)) =>
            {
                Some(Redirection::Wait)
            }
            _ => None,
        }
    }

    /// Returns the node that a redirection names.
    fn redirected_to(&self, error: &RedisError, source: &Server) -> Option<Arc<Server>> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        // A redirection without a host leads to another port of the same host, as in the slot map.
        let host = if slots::is_missing(host) { source.manager.address()?.0 } else { host };
        self.node(host.trim_matches(['[', ']']), port.parse().ok()?).ok()
    }

    fn follow(&self, redirection: Redirection, operation: &'static str, until: Instant, slot: u16) -> Result<Route> {
        Ok(match redirection {
            Redirection::Moved(node) => {
                // Ask the node that the redirection names first, because it knows that it owns the slot. Even if the
                // refresh fails, the command goes to that node.
                let _ = self.refresh(operation, until, Some(&node));
                Route::to(node)
            }
            Redirection::Ask(node) => Route { node, asking: true },
            Redirection::Wait => Route::to(self.owner(operation, until, slot)?),
        })
    }

    /// Returns the node that owns a slot. Until there is a slot map, one thread requests it and the others wait.
    pub(crate) fn owner(&self, operation: &'static str, until: Instant, slot: u16) -> Result<Arc<Server>> {
        loop {
            if let Some(node) = self.known_owner(slot) {
                return Ok(node);
            }
            self.refresh(operation, until, None)?;
            if let Some(node) = self.known_owner(slot) {
                return Ok(node);
            }
            if !self.map().is_empty() {
                let why = "no node of the cluster has the slot";
                return Err(Error::new(ErrorKind::Unavailable, operation).with_source(why));
            }
            self.check_nodes(operation)?;
            if Instant::now() >= until {
                let why = "no node of the cluster has sent the slot map yet";
                return Err(Error::new(ErrorKind::TimedOut, operation).with_source(why));
            }
            thread::sleep(FIRST_SLOT_WAIT);
        }
    }

    /// Returns the node that owns a slot by a map that is as new as possible.
    pub(crate) fn latest_owner(&self, operation: &'static str, until: Instant, slot: u16) -> Result<Arc<Server>> {
        // If no node sends its map, the known owner may still be the right one.
        let _ = self.refresh(operation, until, None);
        self.owner(operation, until, slot)
    }

    fn known_owner(&self, slot: u16) -> Option<Arc<Server>> {
        self.map().owner(slot)
    }

    /// Fails fast if all nodes are unreachable.
    fn check_nodes(&self, operation: &'static str) -> Result<()> {
        let errors: Vec<_> = self.nodes().iter().filter_map(|node| node.check(None).err()).collect();
        match errors.first() {
            Some(error) if errors.len() >= self.seeds.len() => Err(error::connect_error(operation, error)),
            _ => Ok(()),
        }
    }

    /// Returns the nodes that own slots.
    pub(crate) fn nodes(&self) -> Vec<Arc<Server>> {
        self.map().nodes().to_vec()
    }

    /// Refreshes the slot map, unless it was refreshed a moment ago or another thread refreshes it now.
    ///
    /// The node `first` is asked before the others.
    ///
    /// # Errors
    ///
    /// Returns an error if no node sent its slot map.
    fn refresh(&self, operation: &'static str, until: Instant, first: Option<&Arc<Server>>) -> Result<()> {
        let Some(mut last_refresh) = sync::try_lock(&self.last_refresh) else { return Ok(()) };
        if last_refresh.is_some_and(|last| last.elapsed() < REFRESH_PAUSE) {
            return Ok(());
        }
        let result = self.refresh_from_any(operation, until, first);
        *last_refresh = Some(Instant::now());
        result
    }

    /// Asks one node after the other for its slot map, until one sends it.
    fn refresh_from_any(&self, operation: &'static str, until: Instant, first: Option<&Arc<Server>>) -> Result<()> {
        let mut failure: Option<Error> = None;
        let known = self.nodes();
        let seeds = self.seeds.iter().filter_map(|(host, port)| self.node(host, *port).ok());
        for source in first.cloned().into_iter().chain(known).chain(seeds) {
            let Err(error) = self.refresh_from(operation, until, &source) else { return Ok(()) };
            // Prefer a lasting error over a temporary one, because it names something that an operator must change.
            failure = failure.filter(|failure| !failure.kind().is_temporary()).or(Some(error));
            if Instant::now() >= until {
                break;
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, operation)))
    }

    fn refresh_from(&self, operation: &'static str, until: Instant, source: &Server) -> Result<()> {
        // One node that hangs must leave time to ask the others.
        let limit = until.min(Instant::now() + self.manager.deadline() / 3);
        let source_host = source.manager.address().map_or("", |(host, _)| host);
        let outcome = source.send(operation, circuit::Kind::Reads, limit, |connection| {
            redis::cmd("CLUSTER").arg("SLOTS").query(connection)
        })?;
        let owned = outcome.into_result().and_then(|reply| {
            let ranges = parse_slots(reply, source_host)?;
            // A node that was reset is in no cluster. It must not replace the map of those that are.
            if ranges.is_empty() {
                return Err(unreachable("the node knows no slots of the cluster"));
            }
            let owned = ranges.into_iter().map(|range| Ok((range.slots, self.node(&range.host, range.port)?)));
            owned.collect::<RedisResult<Vec<_>>>()
        });
        let owned = owned.map_err(|error| error::connect_error(operation, &error))?;
        let before = mem::replace(&mut *sync::write(&self.map), SlotMap::new(owned));
        // Drop it without the lock: the last reference to a node closes its connections, and observers learn of each.
        drop(before);
        Ok(())
    }

    /// Returns the node at this address. A new node stays in the slot map until the next refresh.
    fn node(&self, host: &str, port: u16) -> RedisResult<Arc<Server>> {
        if let Some(node) = self.map().at(host, port) {
            return Ok(node.clone());
        }
        let manager = self.manager.at(host, port)?;
        let mut map = sync::write(&self.map);
        if let Some(node) = map.at(host, port) {
            return Ok(node.clone());
        }
        let settings = r2d2::Pool::builder().max_size(self.size).thread_pool(self.threads.clone());
        let node = Server::open(manager, settings).map_err(|error| unreachable(&error.to_string()))?;
        map.add(node.clone());
        Ok(node)
    }

    fn map(&self) -> RwLockReadGuard<'_, SlotMap> {
        sync::read(&self.map)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // As in a server: a child of the process must not take the lock of these threads.
        if !self.origin.is_here() {
            mem::forget(self.threads.clone());
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.nodes().iter().map(|node| node.manager.breaker().address().to_owned()).collect();
        f.debug_struct("Cluster").field("nodes", &nodes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence;

    #[test]
    fn map_is_refreshed_after_a_panic() {
        // No server listens there.
        let seed = Client::open("redis://127.0.0.1:1").unwrap();
        let cluster = Cluster::new(&[seed], &Settings::default(), 1).unwrap();
        let panicked = fence::call(|| {
            let _last_refresh = sync::lock(&cluster.last_refresh);
            panic!("in the middle of a refresh");
        });
        assert!(panicked.is_none() && cluster.last_refresh.is_poisoned());
        let refreshed = cluster.refresh(operation::CONNECT, Instant::now() + cluster.manager.deadline(), None);
        assert!(refreshed.is_err(), "it asks the node");
    }
}
