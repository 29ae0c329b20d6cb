//! The check of a Redis at the start of a program.
//!
//! Applications call [`RedisSessionStore::check`] once, before they serve. The invariant: it changes no session of the
//! application. It fails only if the store cannot work, or if another kind of store has the prefix. If the server or its user
//! lacks a command that only the check needs, the check warns.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::RedisSessionStore;
use super::marker::{Marker, Marking};
use super::net::error::Effect;
use super::net::pool::To;
use super::net::server::Server;
use crate::store::{Created, Found, Saved, SessionStore, Touch, Write};
use crate::{Error, ErrorKind, Result, operation};

/// A script that returns 1 if the user may publish and subscribe on a channel. `KEYS[1]` is a key in the slot of the channel.
const MAY_USE_CHANNEL: &str = "\
    local may = redis.acl_check_cmd(ARGV[1], ARGV[3], '') and redis.acl_check_cmd(ARGV[2], ARGV[3])
    return may and 1 or 0";

/// A script that returns how many sessions of a partition have an owner, and how many entries its index has. `KEYS[1]` is the
/// hash of owners, `KEYS[2]` the index.
const OWNED_AND_INDEXED: &str = "return {redis.call('HLEN', KEYS[1]), redis.call('ZCOUNT', KEYS[2], '-inf', '+inf')}";

/// A finding about a Redis that works, but that its operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisWarning {
    /// Redis evicts sessions when its memory is full, because of this `maxmemory-policy`. Their users are signed out.
    Evicts(String),
    /// This key should hold the index of the store or its list of owners, but holds a value of another type.
    ///
    /// Sessions still work. Without the index, the store cannot reap, count, list or end all sessions. Without the list of
    /// owners, a session may lose its owner when it is saved or rotated. [`verify`](crate::store::SessionIndex::verify) renames
    /// the key, so that the store can use its name.
    Clobbered(String),
    /// This index has lost entries, because it has fewer entries than there are sessions with an owner.
    ///
    /// Sessions still work. Lists, counts, the reaper and the end of all sessions miss those that the index lost, until a request
    /// or [`verify`](crate::store::SessionIndex::verify) puts them back. The check cannot notice lost sessions without an owner.
    Incomplete(String),
    /// `INFO` is not available or not permitted, so the version or the eviction policy of the server is unknown.
    Unknown,
    /// The store may not write this key, in which it records its kind. So the check cannot find out whether another kind of
    /// store uses the prefix.
    Unmarked(String),
    /// The user may not publish on this channel, or may not subscribe to it. So [listeners](crate::Listener) miss sessions that
    /// end.
    Unannounced(String),
    /// The server, or the rights of the user, do not allow a [near cache](crate::near_cache), for this reason. All reads go to
    /// Redis.
    Untracked(String),
}

impl fmt::Display for RedisWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts(policy) => {
                write!(f, "maxmemory-policy is {policy}: a full Redis drops sessions, with noeviction it keeps them")
            }
            Self::Clobbered(key) => write!(
                f,
                "{key:?} holds a value of another type: the reaper or the lists of users do not work; run verify, which renames \
                 the key"
            ),
            Self::Incomplete(index) => write!(
                f,
                "the index {index:?} has fewer entries than there are sessions with an owner: lists, counts and the end of all \
                 sessions miss sessions; run verify"
            ),
            Self::Unknown => f.write_str(
                "the server's version or eviction policy is not known: INFO is not available or not permitted",
            ),
            Self::Unannounced(channel) => write!(
                f,
                "the user may not publish or subscribe on the channel {channel:?}: listeners do not notice that sessions end; grant \
                 +publish, +subscribe (in a cluster +spublish, +ssubscribe) and the channel"
            ),
            Self::Untracked(why) => write!(f, "the near cache stays out of service, so all reads go to Redis: {why}"),
            Self::Unmarked(key) => write!(
                f,
                "the user may not write {key:?}: the check cannot find out whether another kind of store uses the prefix"
            ),
        }
    }
}

impl RedisSessionStore {
    /// Checks that the store can work, and returns warnings about settings of Redis.
    ///
    /// Call it at the start of a program. It checks that Redis is reachable and new enough, and that the user may run the
    /// operations on single sessions. To do so, it creates, saves, rotates and deletes a session that lives for at most one
    /// second. In an expiring store it also sends two commands to each partition. In a cluster it checks the version of every
    /// node, and runs the operations on one of them.
    ///
    /// It does not try the commands that only companions (`RENAME`, `PERSIST`, `PEXPIREAT`), owners of sessions or the reaper
    /// need.
    ///
    /// It records the kind of the store (plain or expiring, the number of partitions, and the kind of keys) in the key
    /// `PREFIX:store`, unless the key exists. Stores of different kinds end each other's sessions or do not find them, so the
    /// check fails if another kind is recorded. Custom key mappers are not compared.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # let store = threaded_sessions::RedisSessionStore::open("redis://127.0.0.1")?;
    /// for warning in store.check()? {
    ///     eprintln!("{warning}");
    /// }
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unavailable`] if Redis cannot be reached.
    /// - Returns [`ErrorKind::Denied`] if the user may not run a command.
    /// - Returns [`ErrorKind::Misconfigured`] if the server is too old, lacks a command of the store, or if a store of another
    ///   kind has the prefix.
    /// - Returns the error of an operation that fails for another reason.
    pub fn check(&self) -> Result<Vec<RedisWarning>> {
        let servers = self.pool.servers(operation::CHECK)?;
        let mut warnings = self.check_servers(&servers)?;
        warnings.extend(self.mark()?);
        self.rehearse()?;
        warnings.extend(self.check_index()?);
        warnings.extend(self.check_channels()?);
        warnings.extend(self.near.check().map(RedisWarning::Untracked));
        // Most nodes of a cluster have the same settings, and so the same warning.
        warnings.dedup();
        Ok(warnings)
    }

    fn check_servers(&self, servers: &[Arc<Server>]) -> Result<Vec<RedisWarning>> {
        let mut warnings = Vec::new();
        for server in servers {
            warnings.extend(self.check_server(To::Server(server), servers.len() == 1)?);
        }
        Ok(warnings)
    }

    /// Checks the version of one server, and whether it evicts keys.
    ///
    /// Some proxies close the connection at a command that they do not know. If this is the `only` server, the operations that
    /// follow show whether it is reachable.
    fn check_server(&self, server: To<'_>, only: bool) -> Result<Option<RedisWarning>> {
        let info = match self.info(server) {
            Ok(info) => info,
            Err(error) if !error.kind().is_temporary() => return Ok(Some(RedisWarning::Unknown)),
            Err(error) if only && error.kind() == ErrorKind::Unavailable => return Ok(Some(RedisWarning::Unknown)),
            Err(error) => return Err(error),
        };
        let Some(version) = info.get("redis_version") else { return Ok(Some(RedisWarning::Unknown)) };
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_none_or(|major: u32| major < 7) {
            let why = format!("Redis 7.0 or newer is needed, this is {version:?}");
            return Err(Error::misconfigured(operation::CHECK, why));
        }
        Ok(match info.get("maxmemory_policy") {
            Some(policy) if policy == "noeviction" => None,
            Some(policy) => Some(RedisWarning::Evicts(policy.clone())),
            None => Some(RedisWarning::Unknown),
        })
    }

    pub(super) fn info(&self, server: To<'_>) -> Result<HashMap<String, String>> {
        let answer = self.command(operation::CHECK, Effect::Reads, server, &redis::cmd("INFO"))?;
        let Ok(text) = redis::from_redis_value::<String>(answer.value) else { return Ok(HashMap::new()) };
        Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Records the kind of the store, or compares it with the recorded one.
    fn mark(&self) -> Result<Option<RedisWarning>> {
        let (key, own) = (self.keys.marker(), Marker::of(self));
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(own.to_string()).arg("NX").arg("GET");
        let found = match self.command(operation::CHECK, Effect::Writes, To::Key(&key), &set) {
            Ok(answer) => answer.value,
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(Some(RedisWarning::Unmarked(key))),
            Err(error) if error.kind() == ErrorKind::WrongType => Value::BulkString(Vec::new()),
            Err(error) => return Err(error),
        };
        let found = match found {
            Value::BulkString(found) => found,
            _ => return Ok(None),
        };
        match own.compare(&found) {
            Marking::Same => Ok(None),
            Marking::Other(other) => Err(Error::misconfigured(operation::CHECK, own.why_refused(&key, &other))),
            Marking::Foreign => {
                let why = format!(
                    "{key:?} holds a value that no store wrote: choose another prefix, or delete the key if nothing uses it"
                );
                Err(Error::misconfigured(operation::CHECK, why))
            }
        }
    }

    /// Fails if a session that was just created is not in the index. The scripts do not report it, because a session works
    /// without its entry.
    fn require_indexed(&self, key: &str, index: &str) -> Result<()> {
        if !self.expiring {
            return Ok(());
        }
        match self.command(operation::CHECK, Effect::Reads, To::Key(index), redis::cmd("ZSCORE").arg(index).arg(key)) {
            Ok(answer) if answer.value == Value::Nil => {
                let why = "a new session is not in the index: the user may not run ZADD, or the server lacks it";
                Err(Error::new(ErrorKind::Denied, operation::CHECK).with_source(why))
            }
            // A key of another type in the place of the index is a warning.
            Err(error) if error.kind() != ErrorKind::WrongType => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns a warning for each key of another type in the place of an index or a list of owners.
    fn check_index(&self) -> Result<Vec<RedisWarning>> {
        if !self.expiring {
            return Ok(Vec::new());
        }
        let warnings = self.clobbered(operation::CHECK, None).and_then(|clobbered| match clobbered.is_empty() {
            true => Ok(self.incomplete_index()?.into_iter().collect()),
            false => Ok(clobbered.into_iter().map(RedisWarning::Clobbered).collect()),
        });
        match warnings {
            Ok(warnings) => Ok(warnings),
            // A user without the right to look gets no warning.
            Err(error) if error.kind() == ErrorKind::Denied => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Returns a warning for the first index that has lost entries.
    fn incomplete_index(&self) -> Result<Option<RedisWarning>> {
        for partition in 0..self.keys.partitions() {
            let index = self.keys.index(partition);
            let owners = self.keys.owners(partition);
            let mut eval = redis::cmd("EVAL");
            eval.arg(OWNED_AND_INDEXED).arg(2).arg(owners).arg(index);
            let counts = self.command(operation::CHECK, Effect::Touches, To::Key(index), &eval)?.value;
            if let Ok((owned, indexed)) = redis::from_redis_value::<(u64, u64)>(counts)
                && owned > indexed
            {
                return Ok(Some(RedisWarning::Incomplete(index.to_owned())));
            }
        }
        Ok(None)
    }

    /// Returns a warning if the user may not use the channels on which ends are announced. A script cannot report it, because a
    /// session ends whether or not its end is announced.
    fn check_channels(&self) -> Result<Option<RedisWarning>> {
        let Some(publish) = self.ends.publish else { return Ok(None) };
        let subscribe = if publish == "SPUBLISH" { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        for partition in 0..self.keys.partitions() {
            let channel = self.keys.channel(partition);
            let mut eval = redis::cmd("EVAL");
            eval.arg(MAY_USE_CHANNEL).arg(1).arg(self.keys.index(partition)).arg(publish).arg(subscribe).arg(&channel);
            let may = self.command(operation::CHECK, Effect::Touches, To::Key(self.keys.index(partition)), &eval)?;
            if may.value != Value::Int(1) {
                return Ok(Some(RedisWarning::Unannounced(channel)));
            }
        }
        Ok(None)
    }

    /// Runs every operation once.
    fn rehearse(&self) -> Result<()> {
        let ttl = Duration::from_secs(1);
        let id = self.fresh_id(None);
        let new = self.fresh_id(Some(&id));
        let Created::Stored(version) = self.create(&id, Write::new(b"check 1", ttl))? else {
            return Err(Error::misconfigured(operation::CHECK, "a fresh id is taken"));
        };
        self.require_indexed(&self.keys.session(&id), self.keys.index_of(&id))?;
        let _: Found = self.read(&id, Touch::Set(ttl))?;
        let _: Found = self.read(&id, Touch::Extend(ttl))?;
        let _: Found = self.read(&id, Touch::SetIfDue { ttl, enough: ttl })?;
        let _: Saved = self.save(&id, Write::new(b"check 2", ttl), Some(&version))?;
        let _: Saved = self.save(&id, Write::new(b"check 3", ttl), None)?;
        let _: Saved = self.rotate(&id, &new, Write::new(b"check 4", ttl), None)?;
        let _: Found = self.read(&id, Touch::No)?;
        self.delete(&new)?;
        Ok(())
    }
}
