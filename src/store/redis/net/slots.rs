//! The hash slots of a Redis Cluster: the slot of a key, and the map from slots to nodes.
//!
//! The cluster looks up the node of a key here, and `Keys` spreads partitions over the slots. Invariant: a position in
//! `owners` always points into `nodes`, because both are built together and replaced together.

use std::ops::Range;
use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};
use redis::{ErrorKind as Kind, FromRedisValue, RedisResult, Value};

use super::server::Server;

/// The number of hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// Returns the hash slot of a key: of its hash tag, which stands between its first braces, or of the whole key.
pub(crate) fn slot(key: &[u8]) -> u16 {
    const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let tag = &rest[..rest.iter().position(|byte| *byte == b'}')?];
        (!tag.is_empty()).then_some(tag)
    });
    CRC16.checksum(tag.unwrap_or(key)) % SLOTS
}

/// The map from slots to nodes.
#[derive(Default)]
pub(super) struct SlotMap {
    nodes: Vec<Arc<Server>>,
    /// For each slot, the position in `nodes` of the node that owns it, if any. Empty until a node has sent its map.
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// Builds the map from the slots that each node owns.
    pub(super) fn new(owned: impl IntoIterator<Item = (Range<usize>, Arc<Server>)>) -> Self {
        let mut map = Self { nodes: Vec::new(), owners: vec![None; usize::from(SLOTS)] };
        for (slots, node) in owned {
            let position = map.nodes.iter().position(|known| Arc::ptr_eq(known, &node)).unwrap_or_else(|| {
                map.nodes.push(node);
                map.nodes.len() - 1
            });
            map.owners.get_mut(slots).unwrap_or_default().fill(Some(position as u16));
        }
        map
    }

    /// Returns `true` until a node has sent its map.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Server>> {
        let position = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(position)).cloned()
    }

    /// Returns all known nodes. A node that was [added](Self::add) may own no slot yet.
    pub(super) fn nodes(&self) -> &[Arc<Server>] {
        &self.nodes
    }

    pub(super) fn at(&self, host: &str, port: u16) -> Option<&Arc<Server>> {
        self.nodes.iter().find(|node| node.manager.address() == Some((host, port)))
    }

    /// Adds a node without slots. The next map drops it unless it owns slots by then.
    pub(super) fn add(&mut self, node: Arc<Server>) {
        self.nodes.push(node);
    }
}

/// Returns `true` if a node names no host, because it does not know its own address. It is at the address at which it was asked.
pub(super) fn is_missing(host: &str) -> bool {
    matches!(host, "" | "?")
}

/// Slots that one node owns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) slots: Range<usize>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Parses the reply to `CLUSTER SLOTS` of the node at `source_host`.
pub(super) fn parse_slots(reply: Value, source_host: &str) -> RedisResult<Vec<SlotRange>> {
    let ranges = Vec::<Vec<Value>>::from_redis_value(reply)?;
    ranges
        .into_iter()
        .map(|range| parse_range(range, source_host))
        .collect::<Option<_>>()
        .ok_or_else(|| (Kind::UnexpectedReturnType, "not the slots of a cluster").into())
}

/// Parses one range: its first slot, its last slot, its master, and then its replicas, which are not used.
fn parse_range(range: Vec<Value>, source_host: &str) -> Option<SlotRange> {
    let mut parts = range.into_iter();
    let (Value::Int(first), Value::Int(last), Value::Array(master)) = (parts.next()?, parts.next()?, parts.next()?)
    else {
        return None;
    };
    let mut master = master.into_iter();
    let host = master.next().and_then(|host| String::from_redis_value(host).ok()).unwrap_or_default();
    let Value::Int(port) = master.next()? else { return None };
    let host = if is_missing(&host) { source_host.to_owned() } else { host };
    let limit = |slot: i64| slot.clamp(0, i64::from(SLOTS)) as usize;
    Some(SlotRange { slots: limit(first)..limit(last.saturating_add(1)), host, port: port as u16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reply: &str) -> RedisResult<Vec<SlotRange>> {
        parse_slots(redis::parse_redis_value(reply.as_bytes()).unwrap(), "asked.example")
    }

    #[test]
    fn hash_tag_decides_the_slot() {
        // From the cluster specification.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), Crc::<u16>::new(&CRC_16_XMODEM).checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }

    #[test]
    fn parsed_ranges_have_slots_and_master() {
        let ranges = parse(
            "*2\r\n*4\r\n:0\r\n:99\r\n*2\r\n$3\r\none\r\n:6379\r\n*2\r\n$7\r\nreplica\r\n:6380\r\n\
             *3\r\n:100\r\n:16383\r\n*2\r\n$0\r\n\r\n:6381\r\n",
        );
        let expected = [(0..100, "one", 6379), (100..16_384, "asked.example", 6381)];
        let expected = expected.map(|(slots, host, port)| SlotRange { slots, host: host.to_owned(), port });
        assert_eq!(ranges.unwrap(), expected);
    }

    #[test]
    fn malformed_slots_are_an_error() {
        for reply in ["+OK\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$3\r\none\r\n"] {
            assert!(parse(reply).is_err(), "{reply:?}");
        }
    }
}
