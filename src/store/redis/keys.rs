use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Handle, Result, SessionId};

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
/// With several partitions each name carries its partition as a hash tag, `sessions:{7}:ID`, so that in a cluster a
/// session and what goes with it lie in one slot.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    mapper: KeyMapper,
    partitions: u32,
}

impl Keys {
    pub(super) fn new(prefix: String, mapper: KeyMapper, partitions: u32) -> Result<Self> {
        let refuse = |why: &'static str| Err(Error::new(ErrorKind::Misconfigured, "naming keys").with_source(why));
        if prefix.is_empty() {
            return refuse("the prefix is empty");
        }
        if partitions == 0 {
            return refuse("there must be at least one partition");
        }
        if partitions > 1 && prefix.contains(['{', '}']) {
            return refuse("a prefix with braces would be the hash tag instead of the partition");
        }
        if partitions > 1 && matches!(mapper, KeyMapper::Custom(_)) {
            return refuse("keys of a custom key mapper carry no hash tag, so there can only be one partition");
        }
        Ok(Self { prefix, mapper, partitions })
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a session.
    pub(super) fn session(&self, id: &SessionId) -> String {
        let partition = id.partition(self.partitions);
        match &self.mapper {
            KeyMapper::Plain => self.name(partition, &id.expose()),
            KeyMapper::Hashed => self.name(partition, &hex::encode(Sha256::digest(id.expose()))),
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
        let partition = match self.partitions {
            1 => 0,
            _ => head.rsplit_once(":{")?.1.strip_suffix('}')?.parse().ok()?,
        };
        (shaped && partition < self.partitions && self.name(partition, last).as_bytes() == key).then_some(partition)
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
    pub(super) fn index(&self, partition: u32) -> String {
        self.name(partition, "index")
    }

    /// The hash of a partition that says whom its sessions belong to.
    pub(super) fn owners(&self, partition: u32) -> String {
        self.name(partition, "principals")
    }

    /// The index that a session is in.
    pub(super) fn index_of(&self, id: &SessionId) -> String {
        self.index(id.partition(self.partitions))
    }

    pub(super) fn handle(&self, id: &SessionId) -> Handle {
        Handle::of_key(self.session(id).as_bytes())
    }

    pub(super) fn fresh_id(&self, near: Option<&SessionId>) -> SessionId {
        near.map_or_else(SessionId::random, |near| SessionId::random_near(near, self.partitions))
    }

    fn name(&self, partition: u32, last: &str) -> String {
        match self.partitions {
            1 => [&self.prefix, ":", last].concat(),
            _ => format!("{}:{{{partition}}}:{last}", self.prefix),
        }
    }
}

/// The name of a principal in keys: of one shape whatever they are called, and not telling who they are.
pub(super) fn owner(principal: &str) -> String {
    hex::encode(&Sha256::digest(principal)[..16])
}
