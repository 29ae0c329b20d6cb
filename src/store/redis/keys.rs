use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::net::cluster::{self, SLOTS};
use crate::{Error, Handle, Result, SessionId, operation};

/// The last part of the name of an index.
const INDEX: &str = "index";

/// How a session id becomes a key in Redis (rrss `:key-mapper`).
#[derive(Clone, Default)]
pub(super) enum KeyMapper {
    /// `PREFIX:ID`, the default: one looks at a cookie and finds its session.
    #[default]
    Plain,
    /// `PREFIX:` and the SHA-256 of the id: who gets to see a copy of the database, or its `MONITOR`, has no id that a
    /// cookie could carry.
    Hashed,
    /// A function of one's own, which must give different keys for different ids. Only with one partition.
    Custom(Arc<dyn Fn(&SessionId) -> String + Send + Sync>),
}

impl fmt::Debug for KeyMapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Hashed => "Hashed",
            Self::Custom(_) => "Custom(..)",
        })
    }
}

/// The names of everything a store keeps.
///
/// With several partitions, and always in a cluster, each name carries its partition as a hash tag, `sessions:{7}:ID`, so
/// that a session and what goes with it lie in one slot.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    mapper: KeyMapper,
    partitions: u32,
    /// The tag of each partition; none if names carry none.
    tags: Arc<[u32]>,
    /// The index of each partition.
    indexes: Arc<[String]>,
}

impl Keys {
    pub(super) fn new(prefix: String, mapper: KeyMapper, partitions: u32, in_cluster: bool) -> Result<Self> {
        let tagged = partitions > 1 || in_cluster;
        let refuse = |why: &'static str| Err(Error::misconfigured(operation::NAME_KEYS, why));
        if prefix.is_empty() {
            return refuse("the prefix is empty");
        }
        if partitions == 0 {
            return refuse("there must be at least one partition");
        }
        if partitions > u32::from(SLOTS) {
            return refuse("there are more partitions than a cluster has slots, 16384");
        }
        if tagged && prefix.contains(['{', '}']) {
            return refuse("a prefix with braces would be the hash tag instead of the partition");
        }
        if tagged && matches!(mapper, KeyMapper::Custom(_)) {
            return refuse(
                "keys of a custom key mapper carry no hash tag: not with several partitions, nor in a cluster",
            );
        }
        let tags = if tagged { tags(partitions) } else { Vec::new() };
        let mut keys = Self { prefix, mapper, partitions, tags: tags.into(), indexes: Arc::new([]) };
        keys.indexes = (0..partitions).map(|partition| keys.name(partition, INDEX)).collect();
        Ok(keys)
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a session.
    pub(super) fn session(&self, id: &SessionId) -> String {
        let (partition, buffer) = (id.partition(self.partitions), &mut [0; 36]);
        match &self.mapper {
            KeyMapper::Plain => self.name(partition, id.expose_in(buffer)),
            KeyMapper::Hashed => self.name(partition, &hex::encode(Sha256::digest(id.expose_in(buffer)))),
            KeyMapper::Custom(map) => map(id),
        }
    }

    /// The partition of the session that lives under this key; `None` if the key does not have the shape of a session's, and
    /// for any key of a custom mapper.
    pub(super) fn partition_of(&self, key: &[u8]) -> Option<u32> {
        let (head, last) = str::from_utf8(key).ok()?.rsplit_once(':')?;
        let shaped = match self.mapper {
            KeyMapper::Plain => last.parse::<SessionId>().is_ok(),
            KeyMapper::Hashed => last.parse::<Handle>().is_ok(),
            KeyMapper::Custom(_) => false,
        };
        let partition = match &*self.tags {
            [] => 0,
            tags => {
                let tag: u32 = head.rsplit_once(":{")?.1.strip_suffix('}')?.parse().ok()?;
                tags.iter().position(|known| *known == tag)? as u32
            }
        };
        (shaped && self.name(partition, last).as_bytes() == key).then_some(partition)
    }

    /// The key that says for a while that the session under `key` was renewed.
    pub(super) fn renewed(&self, key: &str) -> String {
        format!("{key}:renewed")
    }

    /// The key of a companion of the session under `key`; the scripts build it too.
    pub(super) fn companion(&self, key: &str, suffix: &str) -> String {
        format!("{key}:{suffix}")
    }

    /// The index of a partition.
    pub(super) fn index(&self, partition: u32) -> &str {
        &self.indexes[partition as usize]
    }

    /// The beginning of the names of everything in a partition, as the scripts take it.
    pub(super) fn base(&self, partition: u32) -> &str {
        let index = self.index(partition);
        index.strip_suffix(INDEX).unwrap_or(index)
    }

    /// The hash of a partition that says whom its sessions belong to.
    pub(super) fn owners(&self, partition: u32) -> String {
        self.name(partition, "principals")
    }

    /// The index that a session is in.
    pub(super) fn index_of(&self, id: &SessionId) -> &str {
        self.index(id.partition(self.partitions))
    }

    /// The key base of the partition that a session is in.
    pub(super) fn base_of(&self, id: &SessionId) -> &str {
        self.base(id.partition(self.partitions))
    }

    pub(super) fn handle(&self, id: &SessionId) -> Handle {
        Handle::of_key(self.session(id).as_bytes())
    }

    pub(super) fn fresh_id(&self, near: Option<&SessionId>) -> SessionId {
        near.map_or_else(SessionId::random, |near| SessionId::random_near(near, self.partitions))
    }

    fn name(&self, partition: u32, last: &str) -> String {
        match self.tags.get(partition as usize) {
            None => [&self.prefix, ":", last].concat(),
            Some(tag) => format!("{}:{{{tag}}}:{last}", self.prefix),
        }
    }
}

/// The hash tags of so many partitions: for each the smallest number whose slot lies in its part of the slots, so that nodes
/// with as many slots have as many sessions. (The slots of 0, 1, 2 and so on lie in clumps.)
fn tags(partitions: u32) -> Vec<u32> {
    let mut tags = vec![None; partitions as usize];
    let mut open = partitions;
    for tag in 0.. {
        let part = u64::from(cluster::slot(tag.to_string().as_bytes())) * u64::from(partitions) / u64::from(SLOTS);
        if tags[part as usize].is_none() {
            tags[part as usize] = Some(tag);
            open -= 1;
        }
        if open == 0 {
            break;
        }
    }
    tags.into_iter().flatten().collect()
}

/// The name of a principal in keys: of one shape whatever they are called, and not telling who they are.
pub(super) fn owner(principal: &str) -> String {
    hex::encode(&Sha256::digest(principal)[..16])
}
