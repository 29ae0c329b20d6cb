use std::collections::HashMap;
use std::fmt;

use redis::{Cmd, Value};

use super::RedisSessionStore;
use super::net::error::Effect;
use super::net::pool::To;
use crate::store::{Created, Found, Saved, SessionStore, Touch, Write};
use crate::{Error, ErrorKind, Result, operation};

/// Something about a Redis that works, but that its operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisWarning {
    /// With this `maxmemory-policy` Redis drops sessions when its memory is full, which logs their users out.
    Evicts(String),
    /// The other kind of store, plain or expiring, seems to keep sessions under this prefix. The two cannot share one.
    SharedPrefix(String),
    /// Something else stands under this key than the index of the store, or than the list of whom its sessions belong to.
    /// Sessions live all the same. Without the index reaping, counting, paging and ending everybody's fail; without the list a
    /// session may be lost to its principal when it is saved or renewed. [`verify`](crate::store::SessionIndex::verify) moves
    /// aside what is there.
    Clobbered(String),
    /// The user may not ask the server (`INFO`), so its version and eviction policy are not known.
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
    /// Finds out at the start of a program whether the store can work: Redis answers, is new enough, and lets this user do
    /// all that the store does. It creates, saves, renews and deletes a session of its own, for a second at most; for an
    /// expiring store it also sends a command for each partition.
    ///
    /// What works but is worth knowing is answered:
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
    /// Why the store cannot work: [`ErrorKind::Unavailable`], [`ErrorKind::Denied`], [`ErrorKind::Misconfigured`] for a
    /// server that is too old, or what an operation met with. In a cluster every node is asked, and the operations go to one
    /// of them.
    pub fn check(&self) -> Result<Vec<RedisWarning>> {
        let mut warnings = Vec::new();
        for server in &self.pool.servers(operation::CHECK)? {
            match self.info(To::Server(server)) {
                Ok(info) => {
                    let version = info.get("redis_version").map_or("", String::as_str);
                    let major = version.split('.').next().and_then(|major| major.parse().ok());
                    if major.is_none_or(|major: u32| major < 7) {
                        let why = format!("Redis 7.0 or newer is needed, this is {version:?}");
                        return Err(Error::misconfigured(operation::CHECK, why));
                    }
                    let policy = info.get("maxmemory_policy").filter(|policy| *policy != "noeviction");
                    warnings.extend(policy.cloned().map(RedisWarning::Evicts));
                }
                Err(error) if error.kind() == ErrorKind::Denied => warnings.push(RedisWarning::Unknown),
                Err(error) => return Err(error),
            }
        }
        self.rehearse()?;
        if self.shares_prefix()? {
            warnings.push(RedisWarning::SharedPrefix(self.keys.prefix().to_owned()));
        }
        if self.expiring {
            match self.clobbered(operation::CHECK, None) {
                Ok(clobbered) => warnings.extend(clobbered.into_iter().map(RedisWarning::Clobbered)),
                // Who may not look is not warned.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                Err(error) => return Err(error),
            }
        }
        // Several nodes of a cluster are mostly set up alike.
        warnings.dedup();
        Ok(warnings)
    }

    fn info(&self, server: To<'_>) -> Result<HashMap<String, String>> {
        let answer = self.command(operation::CHECK, Effect::Reads, server, &redis::cmd("INFO"))?;
        let Ok(text) = redis::from_redis_value::<String>(answer.value) else { return Ok(HashMap::new()) };
        Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// Every operation once.
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

    /// A plain store: whether there is an index. An expiring store: whether one step of a `SCAN` finds sessions and none of
    /// them is in the index. A user who may not look is not warned.
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
