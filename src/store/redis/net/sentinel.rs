use crate::sync;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redis::{Client, ConnectionInfo, RedisError, RedisResult};

use super::{address, error};

/// The Sentinels that know which server is the master now.
///
/// They are asked for every connection that is opened, and every now and then besides, over a connection that is closed
/// again. (The client's own has no time limit for a look-up.) A master that was replaced need not be gone: one that is
/// replaced by order goes on taking writes for some ten seconds, and forgets them then. So its connections are left as soon
/// as one to the new master is there.
pub(crate) struct Sentinel {
    name: String,
    sentinels: Vec<Client>,
    /// The one that answered last is asked first.
    first: AtomicUsize,
    /// How to connect to the master, all but its address.
    settings: ConnectionInfo,
    /// The master that connections lead to.
    followed: Mutex<Option<(String, u16)>>,
}

impl Sentinel {
    pub(crate) fn new(name: String, sentinels: Vec<Client>, settings: ConnectionInfo) -> Self {
        Self { name, sentinels, first: AtomicUsize::new(0), settings, followed: Mutex::default() }
    }

    /// Where the master is, by the first Sentinel that says so. Each is given so long.
    pub(crate) fn master(&self, limit: Duration) -> RedisResult<Client> {
        let (mut silence, mut refusal) = (None, None);
        let first = self.first.load(Ordering::Relaxed);
        for position in (0..self.sentinels.len()).map(|position| (first + position) % self.sentinels.len()) {
            match self.ask(&self.sentinels[position], limit) {
                Ok(Some((host, port))) => {
                    self.first.store(position, Ordering::Relaxed);
                    return Client::open(address::at(&self.settings, host, port));
                }
                Ok(None) => refusal = Some(unreachable(&format!("no master is named {}", self.name))),
                Err(error) if error::is_unanswered(&error) => silence = silence.or(Some(error)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        // What one answers says more than that another one does not.
        Err(refusal.or(silence).unwrap_or_else(|| unreachable("there are no Sentinels")))
    }

    /// The server that was named is no master, or cannot be reached: another Sentinel may know better.
    pub(crate) fn doubt(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it leads to another master than the connections so far.
    pub(crate) fn is_another(&self, master: &Client) -> bool {
        self.followed().as_ref().is_some_and(|followed| Some(followed) != place(master).as_ref())
    }

    /// A connection to this master is there. Whether those so far lead to another one.
    pub(crate) fn follow(&self, master: &Client) -> bool {
        let mut followed = self.followed();
        let (before, now) = (followed.take(), place(master));
        followed.clone_from(&now);
        before.is_some() && before != now
    }

    fn followed(&self) -> MutexGuard<'_, Option<(String, u16)>> {
        sync::lock(&self.followed)
    }

    fn ask(&self, sentinel: &Client, limit: Duration) -> RedisResult<Option<(String, u16)>> {
        let mut connection = sentinel.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name).query(&mut connection)
    }
}

fn place(server: &Client) -> Option<(String, u16)> {
    address::of(server.get_connection_info()).map(|(host, port)| (host.to_owned(), port))
}

/// As any trouble on the way there.
pub(crate) fn unreachable(why: &str) -> RedisError {
    std::io::Error::other(why).into()
}

/// For the log and for `Debug`.
impl fmt::Display for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (by Sentinel at ", self.name)?;
        for (position, sentinel) in self.sentinels.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{}", sentinel.get_connection_info().addr())?;
        }
        f.write_str(")")
    }
}
