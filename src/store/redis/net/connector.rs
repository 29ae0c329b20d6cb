//! Opens the connections of a pool: finds the server, logs in, and checks that it serves.
//!
//! r2d2 calls it in background threads. Every attempt to connect goes through the [circuit breaker](super::breaker).
//!
//! Invariant: a connection enters the pool only after a reply of the server came over it, and each step of connecting has a
//! time limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionAddr, FromRedisValue, ProtocolVersion, RedisError, RedisResult, Role, Value};

use super::address::{self, Address};
use super::breaker::Breaker;
use super::connection::RedisConnection;
use super::credentials::Credentials;
use super::dial::{Dialer, Resolver};
use super::error::{self, unreachable};
use super::handshake;
use super::idle::{IDLE_TIME, IdleTest};
use super::limit::Limit;
use super::sentinel::Sentinel;
use super::stream::Stream;
use super::tls::{self, Trust};
use super::wire::Wire;
use crate::{Error, Result, fence, operation};

/// The deadline of an operation, unless configured otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

/// Rejects deadlines that cannot work, because sockets take no timeout of zero and a far end of an operation overflows.
pub(crate) fn check_deadline(deadline: Duration) -> Result<()> {
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&deadline) {
        return Ok(());
    }
    let why = "the deadline must be from 1 millisecond to an hour";
    Err(Error::misconfigured(operation::SET_DEADLINE, why))
}

/// Opens connections for an [`r2d2::Pool`] that suit the worker threads of a server.
///
/// The r2d2 support of the `redis` crate has no time limits, so a Redis that hangs would block every thread. Here,
/// connecting, writing and reading have time limits, a connection that failed is never used again, and a checkout from the
/// pool costs no round trip.
///
/// Clones are cheap and share their state.
#[derive(Clone)]
pub struct RedisConnectionManager {
    target: Target,
    settings: Settings,
    dialer: Arc<Dialer>,
    idle_test: Arc<IdleTest>,
    breaker: Arc<Breaker>,
}

/// Settings of connections to any server. An absent setting has its default.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) deadline: Option<Duration>,
    pub(crate) credentials: Option<Arc<dyn Fn() -> Credentials + Send + Sync>>,
    pub(crate) trust: Trust,
    /// Test seams.
    pub(crate) resolver: Option<Resolver>,
    pub(crate) idle_time: Option<Duration>,
}

/// The server that connections lead to.
#[derive(Clone)]
enum Target {
    Fixed(Arc<Client>),
    Master(Arc<Sentinel>),
}

impl RedisConnectionManager {
    /// Creates a manager of connections to the Redis at this URL.
    ///
    /// The URL is `redis://user:password@host:6379/0`, `redis+unix:///path/to/socket`, or a `redis-sentinel://…` URL as in
    /// [`RedisSessionStoreBuilder::url`](crate::RedisSessionStoreBuilder::url). Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the URL cannot be parsed, or if it is the URL
    /// of a cluster. The error does not quote the URL, because the URL may contain a password. The pool of a cluster is
    /// created by the builder of a [`RedisSessionStore`](crate::RedisSessionStore).
    pub fn open(url: &str) -> Result<Self> {
        match Address::parse(url)? {
            Address::Server(client) => Self::new(client),
            Address::Sentinel { name, sentinels, master } => Self::sentinel(name, sentinels, master),
            Address::Cluster(_) => Err(Error::misconfigured(
                operation::READ_ADDRESS,
                "a cluster takes a pool for each of its nodes, which the builder of a store makes",
            )),
        }
    }

    /// Creates a manager of connections to the server of this client.
    ///
    /// TCP connections get `TCP_NODELAY`, and keep-alive unless the client sets its own. They are closed by a reset, so that
    /// bytes that were not sent yet when a connection was abandoned are never sent late.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if
    ///
    /// - the client has certificates of its own, which only `with_tls_config` takes;
    /// - the client does not verify certificates;
    /// - the client requires TLS, and the feature `tls-rustls` is not enabled;
    /// - the client has a user name without a password, because such a name would be ignored.
    pub fn new(client: Client) -> Result<Self> {
        address::check_login(client.get_connection_info().redis_settings())?;
        check_address(client.get_connection_info().addr())?;
        let breaker = Breaker::new(client.get_connection_info().addr().to_string());
        Ok(Self::to(Target::Fixed(Arc::new(client)), breaker))
    }

    fn to(target: Target, breaker: Breaker) -> Self {
        let settings = Settings::default();
        let (dialer, idle_test) = (settings.dialer(), settings.idle_test());
        Self { target, settings, dialer, idle_test, breaker: Arc::new(breaker) }
    }

    /// Creates a manager of connections to the master that Sentinel knows as `name`.
    ///
    /// The `sentinels` are asked for its address. Credentials and TLS settings are taken from `master`; the address in
    /// `master` is ignored.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if
    ///
    /// - there are no Sentinels, or the name is empty;
    /// - `master` is at a Unix socket;
    /// - a Sentinel has a database;
    /// - a client cannot be used, as in [`new`](Self::new).
    pub fn sentinel(
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = Client>,
        master: Client,
    ) -> Result<Self> {
        let (name, sentinels): (String, Vec<Client>) = (name.into(), sentinels.into_iter().collect());
        address::check_sentinels(&name, &sentinels, &master)?;
        let sentinel = Sentinel::new(name, sentinels, master.get_connection_info().clone());
        sentinel.addresses().try_for_each(check_address)?;
        let breaker = Breaker::new(sentinel.to_string());
        Ok(Self::to(Target::Master(Arc::new(sentinel)), breaker))
    }

    /// Returns a manager with the same settings for another server, with its own circuit breaker.
    pub(crate) fn at(&self, host: &str, port: u16) -> RedisResult<Self> {
        let Target::Fixed(client) = &self.target else {
            return Err(unreachable("nodes of a cluster have no Sentinels"));
        };
        let client = Client::open(address::at(client.get_connection_info(), host.to_owned(), port))?;
        let breaker = Breaker::new(client.get_connection_info().addr().to_string());
        let breaker = Arc::new(breaker.with_watchers(self.breaker.watchers()));
        let idle_test = self.settings.idle_test();
        Ok(Self { target: Target::Fixed(Arc::new(client)), breaker, idle_test, ..self.clone() })
    }

    /// Returns host and port, unless the server is at a Unix socket or Sentinel names it.
    pub(crate) fn address(&self) -> Option<(&str, u16)> {
        match &self.target {
            Target::Fixed(client) => address::of(client.get_connection_info()),
            Target::Master(_) => None,
        }
    }

    /// Returns `true` if Sentinel names the server, so that the next connection may lead to another server than the last.
    pub(crate) fn follows_a_master(&self) -> bool {
        matches!(self.target, Target::Master(_))
    }

    /// Returns `true` unless Sentinel may name another master than that of this generation of connections.
    pub(crate) fn leads_to_master_of(&self, generation: u64) -> bool {
        !self.follows_a_master() || self.breaker.is_current(generation)
    }

    /// Sets a function that returns the credentials. Defaults to the credentials of the URL or client.
    ///
    /// The function is called for each new connection, so credentials may change while the program runs. It is called in
    /// threads of the pool, and may block them.
    pub fn with_credentials(self, credentials: impl Fn() -> Credentials + Send + Sync + 'static) -> Self {
        let settings = Settings { credentials: Some(Arc::new(credentials)), ..self.settings.clone() };
        self.with_settings(settings)
    }

    /// Sets the deadline of an operation. Defaults to 1 second.
    ///
    /// The deadline covers the wait for a connection, sending the command, and the wait for its reply. See
    /// [`RedisSessionStoreBuilder::deadline`](crate::RedisSessionStoreBuilder::deadline) for its limits.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the deadline is shorter than 1 millisecond or
    /// longer than an hour.
    pub fn with_deadline(self, deadline: Duration) -> Result<Self> {
        check_deadline(deadline)?;
        let settings = Settings { deadline: Some(deadline), ..self.settings.clone() };
        Ok(self.with_settings(settings))
    }

    /// Sets the TLS configuration, for a custom certificate authority or a client certificate. Defaults to the authorities of
    /// the system, or to Mozilla's with the feature `tls-rustls-webpki-roots`.
    ///
    /// It applies to Redis and to its Sentinels. The certificate of a server must be for the host of the URL.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if no server requires TLS.
    #[cfg(feature = "tls-rustls")]
    pub fn with_tls_config(self, config: Arc<rustls::ClientConfig>) -> Result<Self> {
        let settings = Settings { trust: Trust::custom(config), ..self.settings.clone() };
        self.with(&settings)
    }

    /// Sets how names become addresses, and how long a connection is idle before it is tested. For tests of this crate.
    #[doc(hidden)]
    pub fn with_test_seams(self, resolver: Option<Resolver>, idle_time: Duration) -> Self {
        let settings = Settings { resolver, idle_time: Some(idle_time), ..self.settings.clone() };
        self.with_settings(settings)
    }

    /// Replaces all settings.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if a TLS configuration would have no effect.
    pub(crate) fn with(self, settings: &Settings) -> Result<Self> {
        if settings.trust.is_custom() && !self.requires_tls() {
            let why = "tls_config has no effect, because no URL begins with rediss";
            return Err(Error::misconfigured(operation::READ_ADDRESS, why));
        }
        Ok(self.with_settings(settings.clone()))
    }

    fn with_settings(self, settings: Settings) -> Self {
        Self { dialer: settings.dialer(), idle_test: settings.idle_test(), settings, ..self }
    }

    fn requires_tls(&self) -> bool {
        let is_tls = |address: &ConnectionAddr| matches!(address, ConnectionAddr::TcpTls { .. });
        match &self.target {
            Target::Fixed(client) => is_tls(client.get_connection_info().addr()),
            Target::Master(sentinel) => sentinel.addresses().any(is_tls),
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.settings.deadline.unwrap_or(DEFAULT_DEADLINE)
    }

    pub(crate) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Invalidates all connections if Sentinel names another master and that master is reachable. Returns `true` if it did.
    pub(crate) fn follow_new_master(&self) -> bool {
        let Target::Master(sentinel) = &self.target else { return false };
        let Ok(master) = sentinel.master(&self.dialer, self.deadline() / 3) else { return false };
        let follows = sentinel.is_another(&master)
            && self.login(master.clone()).and_then(|client| self.verified_wire(&client)).is_ok()
            && sentinel.follow(&master);
        if follows {
            self.breaker.invalidate_all();
        }
        follows
    }

    /// Returns a client for the server to connect to now.
    fn resolve(&self) -> RedisResult<Client> {
        match &self.target {
            Target::Fixed(client) => Ok(Client::clone(client)),
            // A third of the deadline for each Sentinel, because several may have to be asked.
            Target::Master(sentinel) => sentinel.master(&self.dialer, self.deadline() / 3),
        }
    }

    /// Returns the client with the current credentials.
    fn login(&self, client: Client) -> RedisResult<Client> {
        let Some(credentials) = &self.settings.credentials else { return Ok(client) };
        let info = client.get_connection_info().clone();
        let panicked = || unreachable("the credentials function panicked");
        let login = fence::call(|| credentials()).ok_or_else(panicked)?.onto(info.redis_settings());
        Client::open(info.set_redis_settings(login))
    }

    /// Opens a connection and sets the generation that it belongs to.
    fn open_connection(&self, generation: &mut u64) -> RedisResult<RedisConnection> {
        let client = self.login(self.resolve()?)?;
        let wire = self.verified_wire(&client);
        if let Target::Master(sentinel) = &self.target {
            if wire.is_err() {
                sentinel.doubt();
            // A connection of an earlier generation is discarded, so it decides nothing.
            } else if self.breaker.is_current(*generation) && sentinel.follow(&client) {
                *generation = self.breaker.invalidate_all();
            }
        }
        Ok(RedisConnection::new(wire?, client.get_connection_info().redis_settings().db(), *generation, self))
    }

    /// Opens a connection for subscriptions, outside the pool, and returns the generation that it belongs to.
    ///
    /// It speaks RESP2 whatever the pool speaks, because replies and messages have one form then.
    pub(crate) fn open_subscriber(&self) -> RedisResult<(Stream, u64)> {
        let (wire, generation) = self.open_outside_pool(ProtocolVersion::RESP2)?;
        Ok((wire.into_stream(), generation))
    }

    /// Opens a connection outside the pool on which the server announces changes, and returns the generation that it belongs to.
    ///
    /// It speaks RESP3 whatever the pool speaks, because RESP2 has no announcements between replies.
    #[cfg(feature = "near-cache")]
    pub(crate) fn open_tracker(&self) -> RedisResult<(Stream, u64)> {
        let (mut wire, generation) = self.open_outside_pool(ProtocolVersion::RESP3)?;
        wire.query(redis::cmd("CLIENT").arg("TRACKING").arg("ON"), Limit::of(self.deadline()))?;
        Ok((wire.into_stream(), generation))
    }

    /// Opens a connection to the server that the pool uses, and returns the generation that it belongs to.
    fn open_outside_pool(&self, protocol: ProtocolVersion) -> RedisResult<(Wire, u64)> {
        let generation = self.breaker.generation();
        let info = self.login(self.resolve()?)?.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(info.set_redis_settings(settings))?;
        let wire = self.verified_wire(&client);
        match &self.target {
            Target::Master(sentinel) if wire.is_err() => sentinel.doubt(),
            // The pool follows within a second, or this Sentinel is behind.
            Target::Master(sentinel) if sentinel.is_another(&client) => {
                return Err(unreachable("Sentinel names another master than the one in use"));
            }
            _ => {}
        }
        Ok((wire?, generation))
    }

    /// Connects, and returns the wire only after a reply, because only a reply shows that the server serves.
    ///
    /// A server that hangs still accepts connections. A server that loads its data, or requires a password, rejects the first
    /// command.
    fn verified_wire(&self, client: &Client) -> RedisResult<Wire> {
        let info = client.get_connection_info();
        let (settings, limit) = (info.redis_settings(), Limit::of(self.deadline()));
        let set_up = |stream| {
            let mut wire = Wire::new(stream, settings.protocol());
            let reply = handshake::run(&mut wire, settings, &self.probe(), limit)?;
            self.verify(reply).map(|()| wire)
        };
        self.dialer.open(info, self.deadline(), limit, set_up).map_err(|error| hint_at_tls(info.addr(), error))
    }

    /// The command whose reply shows that a server serves.
    fn probe(&self) -> redis::Cmd {
        redis::cmd(if self.follows_a_master() { "ROLE" } else { "PING" })
    }

    /// Decides from the reply to the probe whether the server serves.
    fn verify(&self, reply: Value) -> RedisResult<()> {
        match (reply.extract_error(), &self.target) {
            // The server serves. It may only not run this command, or not for this user.
            (Err(error), _) if error::is_command_refused(&error) => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(_), Target::Fixed(_)) => Ok(()),
            // A server that Sentinel names may have become a replica in the meantime.
            (Ok(role), Target::Master(_)) => match Role::from_redis_value(role)? {
                Role::Primary { .. } => Ok(()),
                _ => Err(unreachable("the server that Sentinel named is not a master")),
            },
        }
    }

    pub(crate) fn idle_test(&self) -> Arc<IdleTest> {
        self.idle_test.clone()
    }
}

impl Settings {
    /// Returns `true` if any setting differs from its default.
    pub(crate) fn are_set(&self) -> bool {
        self.deadline.is_some() || self.credentials.is_some() || self.trust.is_custom()
    }

    fn dialer(&self) -> Arc<Dialer> {
        Arc::new(Dialer::new(self.resolver.clone(), self.trust.clone()))
    }

    fn idle_test(&self) -> Arc<IdleTest> {
        Arc::new(IdleTest::new(self.idle_time.unwrap_or(IDLE_TIME)))
    }
}

impl fmt::Debug for RedisConnectionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnectionManager")
            .field("addr", &self.breaker.address())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

impl r2d2::ManageConnection for RedisConnectionManager {
    type Connection = RedisConnection;
    type Error = RedisError;

    fn connect(&self) -> RedisResult<RedisConnection> {
        self.breaker.connect_or_probe(|generation| self.open_connection(generation))
    }

    fn is_valid(&self, connection: &mut RedisConnection) -> RedisResult<()> {
        if connection.is_current() {
            return Ok(());
        }
        Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::NotConnected)))
    }

    fn has_broken(&self, connection: &mut RedisConnection) -> bool {
        connection.is_spoiled()
    }
}

/// Adds a hint to the typical error of a server that requires TLS and gets none, or gets TLS and supports none.
fn hint_at_tls(server: &ConnectionAddr, error: RedisError) -> RedisError {
    let (kind, why) = match server {
        ConnectionAddr::Tcp(..) if error.is_connection_dropped() && !error.is_connection_refusal() => (
            std::io::ErrorKind::ConnectionAborted,
            "the server closed the connection: if it requires TLS, begin its URL with rediss://",
        ),
        ConnectionAddr::TcpTls { .. } if error.is_timeout() => (
            std::io::ErrorKind::TimedOut,
            "the server did not reply over TLS: if it does not support TLS, begin its URL with redis://",
        ),
        _ => return error,
    };
    std::io::Error::new(kind, why).into()
}

fn check_address(server: &ConnectionAddr) -> Result<()> {
    tls::check(server).map_err(|why| Error::misconfigured(operation::READ_ADDRESS, why))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Starts a Sentinel that names itself as the master, which it also is. Returns its port.
    fn sentinel_and_master() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let place = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.to_string().len());
        thread::spawn(move || {
            // The client uses one connection after the other, and at most one at a time.
            for mut stream in listener.incoming().flatten() {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let is_question = String::from_utf8_lossy(&bytes[..count]).contains("SENTINEL");
                    let reply = if is_question { &place } else { "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n" };
                    stream.write_all(reply.as_bytes()).unwrap();
                }
            }
        });
        port
    }

    #[test]
    fn subscriber_is_opened_to_pool_master_only() {
        let client = |port: u16| Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let port = sentinel_and_master();
        let manager = RedisConnectionManager::sentinel("master", [client(port)], client(port)).unwrap();
        let Target::Master(sentinel) = &manager.target else { panic!("Sentinel names the master") };
        for (followed, is_opened) in [(None, true), (Some(1), false), (Some(port), true)] {
            if let Some(port) = followed {
                sentinel.follow(&client(port));
            }
            assert_eq!(manager.open_subscriber().map(drop).is_ok(), is_opened, "{followed:?}");
        }
    }
}
