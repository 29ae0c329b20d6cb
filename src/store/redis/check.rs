//! The check of a Redis at the start of a program.
//!
//! Applications call [`RedisSessionStore::check`] once, before they serve. The invariant: it changes no session of the
//! application. It fails only if the store cannot work; if the user may not look at something, the check skips it.

use std::collections::HashMap;
use std::fmt;

use redis::{Cmd, Value};

use super::RedisSessionStore;
use super::net::error::Effect;
use super::net::pool::To;
use crate::store::{Created, Found, Saved, SessionStore, Touch, Write};
use crate::{Error, ErrorKind, Result, operation};

/// A finding about a Redis that works, but that its operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisWarning {
    /// Redis evicts sessions when its memory is full, because of this `maxmemory-policy`. Their users are signed out.
    Evicts(String),
    /// The other kind of store, plain or expiring, seems to keep sessions under this prefix. The two cannot share a prefix.
    SharedPrefix(String),
    /// This key should hold the index of the store or its list of owners, but holds a value of another type.
    ///
    /// Sessions still work. Without the index, the store cannot reap, count, list or end all sessions. Without the list of
    /// owners, a session may lose its owner when it is saved or rotated. [`verify`](crate::store::SessionIndex::verify) renames
    /// the key, so that the store can use its name.
    Clobbered(String),
    /// The user may not run `INFO`, so the version and the eviction policy of the server are unknown.
    Unknown,
}

impl fmt::Display for RedisWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts(policy) => {
                write!(f, "maxmemory-policy is {policy}: a full Redis drops sessions, with noeviction it keeps them")
            }
            Self::SharedPrefix(prefix) => {
                write!(f, "a plain and an expiring store share the prefix {prefix:?}: ")?;
                f.write_str("they end each other's sessions until one of them gets another")
            }
            Self::Clobbered(key) => {
                write!(
                    f,
                    "what is under {key:?} is not the store's own: sessions live, but the reaper or the lists of "
                )?;
                f.write_str("principals do not work until the index is verified")
            }
            Self::Unknown => {
                f.write_str("the server's version and eviction policy are not known: INFO is not permitted")
            }
        }
    }
}

impl RedisSessionStore {
    /// Checks that the store can work, and returns warnings about settings of Redis.
    ///
    /// Call it at the start of a program. It checks that Redis is reachable and new enough, and that the user may run all
    /// commands of the store. To do so, it creates, saves, rotates and deletes a session that lives for at most one second. In
    /// an expiring store it also sends one command to each partition. In a cluster it checks the version of every node, and
    /// runs the operations on one of them.
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
    /// * Returns [`ErrorKind::Unavailable`] if Redis cannot be reached.
    /// * Returns [`ErrorKind::Denied`] if the user may not run a command.
    /// * Returns [`ErrorKind::Misconfigured`] if the server is too old.
    /// * Returns the error of an operation that fails for another reason.
    pub fn check(&self) -> Result<Vec<RedisWarning>> {
        let mut warnings = Vec::new();
        for server in &self.pool.servers(operation::CHECK)? {
            warnings.extend(self.check_server(To::Server(server))?);
        }
        self.rehearse()?;
        if self.shares_prefix()? {
            warnings.push(RedisWarning::SharedPrefix(self.keys.prefix().to_owned()));
        }
        if self.expiring {
            match self.clobbered(operation::CHECK, None) {
                Ok(clobbered) => warnings.extend(clobbered.into_iter().map(RedisWarning::Clobbered)),
                // A user without the right to look gets no warning.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                Err(error) => return Err(error),
            }
        }
        // Most nodes of a cluster have the same settings, and so the same warning.
        warnings.dedup();
        Ok(warnings)
    }

    /// Checks the version of one server, and whether it evicts keys.
    fn check_server(&self, server: To<'_>) -> Result<Option<RedisWarning>> {
        let info = match self.info(server) {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(Some(RedisWarning::Unknown)),
            Err(error) => return Err(error),
        };
        let version = info.get("redis_version").map_or("", String::as_str);
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_none_or(|major: u32| major < 7) {
            let why = format!("Redis 7.0 or newer is needed, this is {version:?}");
            return Err(Error::misconfigured(operation::CHECK, why));
        }
        let policy = info.get("maxmemory_policy").filter(|policy| *policy != "noeviction");
        Ok(policy.cloned().map(RedisWarning::Evicts))
    }

    fn info(&self, server: To<'_>) -> Result<HashMap<String, String>> {
        let answer = self.command(operation::CHECK, Effect::Reads, server, &redis::cmd("INFO"))?;
        let Ok(text) = redis::from_redis_value::<String>(answer.value) else { return Ok(HashMap::new()) };
        Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Runs every operation once.
    fn rehearse(&self) -> Result<()> {
        let ttl = std::time::Duration::from_secs(1);
        let id = self.fresh_id(None);
        let new = self.fresh_id(Some(&id));
        let Created::Stored(version) = self.create(&id, Write::new(b"check 1", ttl))? else {
            return Err(Error::misconfigured(operation::CHECK, "a fresh id is taken"));
        };
        let _: Found = self.read(&id, Touch::Set(ttl))?;
        let _: Found = self.read(&id, Touch::Extend(ttl))?;
        let _: Saved = self.save(&id, Write::new(b"check 2", ttl), Some(&version))?;
        let _: Saved = self.save(&id, Write::new(b"check 3", ttl), None)?;
        let _: Saved = self.rotate(&id, &new, Write::new(b"check 4", ttl), None)?;
        let _: Found = self.read(&id, Touch::No)?;
        self.delete(&new)?;
        Ok(())
    }

    /// Returns `true` if the other kind of store seems to use the prefix. A plain store looks for an index. An expiring store
    /// looks for sessions by one step of a `SCAN`, and returns `true` if none of them is in the index.
    fn shares_prefix(&self) -> Result<bool> {
        let index = self.keys.index(0);
        let ask = |command: &Cmd| match self.command(operation::CHECK, Effect::Reads, To::Key(index), command) {
            Ok(answer) => Ok(answer.value),
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::WrongType) => Ok(Value::Nil),
            Err(error) => Err(error),
        };
        if !self.expiring {
            return Ok(ask(redis::cmd("EXISTS").arg(index))? == Value::Int(1));
        }
        let Value::Array(page) = ask(redis::cmd("SCAN").arg(0).arg("COUNT").arg(1000).arg("TYPE").arg("string"))?
        else {
            return Ok(false);
        };
        let keys: Vec<Vec<u8>> =
            page.into_iter().nth(1).and_then(|keys| redis::from_redis_value(keys).ok()).unwrap_or_default();
        let ours = |key: &Vec<u8>| self.keys.partition_of(key) == Some(0);
        let sessions: Vec<Vec<u8>> = keys.into_iter().filter(ours).take(10).collect();
        if sessions.is_empty() {
            return Ok(false);
        }
        let scores = ask(redis::cmd("ZMSCORE").arg(index).arg(&sessions))?;
        Ok(matches!(scores, Value::Array(scores) if scores.iter().all(|score| *score == Value::Nil)))
    }
}
