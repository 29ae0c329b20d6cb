use std::fmt;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, Connection, IntoConnectionInfo, RedisError, RedisResult};

use super::failure::{Cause, is_unanswered, spoils_connection};
use crate::{Error, ErrorKind, Result};

/// How long a whole operation may take unless configured otherwise.
const DEADLINE: Duration = Duration::from_secs(1);

/// The deadlines that work: sockets take no limit of zero, and clocks end.
pub(super) const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// The shortest time between two attempts to reach a Redis that is away.
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// Opens connections for an [`r2d2::Pool`] that are fit for the worker threads of a server.
///
/// What the `redis` crate itself implements for r2d2 has no time limits: a Redis that hangs would hang every thread. Here
/// connecting, writing and reading each have the deadline, a connection that saw a failure is never used again, and
/// checking a connection out of the pool costs no round trip.
///
/// Clones are the same manager.
#[derive(Clone)]
pub struct RedisConnectionManager {
    client: Client,
    deadline: Duration,
    link: Arc<Link>,
}

impl RedisConnectionManager {
    /// A manager of connections to the Redis at this URL, such as `redis://user:password@host:6379/0`,
    /// `redis+unix:///path/to/socket`. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] if the URL cannot be read. The error does not repeat it, for it may hold a password.
    pub fn open(url: &str) -> Result<Self> {
        Self::from_client(url.into_connection_info().and_then(Client::open))
    }

    /// A manager of connections to where this client connects. TCP connections get `TCP_NODELAY` and keep-alive.
    pub fn new(client: Client) -> Result<Self> {
        Self::from_client(Ok(client))
    }

    fn from_client(client: RedisResult<Client>) -> Result<Self> {
        let client = client.and_then(|client| {
            let tcp = TcpSettings::default()
                .set_nodelay(true)
                .set_keepalive(TcpKeepalive::new().with_time(Duration::from_secs(60)));
            Client::open(client.get_connection_info().clone().set_tcp_settings(tcp))
        });
        let client = client.map_err(|error| {
            Error::new(ErrorKind::Misconfigured, "reading the address of Redis").with_source(Cause::of(&error))
        })?;
        Ok(Self { client, deadline: DEADLINE, link: Arc::default() })
    }

    /// The manager with this deadline for an operation: waiting for a connection, sending, and waiting for the answer.
    /// Defaults to 1 second; shorter than 1 millisecond counts as that, longer than an hour as an hour. Where it does not
    /// hold exactly is told at [`RedisSessionStoreBuilder::deadline`](crate::RedisSessionStoreBuilder::deadline).
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline: deadline.clamp(*DEADLINES.start(), *DEADLINES.end()), ..self }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl fmt::Debug for RedisConnectionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnectionManager")
            .field("addr", &self.client.get_connection_info().addr().to_string())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl r2d2::ManageConnection for RedisConnectionManager {
    type Connection = RedisConnection;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<RedisConnection> {
        self.link.probe(|generation| {
            let mut connection = self.client.get_connection_with_timeout(self.deadline)?;
            connection.set_read_timeout(Some(self.deadline))?;
            connection.set_write_timeout(Some(self.deadline))?;
            // Only an answer shows that the server serves: one that hangs accepts connections, one that loads its data
            // or wants a password says so to the first command.
            redis::cmd("PING").exec(&mut connection)?;
            Ok(RedisConnection {
                connection,
                generation,
                deadline: self.deadline,
                limit: self.deadline,
                spoiled: false,
                link: self.link.clone(),
            })
        })
    }

    fn is_valid(&self, connection: &mut RedisConnection) -> RedisResult<()> {
        if connection.generation == self.link.generation.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    }

    fn has_broken(&self, connection: &mut RedisConnection) -> bool {
        connection.spoiled
    }
}

/// A pooled connection; dereferences to [`redis::Connection`], for commands of one's own.
///
/// Commands that are run through the dereferenced connection have its time limits, but a failure of theirs is not
/// noticed: report it with [`failed`](Self::failed).
pub struct RedisConnection {
    connection: Connection,
    /// Which generation of connections it belongs to. One failure makes all of a generation suspect.
    generation: u64,
    deadline: Duration,
    /// The time limit of reading and writing that is set now.
    limit: Duration,
    spoiled: bool,
    link: Arc<Link>,
}

impl RedisConnection {
    /// Notes that a command on this connection failed, so that a connection that is of no more use leaves the pool.
    pub fn failed(&mut self, error: &RedisError) {
        if spoils_connection(error) {
            self.spoiled = true;
        }
        // A command that waited long for a connection had little time left, which says nothing about Redis.
        let hasty = error.is_timeout() && self.limit < self.deadline;
        if is_unanswered(error) && !hasty {
            self.link.lost(self.generation, error);
        }
    }

    /// Sets the time limit of the next command, where it is not the usual one: two system calls, and two more to go back.
    pub(super) fn limit(&mut self, limit: Duration) -> RedisResult<()> {
        // Zero would be no limit at all.
        let limit = limit.max(Duration::from_millis(1));
        if limit != self.limit {
            self.connection.set_read_timeout(Some(limit))?;
            self.connection.set_write_timeout(Some(limit))?;
            self.limit = limit;
        }
        Ok(())
    }
}

impl Deref for RedisConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for RedisConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("spoiled", &self.spoiled).finish_non_exhaustive()
    }
}

/// What all connections to one Redis have in common: whether it can be reached.
#[derive(Default)]
pub(super) struct Link {
    /// Connections of an earlier generation than this are not used any more.
    generation: AtomicU64,
    /// Whether callers fail at once instead of waiting. Set and cleared under the lock of `outage`.
    failing: AtomicBool,
    outage: Mutex<Outage>,
}

#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    error: Option<RedisError>,
    probing: bool,
    next_probe: Option<Instant>,
}

impl Link {
    /// What is wrong while Redis is away, and since when.
    pub(super) fn failing(&self) -> Option<(Instant, RedisError)> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let outage = self.outage();
        outage.since.zip(outage.error.clone())
    }

    /// The last failure of a connection, also when all is well again.
    pub(super) fn last_error(&self) -> Option<RedisError> {
        self.outage().error.clone()
    }

    /// A connection of this generation failed. All of that generation go: they lead to the same server, which restarted,
    /// or cut them all. One that hangs is taken as away until a new connection gets an answer; if connections were merely
    /// cut, the next one decides.
    fn lost(&self, generation: u64, error: &RedisError) {
        let first =
            self.generation.compare_exchange(generation, generation + 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            let mut outage = self.outage();
            outage.error = Some(error.clone());
            if error.is_timeout() {
                self.fail(&mut outage);
            }
        }
    }

    /// Tries to connect. While Redis is away, one at a time and not at once after another: the rest are told what the last
    /// attempt met with.
    fn probe<C>(&self, connect: impl FnOnce(u64) -> RedisResult<C>) -> RedisResult<C> {
        let alone = {
            let mut outage = self.outage();
            if let (Some(_), Some(error)) = (outage.since, &outage.error) {
                if outage.probing || outage.next_probe.is_some_and(|next| Instant::now() < next) {
                    return Err(error.clone());
                }
                outage.probing = true;
            }
            outage.probing
        };
        // Before connecting: what fails while it connects makes it suspect as well.
        let generation = self.generation.load(Ordering::Acquire);
        let result = connect(generation);
        let mut outage = self.outage();
        if alone {
            outage.probing = false;
            outage.next_probe = Some(Instant::now() + PROBE_PAUSE);
        }
        match &result {
            Ok(_) => {
                if let Some(since) = outage.since.take() {
                    self.failing.store(false, Ordering::Release);
                    log::info!("Redis answers again, after {:.1?}", since.elapsed());
                }
            }
            Err(error) => {
                outage.error = Some(error.clone());
                self.fail(&mut outage);
            }
        }
        result
    }

    fn fail(&self, outage: &mut Outage) {
        if outage.since.is_none() {
            outage.since = Some(Instant::now());
            self.failing.store(true, Ordering::Release);
            if let Some(error) = &outage.error {
                log::warn!("Redis does not answer: {}", Cause::of(error));
            }
        }
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
