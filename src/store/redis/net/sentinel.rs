//! The Sentinels that know the current master.
//!
//! The connector asks them for the address of the master each time it connects, and a thread of the server asks at intervals.
//!
//! Invariant: `followed` is the master that the current generation of connections leads to. A connection to another master
//! makes all earlier connections invalid.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult};

use super::dial::Dialer;
use super::error::unreachable;
use super::limit::Limit;
use super::wire::Wire;
use super::{address, error, handshake};
use crate::sync;

/// The Sentinels that know the current master.
///
/// Each look-up opens a connection and closes it again. (The look-up of the client's own `SentinelClient` has no time limit.)
/// A replaced master may still respond: after a manual failover it accepts writes for some ten seconds, and then loses them. So
/// its connections are dropped as soon as there is one to the new master.
pub(crate) struct Sentinel {
    name: String,
    sentinels: Vec<Client>,
    /// The position of the Sentinel to ask first: the one that replied last.
    first: AtomicUsize,
    /// How to connect to the master, except for its address.
    settings: ConnectionInfo,
    /// The master that the current connections lead to.
    followed: Mutex<Option<(String, u16)>>,
}

impl Sentinel {
    pub(crate) fn new(name: String, sentinels: Vec<Client>, settings: ConnectionInfo) -> Self {
        Self { name, sentinels, first: AtomicUsize::new(0), settings, followed: Mutex::default() }
    }

    /// Returns a client for the master that the first responsive Sentinel names.
    ///
    /// Each Sentinel has `limit` to reply.
    pub(crate) fn master(&self, dialer: &Dialer, limit: Duration) -> RedisResult<Client> {
        let (mut no_reply, mut error_reply) = (None, None);
        let first = self.first.load(Ordering::Relaxed);
        for position in (0..self.sentinels.len()).map(|position| (first + position) % self.sentinels.len()) {
            match self.ask(&self.sentinels[position], dialer, limit) {
                Ok(Some((host, port))) => {
                    self.first.store(position, Ordering::Relaxed);
                    return Client::open(address::at(&self.settings, host, port));
                }
                Ok(None) => error_reply = Some(unreachable(&format!("no master is named {}", self.name))),
                Err(error) if error::is_unanswered(&error) => no_reply = no_reply.or(Some(error)),
                Err(error) => error_reply = error_reply.or(Some(error)),
            }
        }
        // Prefer an error reply over a timeout, because it names the cause.
        Err(error_reply.or(no_reply).unwrap_or_else(|| unreachable("there are no Sentinels")))
    }

    /// Asks another Sentinel first next time, because the server that was named is no master or cannot be reached.
    pub(crate) fn doubt(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns `true` if the current connections lead to another master.
    pub(crate) fn is_another(&self, master: &Client) -> bool {
        self.followed().as_ref().is_some_and(|followed| Some(followed) != place(master).as_ref())
    }

    /// Records that there is a connection to this master. Returns `true` if earlier connections lead to another one.
    pub(crate) fn follow(&self, master: &Client) -> bool {
        let mut followed = self.followed();
        let now = place(master);
        let before = mem::replace(&mut *followed, now.clone());
        before.is_some() && before != now
    }

    fn followed(&self) -> MutexGuard<'_, Option<(String, u16)>> {
        sync::lock(&self.followed)
    }

    fn ask(&self, sentinel: &Client, dialer: &Dialer, limit: Duration) -> RedisResult<Option<(String, u16)>> {
        let info = sentinel.get_connection_info();
        let settings = info.redis_settings();
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let end = Limit::of(limit);
        let reply = dialer.open(info, limit, end, |stream| {
            handshake::run(&mut Wire::new(stream, settings.protocol()), settings, &question, end)
        })?;
        redis::from_redis_value(reply.extract_error()?).map_err(RedisError::from)
    }

    /// Returns the addresses of the Sentinels, and that of `master`, which says whether the master requires TLS.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &ConnectionAddr> {
        let sentinels = self.sentinels.iter().map(|sentinel| sentinel.get_connection_info());
        sentinels.chain([&self.settings]).map(ConnectionInfo::addr)
    }
}

fn place(server: &Client) -> Option<(String, u16)> {
    address::of(server.get_connection_info()).map(|(host, port)| (host.to_owned(), port))
}

/// Names the master and its Sentinels, for logs and for `Debug`.
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
