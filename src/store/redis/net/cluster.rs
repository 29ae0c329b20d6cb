//! A Redis Cluster: which node has which slot, and what to do when it is another one by now.
//!
//! Not by the client's own `ClusterClient`: each of its connections holds one to every node, replicas included, so that one
//! node that hangs concerns all sessions; and it repeats commands by itself, after which nobody can tell an own success from
//! somebody else's change.

use std::fmt;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use crc::{CRC_16_XMODEM, Crc};
use redis::{Client, ErrorKind as Kind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::address;
use super::connection::RedisConnection;
use super::connector::{RedisConnectionManager, Settings};
use super::error::{self, Cause};
use super::server::Server;
use crate::{Error, ErrorKind, Result, operation, sync};

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// How long to wait at least before a node is asked again who has which slot.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// The first wait for a slot that is on its way from one node to another; each is twice as long as the one before.
const FIRST_SLOT_WAIT: Duration = Duration::from_millis(1);
const LONGEST_SLOT_WAIT: Duration = Duration::from_millis(32);

/// What Redis says of a key of a script that is on its way to another node.
const NON_LOCAL_KEY: &str = "non local key";

/// So many redirections follow each other without a wait.
const UNPAUSED_REDIRECTIONS: u32 = 2;

/// The slot of a key: of what is between its first braces, if there is anything, or of all of it.
pub(crate) fn slot(key: &[u8]) -> u16 {
    const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let tag = &rest[..rest.iter().position(|byte| *byte == b'}')?];
        (!tag.is_empty()).then_some(tag)
    });
    CRC16.checksum(tag.unwrap_or(key)) % SLOTS
}

pub(crate) struct Cluster {
    /// The nodes that are known from the start.
    seeds: Vec<(String, u16)>,
    /// How to connect to a node, all but its address.
    manager: RedisConnectionManager,
    /// How many connections there may be to each.
    size: u32,
    map: RwLock<Map>,
    /// When a node was last asked who has which slot. Held by who asks.
    last_refresh: Mutex<Option<Instant>>,
}

/// Who has which slot.
#[derive(Default)]
struct Map {
    nodes: Vec<Arc<Server>>,
    /// For each slot the position of the node that has it, if any. Empty before any node told.
    owners: Vec<Option<u16>>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<Arc<Server>> {
        let position = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(position)).cloned()
    }

    fn at(&self, host: &str, port: u16) -> Option<&Arc<Server>> {
        self.nodes.iter().find(|node| node.manager.address() == Some((host, port)))
    }
}

/// What a node answers that does not have the slot.
enum Redirection {
    /// This one has it.
    Moved(Arc<Server>),
    /// This one is about to have it, and has this key already.
    Ask(Arc<Server>),
    /// The keys of the command are on their way.
    Wait,
}

impl Cluster {
    /// The cluster of which these are nodes. All nodes are connected to as to the first one of them.
    pub(crate) fn new(seeds: &[Client], settings: &Settings, size: u32) -> Result<Self> {
        let refuse = |why: &'static str| Error::misconfigured(operation::BUILD_POOL, why);
        let first = seeds.first().ok_or_else(|| refuse("a cluster needs an address to begin with"))?;
        let manager = RedisConnectionManager::new(first.clone())?.with(settings);
        let addresses = seeds.iter().map(|seed| address::of(seed.get_connection_info()));
        let seeds = addresses.map(|address| address.map(|(host, port)| (host.to_owned(), port)));
        let seeds = seeds.collect::<Option<_>>().ok_or_else(|| refuse("nodes of a cluster are not at Unix sockets"))?;
        Ok(Self { seeds, manager, size, map: RwLock::default(), last_refresh: Mutex::default() })
    }

    pub(crate) fn manager(&self) -> &RedisConnectionManager {
        &self.manager
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Sends a command to the node that has this key. The outer error: it was not carried out.
    pub(crate) fn send(
        &self,
        operation: &'static str,
        until: Instant,
        key: &[u8],
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<RedisResult<Value>> {
        let slot = slot(key);
        let (mut node, mut asking) = (self.owner(operation, until, slot)?, false);
        let (mut redirections, mut wait) = (0, FIRST_SLOT_WAIT);
        loop {
            let answer =
                node.send(
                    operation,
                    until,
                    |connection| {
                        if asking { connection.asking(&command) } else { command(connection) }
                    },
                );
            let error = match answer {
                Ok(Err(error)) => error,
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // Another one may have its slots by now.
                    let other = self.refresh(operation, until, None).ok().and_then(|()| self.known_owner(slot));
                    match other.filter(|other| !Arc::ptr_eq(other, &node)) {
                        Some(other) => (node, asking) = (other, false),
                        None => return Err(error),
                    }
                    continue;
                }
            };
            let Some(redirection) = self.redirection(&error, &node) else { return Ok(Err(error)) };
            redirections += 1;
            if redirections > UNPAUSED_REDIRECTIONS || matches!(redirection, Redirection::Wait) {
                if Instant::now() + wait >= until {
                    return Err(Error::new(ErrorKind::Unavailable, operation).with_source(Cause::of(&error)));
                }
                thread::sleep(wait);
                wait = (wait * 2).min(LONGEST_SLOT_WAIT);
            }
            (node, asking) = match redirection {
                Redirection::Moved(to) => {
                    // It is the one that surely knows.
                    let _ = self.refresh(operation, until, Some(&to));
                    (to, false)
                }
                Redirection::Ask(to) => (to, true),
                Redirection::Wait => (self.owner(operation, until, slot)?, false),
            };
        }
    }

    fn redirection(&self, error: &RedisError, from: &Server) -> Option<Redirection> {
        let to = || {
            let (address, _) = error.redirect_node()?;
            let (host, port) = address.rsplit_once(':')?;
            // Without a host it is the one that was last_refresh.
            let host = if host.is_empty() { from.manager.address()?.0 } else { host };
            self.node(host.trim_matches(['[', ']']), port.parse().ok()?).ok()
        };
        match error.kind() {
            Kind::Server(ServerErrorKind::Moved) => to().map(Redirection::Moved),
            Kind::Server(ServerErrorKind::Ask) => to().map(Redirection::Ask),
            Kind::Server(ServerErrorKind::TryAgain) => Some(Redirection::Wait),
            // What a script met with that reads before it writes.
            Kind::Server(ServerErrorKind::ResponseError)
                if error.detail().is_some_and(|detail| detail.contains(NON_LOCAL_KEY)) =>
            {
                Some(Redirection::Wait)
            }
            _ => None,
        }
    }

    /// The node that has a slot. Before any has told who has it, somebody asks and the others wait.
    pub(crate) fn owner(&self, operation: &'static str, until: Instant, slot: u16) -> Result<Arc<Server>> {
        loop {
            if let Some(node) = self.known_owner(slot) {
                return Ok(node);
            }
            self.refresh(operation, until, None)?;
            if let Some(node) = self.known_owner(slot) {
                return Ok(node);
            }
            if !self.map().owners.is_empty() {
                return Err(
                    Error::new(ErrorKind::Unavailable, operation).with_source("no node of the cluster has the slot")
                );
            }
            let refusals: Vec<_> = self.nodes().iter().filter_map(|node| node.check().err()).collect();
            if let (Some(error), true) = (refusals.first(), refusals.len() >= self.seeds.len()) {
                return Err(error::connect_error(operation, error));
            }
            if Instant::now() >= until {
                let why = "no node of the cluster has told yet who has which slot";
                return Err(Error::new(ErrorKind::TimedOut, operation).with_source(why));
            }
            thread::sleep(FIRST_SLOT_WAIT);
        }
    }

    fn known_owner(&self, slot: u16) -> Option<Arc<Server>> {
        self.map().owner(slot)
    }

    /// The nodes that have slots.
    pub(crate) fn nodes(&self) -> Vec<Arc<Server>> {
        self.map().nodes.clone()
    }

    /// Asks a node who has which slot, `first` if there is one, unless that was asked a moment ago, or is being asked.
    ///
    /// # Errors
    ///
    /// That none told.
    pub(crate) fn refresh(&self, operation: &'static str, until: Instant, first: Option<&Arc<Server>>) -> Result<()> {
        let Ok(mut last_refresh) = self.last_refresh.try_lock() else { return Ok(()) };
        if last_refresh.is_some_and(|last| last.elapsed() < REFRESH_PAUSE) {
            return Ok(());
        }
        let mut failure: Option<Error> = None;
        let known = self.nodes();
        let seeds = self.seeds.iter().filter_map(|(host, port)| self.node(host, *port).ok());
        for node in first.cloned().into_iter().chain(known).chain(seeds) {
            // One that hangs is not to keep the others from being last_refresh.
            let limit = until.min(Instant::now() + self.manager.deadline() / 3);
            let told = node.send(operation, limit, |connection| redis::cmd("CLUSTER").arg("SLOTS").query(connection));
            let error = match told.map(|answer| answer.and_then(|slots| self.parse_slots(slots, &node))) {
                Ok(Ok(())) => {
                    *last_refresh = Some(Instant::now());
                    return Ok(());
                }
                Ok(Err(error)) => error::connect_error(operation, &error),
                Err(error) => error,
            };
            // What does not pass by itself says more than that another one is away.
            failure = failure.filter(|failure| !failure.kind().is_temporary()).or(Some(error));
            if Instant::now() >= until {
                break;
            }
        }
        *last_refresh = Some(Instant::now());
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, operation)))
    }

    /// Draws the map anew, from what a node answered to `CLUSTER SLOTS`.
    fn parse_slots(&self, slots: Value, source: &Server) -> RedisResult<()> {
        let ranges = Vec::<Vec<Value>>::from_redis_value(slots)?;
        let mut drawn = Map { nodes: Vec::new(), owners: vec![None; usize::from(SLOTS)] };
        for range in ranges {
            let mut parts = range.into_iter();
            let (Some(Value::Int(from)), Some(Value::Int(to)), Some(Value::Array(master))) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err((Kind::UnexpectedReturnType, "not the slots of a cluster").into());
            };
            let mut master = master.into_iter();
            let host = master.next().and_then(|host| String::from_redis_value(host).ok()).unwrap_or_default();
            let (Some(Value::Int(port)), Some((own_host, _))) = (master.next(), source.manager.address()) else {
                return Err((Kind::UnexpectedReturnType, "not the slots of a cluster").into());
            };
            // A node that does not know its own address is where it was last_refresh.
            let host = if matches!(&*host, "" | "?") { own_host } else { &host };
            let node = self.node(host, port as u16)?;
            let known = drawn.nodes.iter().position(|known| Arc::ptr_eq(known, &node));
            let position = known.unwrap_or_else(|| {
                drawn.nodes.push(node);
                drawn.nodes.len() - 1
            });
            let range = from.clamp(0, i64::from(SLOTS)) as usize..(to + 1).clamp(0, i64::from(SLOTS)) as usize;
            drawn.owners.get_mut(range).unwrap_or_default().fill(Some(position as u16));
        }
        *sync::write(&self.map) = drawn;
        Ok(())
    }

    /// The node at this address. One that nobody knew is known until the map is drawn anew.
    fn node(&self, host: &str, port: u16) -> RedisResult<Arc<Server>> {
        if let Some(node) = self.map().at(host, port) {
            return Ok(node.clone());
        }
        let manager = self.manager.at(host, port)?;
        let mut map = sync::write(&self.map);
        if let Some(node) = map.at(host, port) {
            return Ok(node.clone());
        }
        let node = Server::open(manager, r2d2::Pool::builder().max_size(self.size));
        map.nodes.push(node.clone());
        Ok(node)
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        sync::read(&self.map)
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

    #[test]
    fn the_slot_of_a_key_is_that_of_its_tag() {
        // From the cluster specification.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), Crc::<u16>::new(&CRC_16_XMODEM).checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }
}
