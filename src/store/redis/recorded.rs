//! Opening a store of the kind that another program has recorded.
//!
//! Command-line tools use it, because they do not know how the program built its store. The invariant: it writes nothing, and a
//! store that it returns finds the sessions of every store with that record.

use std::fmt;

use redis::Value;

use super::RedisSessionStore;
use super::keys::KeyMapper;
use super::marker::Marker;
use super::near::Door;
use super::net::address::Address;
use super::net::error::Effect;
use super::net::pool::To;
use crate::{Error, ErrorKind, Result, operation};

/// The settings of a store that the key `PREFIX:store` records. No custom function names the keys of such a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedKind(Marker);

impl RecordedKind {
    pub(crate) fn is_expiring(self) -> bool {
        self.0.is_expiring
    }

    pub(crate) fn partitions(self) -> u32 {
        self.0.partitions
    }

    pub(crate) fn has_hashed_keys(self) -> bool {
        self.0.keys == "hashed"
    }
}

/// The text that the record has for this kind.
impl fmt::Display for RecordedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RedisSessionStore {
    /// Reads which kind of store has the prefix. Returns `None` if no store has recorded it.
    pub(crate) fn recorded_kind(&self) -> Result<Option<RecordedKind>> {
        let key = self.keys.marker();
        let stored = self.command(operation::READ_KIND, Effect::Reads, To::Key(&key), redis::cmd("GET").arg(&key));
        let marker = match stored.map(|answer| answer.value) {
            Ok(Value::Nil) => return Ok(None),
            Ok(Value::BulkString(stored)) => Marker::parse(&stored),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::WrongType => None,
            Err(error) => return Err(error),
        };
        let Some(marker) = marker else {
            let why = format!("{key:?} holds a value that no store wrote: check the prefix");
            return Err(Error::misconfigured(operation::READ_KIND, why));
        };
        if marker.keys == "custom" {
            let why = "the program names its keys by a custom function, so only the program finds its sessions";
            return Err(Error::unsupported(operation::READ_KIND, why));
        }
        Ok(Some(RecordedKind(marker)))
    }

    /// Returns a store of this kind, with the prefix and the pool of this one.
    pub(crate) fn of_kind(&self, kind: RecordedKind) -> Result<Self> {
        let mapper = if kind.has_hashed_keys() { KeyMapper::Hashed } else { KeyMapper::Plain };
        let keys = self.keys.of_kind(mapper, kind.partitions(), self.pool.is_cluster())?;
        Ok(Self::new(self.pool.clone(), keys, kind.is_expiring(), self.ends, Door::default()))
    }

    /// Returns the key that records the kind of the store.
    pub(crate) fn marker_key(&self) -> String {
        self.keys.marker()
    }

    /// Returns the prefix and the address of Redis, so that an operator sees which store a command works on.
    #[cfg(feature = "cli")]
    pub(crate) fn place(&self) -> String {
        format!("prefix {:?} in Redis at {}", self.keys.prefix(), self.pool.address())
    }
}

/// Fails if no store could be built with this URL.
pub(crate) fn check_url(url: &str) -> Result<()> {
    Address::parse(url).map(drop)
}
