//! Opens the connections of a pool: finds the server, logs in, and checks that it serves.
//!
//! r2d2 calls it in background threads. Every attempt to connect goes through the [circuit breaker](super::breaker).
//!
//! Invariant: a connection enters the pool only after a reply of the server came over it, and each step of connecting has a
//! time limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, Connection, ConnectionAddr, RedisConnectionInfo, RedisError, RedisResult, Role};

use super::address::{self, Address};
use super::breaker::Breaker;
use super::connection::RedisConnection;
use super::credentials::Credentials;
use super::error::{self, Cause};
use super::sentinel::{Sentinel, unreachable};
use crate::{Error, Result, operation};

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
    breaker: Arc<Breaker>,
}

/// Settings of connections to any server. An absent setting has its default.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) deadline: Option<Duration>,
    pub(crate) credentials: Option<Arc<dyn Fn() -> Credentials + Send + Sync>>,
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
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the client has a user name without a password,
    /// because such a user name would be ignored.
    pub fn new(client: Client) -> Result<Self> {
        address::check_login(client.get_connection_info().redis_settings())?;
        let client = with_socket_settings(&client).map_err(|error| misconfigured(&error))?;
        let breaker = Breaker::new(client.get_connection_info().addr().to_string());
        Ok(Self { target: Target::Fixed(Arc::new(client)), settings: Settings::default(), breaker: Arc::new(breaker) })
    }

    /// Creates a manager of connections to the master that Sentinel knows as `name`.
    ///
    /// The `sentinels` are asked for its address. Credentials and TLS settings are taken from `master`; the address in
    /// `master` is ignored.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if there are no Sentinels, if the name is empty, if
    /// `master` is at a Unix socket, if a Sentinel has a database, or if a user name has no password.
    pub fn sentinel(
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = Client>,
        master: Client,
    ) -> Result<Self> {
        let (name, sentinels): (String, Vec<Client>) = (name.into(), sentinels.into_iter().collect());
        address::check_sentinels(&name, &sentinels, &master)?;
        let settings =
            with_socket_settings(&master).map_err(|error| misconfigured(&error))?.get_connection_info().clone();
        let sentinel = Sentinel::new(name, sentinels, settings);
        let breaker = Arc::new(Breaker::new(sentinel.to_string()));
        Ok(Self { target: Target::Master(Arc::new(sentinel)), settings: Settings::default(), breaker })
    }

    /// Returns a manager with the same settings for another server, with its own circuit breaker.
    pub(crate) fn at(&self, host: &str, port: u16) -> RedisResult<Self> {
        let Target::Fixed(client) = &self.target else {
            return Err(unreachable("nodes of a cluster have no Sentinels"));
        };
        let client = Client::open(address::at(client.get_connection_info(), host.to_owned(), port))?;
        let breaker = Arc::new(Breaker::new(client.get_connection_info().addr().to_string()));
        Ok(Self { target: Target::Fixed(Arc::new(client)), breaker, ..self.clone() })
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

    /// Sets a function that returns the credentials. Defaults to the credentials of the URL or client.
    ///
    /// The function is called for each new connection, so credentials may change while the program runs. It is called in
    /// threads of the pool, and may block them.
    pub fn with_credentials(self, credentials: impl Fn() -> Credentials + Send + Sync + 'static) -> Self {
        Self { settings: Settings { credentials: Some(Arc::new(credentials)), ..self.settings }, ..self }
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
        Ok(Self { settings: Settings { deadline: Some(deadline), ..self.settings }, ..self })
    }

    /// Replaces all settings.
    pub(crate) fn with(self, settings: &Settings) -> Self {
        Self { settings: settings.clone(), ..self }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.settings.deadline.unwrap_or(DEFAULT_DEADLINE)
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Invalidates all connections if Sentinel names another master and that master is reachable. Returns `true` if it did.
    pub(crate) fn follow_new_master(&self) -> bool {
        let Target::Master(sentinel) = &self.target else { return false };
        let Ok(master) = sentinel.master(self.deadline() / 3) else { return false };
        let follows = sentinel.is_another(&master)
            && self.login(master.clone()).and_then(|client| self.verified_connection(&client)).is_ok()
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
            Target::Master(sentinel) => sentinel.master(self.deadline() / 3),
        }
    }

    /// Returns the client with the current credentials.
    fn login(&self, client: Client) -> RedisResult<Client> {
        let Some(credentials) = &self.settings.credentials else { return Ok(client) };
        let info = client.get_connection_info().clone();
        let login = credentials().onto(info.redis_settings());
        Client::open(info.set_redis_settings(login))
    }

    /// Opens a connection and sets the generation that it belongs to.
    fn open_connection(&self, generation: &mut u64) -> RedisResult<RedisConnection> {
        let client = self.login(self.resolve()?)?;
        let connection = self.verified_connection(&client).map_err(|error| match error.kind() {
            redis::ErrorKind::AuthenticationFailed => self.why_login_failed(&client, error),
            _ => error,
        });
        if let Target::Master(sentinel) = &self.target {
            if connection.is_err() {
                sentinel.doubt();
            // A connection of an earlier generation is discarded, so it decides nothing.
            } else if self.breaker.is_current(*generation) && sentinel.follow(&client) {
                *generation = self.breaker.invalidate_all();
            }
        }
        let breaker = self.breaker.clone();
        Ok(RedisConnection::new(connection?, *generation, self.deadline(), self.follows_a_master(), breaker))
    }

    /// Connects, and returns the connection only after a reply, because only a reply shows that the server serves.
    ///
    /// A server that hangs still accepts connections. A server that loads its data, or requires a password, rejects the first
    /// command.
    fn verified_connection(&self, client: &Client) -> RedisResult<Connection> {
        #[cfg(feature = "tls-rustls")]
        super::tls::provide();
        self.connect_and_verify(client).map_err(|error| {
            let hinted = hint_at_tls(client.get_connection_info().addr(), error);
            error::no_reply_within(self.deadline(), hinted)
        })
    }

    fn connect_and_verify(&self, client: &Client) -> RedisResult<Connection> {
        let mut connection = client.get_connection_with_timeout(self.deadline())?;
        connection.set_read_timeout(Some(self.deadline()))?;
        connection.set_write_timeout(Some(self.deadline()))?;
        match self.verify(&mut connection) {
            // The server serves. It may only not run this command, or not for this user.
            Err(error) if error::is_command_refused(&error) => Ok(connection),
            verified => verified.map(|()| connection),
        }
    }

    fn verify(&self, connection: &mut Connection) -> RedisResult<()> {
        match &self.target {
            Target::Fixed(_) => redis::cmd("PING").exec(connection),
            // A server that Sentinel names may have become a replica in the meantime.
            Target::Master(_) => match redis::cmd("ROLE").query(connection)? {
                Role::Primary { .. } => Ok(()),
                _ => Err(unreachable("the server that Sentinel named is not a master")),
            },
        }
    }

    /// Returns why a login failed, because the client does not report it. If the reason is not the credentials but, for
    /// example, that the server has too many clients, a connection without credentials meets the same error.
    fn why_login_failed(&self, client: &Client, failed: RedisError) -> RedisError {
        let anonymous = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = client.get_connection_info().clone().set_redis_settings(anonymous);
        match Client::open(info).and_then(|client| self.verified_connection(&client)) {
            Err(error) if error.code() != Some("NOAUTH") => error,
            _ => failed,
        }
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
            "the server closed the connection unasked; if it wants TLS, its URL begins with rediss://",
        ),
        ConnectionAddr::TcpTls { .. } if error.is_timeout() => (
            std::io::ErrorKind::TimedOut,
            "the server did not answer over TLS; if it speaks none, its URL begins with redis://",
        ),
        _ => return error,
    };
    std::io::Error::new(kind, why).into()
}

pub(crate) fn misconfigured(error: &RedisError) -> Error {
    Error::misconfigured(operation::READ_ADDRESS, Cause::of(error))
}

/// Returns the client with the socket settings of [`RedisConnectionManager::new`].
fn with_socket_settings(client: &Client) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let tcp = info.tcp_settings().clone().set_nodelay(true).set_linger_time(Duration::ZERO);
    let tcp = match tcp.keepalive() {
        Some(_) => tcp,
        None => tcp.set_keepalive(TcpKeepalive::new().with_time(Duration::from_secs(60))),
    };
    // Skip the commands that the client sends on connecting to name itself. It ignores their replies, and PING must get the
    // first reply.
    let redis = match info.redis_settings() {
        own if own.lib_name().is_some() => own.clone(),
        settings => settings.clone().set_skip_set_lib_name(),
    };
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
}
