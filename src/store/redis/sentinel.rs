use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Client, ConnectionInfo, RedisError, RedisResult};

use super::address;

/// The Sentinels that know which server is the master now.
///
/// They are asked for every connection that is opened, over a connection that is closed again. (The client's own has no time
/// limit for a look-up.) A connection to a master that was replaced meanwhile ends by itself: the old one is gone, or refuses
/// writes.
pub(super) struct Sentinel {
    name: String,
    sentinels: Vec<Client>,
    /// The one that answered last is asked first.
    first: AtomicUsize,
    /// How to connect to the master, all but its address.
    settings: ConnectionInfo,
}

impl Sentinel {
    pub(super) fn new(name: String, sentinels: Vec<Client>, settings: ConnectionInfo) -> Self {
        Self { name, sentinels, first: AtomicUsize::new(0), settings }
    }

    /// Where the master is, by the first Sentinel that says so. Each is given so long.
    pub(super) fn master(&self, limit: Duration) -> RedisResult<Client> {
        let mut failure = None;
        let first = self.first.load(Ordering::Relaxed);
        for position in (0..self.sentinels.len()).map(|position| (first + position) % self.sentinels.len()) {
            match self.ask(&self.sentinels[position], limit) {
                Ok(Some((host, port))) => {
                    self.first.store(position, Ordering::Relaxed);
                    return Client::open(address::at(&self.settings, host, port));
                }
                Ok(None) => {
                    failure = failure.or_else(|| Some(unreachable(&format!("no master is named {}", self.name))))
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| unreachable("there are no Sentinels")))
    }

    fn ask(&self, sentinel: &Client, limit: Duration) -> RedisResult<Option<(String, u16)>> {
        let mut connection = sentinel.get_connection_with_timeout(limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name).query(&mut connection)
    }
}

/// As any trouble on the way there.
pub(super) fn unreachable(why: &str) -> RedisError {
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
