//! The names of all keys that a store keeps in Redis.
//!
//! The store, its index and its check take every key from here. The invariant: with several partitions, and always in a
//! cluster, all keys that belong to one session have the hash tag of its partition, so that they lie in one hash slot.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::net::slots::{self, SLOTS};
use crate::{Error, Handle, Result, SessionId, operation};

/// The last part of the name of an index.
const INDEX: &str = "index";

/// The last part of the name of the marker. No session id has this form.
const MARKER: &str = "store";

/// The last part of the names of a channel for ends, of the reason of an end, and of the marker that all sessions have ended.
pub(super) const ENDED: &str = "ended";

/// The last part of the name of a tombstone.
pub(super) const TOMBSTONE: &str = "renewed";

/// The length of the name of a principal in keys.
const OWNER_LEN: usize = 32;

/// The kind of a key that a store has made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Session,
    /// A companion, the tombstone or the reason of the end of the session with this key.
    PartOf(Vec<u8>),
    /// The set of an owner's sessions.
    Owned(String),
    /// A value of another type that `verify` has moved aside.
    Displaced,
}

/// How a session id becomes a key in Redis (rrss `:key-mapper`).
#[derive(Clone, Default)]
pub(super) enum KeyMapper {
    /// `PREFIX:ID`, the default. An operator can find the session of a cookie.
    #[default]
    Plain,
    /// `PREFIX:` and the SHA-256 of the id. A copy of the database, or the output of `MONITOR`, contains no
    /// id that a cookie could carry.
    Hashed,
    /// A custom function, which must return different keys for different ids. Only with one partition.
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

/// The names of all keys of one store.
///
/// With several partitions, and always in a cluster, each name has the hash tag of its partition, such as `sessions:{7}:ID`.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    mapper: KeyMapper,
    partitions: u32,
    /// The hash tag of each partition; empty if the names have no hash tags.
    tags: Arc<[u32]>,
    /// The index of each partition.
    indexes: Arc<[String]>,
}

impl Keys {
    pub(super) fn new(prefix: String, mapper: KeyMapper, partitions: u32, in_cluster: bool) -> Result<Self> {
        let tagged = partitions > 1 || in_cluster;
        let why = if prefix.is_empty() {
            "the prefix is empty"
        } else if partitions == 0 {
            "there must be at least one partition"
        } else if partitions > u32::from(SLOTS) {
            "there are more partitions than a cluster has slots, 16384"
        } else if tagged && prefix.contains(['{', '}']) {
            "a prefix with braces would be the hash tag instead of the partition"
        } else if tagged && matches!(mapper, KeyMapper::Custom(_)) {
            "keys of a custom key mapper carry no hash tag: not with several partitions, nor in a cluster"
        } else {
            return Ok(Self::named(prefix, mapper, partitions, tagged));
        };
        Err(Error::misconfigured(operation::NAME_KEYS, why))
    }

    fn named(prefix: String, mapper: KeyMapper, partitions: u32, tagged: bool) -> Self {
        let tags = if tagged { tags(partitions) } else { Vec::new() };
        let mut keys = Self { prefix, mapper, partitions, tags: tags.into(), indexes: Arc::new([]) };
        keys.indexes = (0..partitions).map(|partition| keys.name(partition, INDEX)).collect();
        keys
    }

    /// Returns the names of a store that has this prefix, but other partitions or another kind of names.
    #[cfg(feature = "clap")]
    pub(super) fn of_kind(&self, mapper: KeyMapper, partitions: u32, in_cluster: bool) -> Result<Self> {
        Self::new(self.prefix.clone(), mapper, partitions, in_cluster)
    }

    #[cfg(feature = "cli")]
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The key that records which kind of store has the prefix. It has no hash tag, because a store with another number of
    /// partitions must find it too. In a cluster it has a slot of its own.
    pub(super) fn marker(&self) -> String {
        [&self.prefix, ":", MARKER].concat()
    }

    /// The kind of the names of sessions, as the marker records it. All custom mappers have one name, because the store cannot
    /// compare functions.
    pub(super) fn kind(&self) -> &'static str {
        match self.mapper {
            KeyMapper::Plain => "plain",
            KeyMapper::Hashed => "hashed",
            KeyMapper::Custom(_) => "custom",
        }
    }

    /// Returns `true` if this key in the index of a partition cannot be a key of this store, so that another store shares the
    /// prefix. A custom mapper may choose any key.
    pub(super) fn is_foreign(&self, key: &[u8], partition: u32) -> bool {
        !matches!(self.mapper, KeyMapper::Custom(_)) && self.partition_of(key) != Some(partition)
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

    /// Returns the partition of a session's key. Returns `None` if the key does not have the shape of a session's key, and for
    /// all keys of a custom mapper.
    pub(super) fn partition_of(&self, key: &[u8]) -> Option<u32> {
        let (_, last) = str::from_utf8(key).ok()?.rsplit_once(':')?;
        let shaped = match self.mapper {
            KeyMapper::Plain => last.parse::<SessionId>().is_ok(),
            KeyMapper::Hashed => last.parse::<Handle>().is_ok(),
            KeyMapper::Custom(_) => false,
        };
        let (partition, name) = self.split(key)?;
        (shaped && name == last.as_bytes()).then_some(partition)
    }

    /// Returns the partition of a key, and what follows the key base of the partition.
    fn split<'a>(&self, key: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":")?;
        let tags = match &*self.tags {
            [] => return Some((0, rest)),
            tags => tags,
        };
        let rest = rest.strip_prefix(b"{")?;
        let end = rest.iter().position(|byte| *byte == b'}')?;
        let tag = str::from_utf8(&rest[..end]).ok()?;
        let number: u32 = tag.parse().ok()?;
        let partition = tags.iter().position(|known| *known == number)?;
        // A number with a sign or with zeros in front is no tag of the store.
        (number.to_string() == tag).then_some((partition as u32, rest[end + 1..].strip_prefix(b":")?))
    }

    /// Returns `true` if a key lies in the hash slot of a partition. A custom key mapper, which chooses its keys freely, has only
    /// one partition.
    pub(super) fn is_in(&self, partition: u32, key: &[u8]) -> bool {
        self.tags.is_empty() || self.split(key).is_some_and(|(of, _)| of == partition)
    }

    /// Returns the partition and the kind of a key, or `None` if it is no key of the store. `suffixes` are those of companions.
    pub(super) fn kind_of(&self, key: &[u8], suffixes: &[String]) -> Option<(u32, KeyKind)> {
        if let Some(partition) = self.partition_of(key) {
            return Some((partition, KeyKind::Session));
        }
        let (partition, name) = self.split(key)?;
        let name = str::from_utf8(name).ok()?;
        if let Some((_, time)) = name.rsplit_once(":clobbered:")
            && time.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Some((partition, KeyKind::Displaced));
        }
        if let Some(owner) = name.strip_prefix("principal:") {
            let is_owner = owner.len() == OWNER_LEN && owner.bytes().all(|byte| byte.is_ascii_hexdigit());
            return is_owner.then(|| (partition, KeyKind::Owned(owner.to_owned())));
        }
        let (_, suffix) = name.rsplit_once(':')?;
        let session = key[..key.len() - suffix.len() - 1].to_owned();
        let is_part = suffix == TOMBSTONE || suffix == ENDED || suffixes.iter().any(|known| known == suffix);
        (is_part && self.partition_of(&session) == Some(partition)).then_some((partition, KeyKind::PartOf(session)))
    }

    /// Returns the key of the tombstone that a rotation leaves for the session under `key`.
    pub(super) fn tombstone(&self, key: &str) -> String {
        format!("{key}:{TOMBSTONE}")
    }

    /// Returns the key of the reason why the session under `key` ended. The scripts build the same key.
    pub(super) fn reason(&self, key: &str) -> String {
        format!("{key}:{ENDED}")
    }

    /// Returns the key that records, in the partition of an id, that all sessions have ended. The scripts build the same key.
    pub(super) fn all_ended(&self, id: &SessionId) -> String {
        self.name(id.partition(self.partitions), ENDED)
    }

    /// Returns the key of a companion of the session under `key`. The scripts build the same key.
    pub(super) fn companion(&self, key: &str, suffix: &str) -> String {
        format!("{key}:{suffix}")
    }

    /// Returns the pattern for `SCAN` that the keys of all sessions match, and some other keys.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + 2);
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + ":*"
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

    /// The hash of a partition that maps keys of sessions to their owners.
    pub(super) fn owners(&self, partition: u32) -> String {
        self.name(partition, "principals")
    }

    /// The set of an owner's sessions in a partition.
    pub(super) fn owned(&self, partition: u32, owner: &str) -> String {
        self.name(partition, &format!("principal:{owner}"))
    }

    /// The index that a session is in.
    pub(super) fn index_of(&self, id: &SessionId) -> &str {
        self.index(id.partition(self.partitions))
    }

    /// The channel on which scripts announce the ends of sessions of a partition. The scripts build the same name.
    pub(super) fn channel(&self, partition: u32) -> String {
        self.name(partition, ENDED)
    }

    /// The key base of the partition that a session is in.
    pub(super) fn base_of(&self, id: &SessionId) -> &str {
        self.base(id.partition(self.partitions))
    }

    pub(super) fn handle(&self, id: &SessionId) -> Handle {
        Handle::of_key(self.session(id).as_bytes())
    }

    pub(super) fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        beside.map_or_else(SessionId::random, |beside| SessionId::random_beside(beside, self.partitions))
    }

    fn name(&self, partition: u32, last: &str) -> String {
        match self.tags.get(partition as usize) {
            None => [&self.prefix, ":", last].concat(),
            Some(tag) => format!("{}:{{{tag}}}:{last}", self.prefix),
        }
    }
}

/// Returns one hash tag for each partition: the smallest number whose slot lies in the partition's range of slots. So nodes
/// with equally many slots have equally many sessions. (The slots of 0, 1, 2 and so on lie in clumps.)
fn tags(partitions: u32) -> Vec<u32> {
    let mut tags = vec![None; partitions as usize];
    let mut open = partitions;
    for tag in 0.. {
        let part = u64::from(slots::slot(tag.to_string().as_bytes())) * u64::from(partitions) / u64::from(SLOTS);
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

/// Returns the name of a principal in keys: a hash, which has a fixed length and does not reveal the principal.
pub(super) fn owner(principal: &str) -> String {
    hex::encode(&Sha256::digest(principal)[..OWNER_LEN / 2])
}
