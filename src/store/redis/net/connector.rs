use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, Connection, ConnectionAddr, RedisConnectionInfo, RedisError, RedisResult, Role};

use super::address::{self, Address};
use super::breaker::Breaker;
use super::connection::RedisConnection;
use super::credentials::Credentials;
use super::error::Cause;
use super::sentinel::{Sentinel, unreachable};
use crate::{Error, Result, operation};

/// How long a whole operation may take unless configured otherwise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

/// Refuses deadlines that do not work: sockets take no limit of zero, and clocks end.
pub(crate) fn check_deadline(deadline: Duration) -> Result<()> {
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&deadline) {
        return Ok(());
    }
    let why = "the deadline must be from 1 millisecond to an hour";
    Err(Error::misconfigured(operation::SET_DEADLINE, why))
}

/// Opens connections for an [`r2d2::Pool`] that are fit for the worker threads of a server.
///
/// What the `redis` crate itself implements for r2d2 has no time limits: a Redis that hangs would hang every thread. Here
/// connecting, writing and reading have limits, a connection that saw a failure is never used again, and checking a
/// connection out of the pool costs no round trip.
///
/// Clones are the same manager.
#[derive(Clone)]
pub struct RedisConnectionManager {
    target: Target,
    settings: Settings,
    breaker: Arc<Breaker>,
}

/// What can be set of connections, wherever they lead. What is not set is as by default.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) deadline: Option<Duration>,
    pub(crate) credentials: Option<Arc<dyn Fn() -> Credentials + Send + Sync>>,
}

/// Which server connections lead to.
#[derive(Clone)]
enum Target {
    Fixed(Arc<Client>),
    Master(Arc<Sentinel>),
}

impl RedisConnectionManager {
    /// A manager of connections to the Redis at this URL: `redis://user:password@host:6379/0`,
    /// `redis+unix:///path/to/socket`, or the `redis-sentinel://…` of
    /// [`RedisSessionStoreBuilder::url`](crate::RedisSessionStoreBuilder::url). Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] if the URL cannot be read, or is that of a cluster, whose pool a
    /// [`RedisSessionStore`](crate::RedisSessionStore) makes. The error does not repeat it, for it may hold a password.
    pub fn open(url: &str) -> Result<Self> {
        match Address::parse(url).map_err(|error| misconfigured(&error))? {
            Address::Server(client) => Self::new(client),
            Address::Sentinel { name, sentinels, master } => Self::sentinel(name, sentinels, master),
            Address::Cluster(_) => Err(Error::misconfigured(
                operation::READ_ADDRESS,
                "a cluster takes a pool for each of its nodes, which the builder of a store makes",
            )),
        }
    }

    /// A manager of connections to where this client connects. TCP connections get `TCP_NODELAY`, keep-alive unless the
    /// client has its own, and are closed by a reset: what was not yet sent over a connection that was given up is never
    /// sent late.
    pub fn new(client: Client) -> Result<Self> {
        let client = prepared(&client).map_err(|error| misconfigured(&error))?;
        let breaker = Breaker::new(client.get_connection_info().addr().to_string());
        Ok(Self { target: Target::Fixed(Arc::new(client)), settings: Settings::default(), breaker: Arc::new(breaker) })
    }

    /// A manager of connections to the master of this name, of which these Sentinels know the address. It is logged in at,
    /// and talked to with or without TLS, as `master` would, whose own address does not matter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] if there are no Sentinels.
    pub fn sentinel(
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = Client>,
        master: Client,
    ) -> Result<Self> {
        let sentinels: Vec<Client> = sentinels.into_iter().collect();
        if sentinels.is_empty() {
            return Err(Error::misconfigured(operation::READ_ADDRESS, "there are no Sentinels"));
        }
        let settings = prepared(&master).map_err(|error| misconfigured(&error))?.get_connection_info().clone();
        let sentinel = Sentinel::new(name.into(), sentinels, settings);
        let breaker = Arc::new(Breaker::new(sentinel.to_string()));
        Ok(Self { target: Target::Master(Arc::new(sentinel)), settings: Settings::default(), breaker })
    }

    /// The same for another server.
    pub(crate) fn at(&self, host: &str, port: u16) -> RedisResult<Self> {
        let Target::Fixed(client) = &self.target else {
            return Err(unreachable("nodes of a cluster have no Sentinels"));
        };
        let client = Client::open(address::at(client.get_connection_info(), host.to_owned(), port))?;
        let breaker = Arc::new(Breaker::new(client.get_connection_info().addr().to_string()));
        Ok(Self { target: Target::Fixed(Arc::new(client)), breaker, ..self.clone() })
    }

    /// Host and port, unless it is a Unix socket, or Sentinels tell.
    pub(crate) fn address(&self) -> Option<(&str, u16)> {
        match &self.target {
            Target::Fixed(client) => address::of(client.get_connection_info()),
            Target::Master(_) => None,
        }
    }

    /// Whether the next connection may lead to another server than the last.
    pub(crate) fn follows_a_master(&self) -> bool {
        matches!(self.target, Target::Master(_))
    }

    /// Logs in with what this says, asked anew for every connection: for credentials that change while the program runs.
    /// By default, with what the URL or client has. It is called in threads of the pool, which it may keep waiting.
    pub fn with_credentials(self, credentials: impl Fn() -> Credentials + Send + Sync + 'static) -> Self {
        Self { settings: Settings { credentials: Some(Arc::new(credentials)), ..self.settings }, ..self }
    }

    /// The manager with this deadline for an operation: waiting for a connection, sending, and waiting for the answer.
    /// Defaults to 1 second; from 1 millisecond to an hour. Where it does not hold exactly is told at
    /// [`RedisSessionStoreBuilder::deadline`](crate::RedisSessionStoreBuilder::deadline).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] for a deadline out of range.
    pub fn with_deadline(self, deadline: Duration) -> Result<Self> {
        check_deadline(deadline)?;
        Ok(Self { settings: Settings { deadline: Some(deadline), ..self.settings }, ..self })
    }

    /// The manager with these settings, and no others.
    pub(crate) fn with(self, settings: &Settings) -> Self {
        Self { settings: settings.clone(), ..self }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.settings.deadline.unwrap_or(DEFAULT_DEADLINE)
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Whether Sentinels name another master than the one that connections lead to, and it is there. Those so far are not
    /// used any more then.
    pub(crate) fn leaves_for_another_master(&self) -> bool {
        let Target::Master(sentinel) = &self.target else { return false };
        let Ok(master) = sentinel.master(self.deadline() / 3) else { return false };
        let leaves = sentinel.is_another(&master)
            && self.login(master.clone()).and_then(|client| self.connection(&client)).is_ok()
            && sentinel.follow(&master);
        if leaves {
            self.breaker.invalidate_all();
        }
        leaves
    }

    /// Whom to connect to now.
    fn resolve(&self) -> RedisResult<Client> {
        match &self.target {
            Target::Fixed(client) => Ok(Client::clone(client)),
            // Several may have to be asked.
            Target::Master(sentinel) => sentinel.master(self.deadline() / 3),
        }
    }

    /// The same, as whom the credentials say.
    fn login(&self, client: Client) -> RedisResult<Client> {
        let Some(credentials) = &self.settings.credentials else { return Ok(client) };
        let info = client.get_connection_info().clone();
        let login = credentials().onto(info.redis_settings());
        Client::open(info.set_redis_settings(login))
    }

    /// A connection over which an answer came. Only that shows that the server serves: one that hangs accepts connections,
    /// one that loads its data or wants a password says so to the first command.
    fn connection(&self, client: &Client) -> RedisResult<Connection> {
        #[cfg(feature = "tls-rustls")]
        super::tls::provide();
        self.try_connection(client).map_err(|error| explained(client.get_connection_info().addr(), error))
    }

    fn try_connection(&self, client: &Client) -> RedisResult<Connection> {
        let mut connection = client.get_connection_with_timeout(self.deadline())?;
        connection.set_read_timeout(Some(self.deadline()))?;
        connection.set_write_timeout(Some(self.deadline()))?;
        // A server that Sentinels call the master may have been another's replica for a while.
        let answered = match &self.target {
            Target::Fixed(_) => redis::cmd("PING").exec(&mut connection),
            Target::Master(_) => match redis::cmd("ROLE").query(&mut connection) {
                Ok(Role::Primary { .. }) => Ok(()),
                Ok(_) => Err(unreachable("who was the master is none any more")),
                Err(error) => Err(error),
            },
        };
        match answered {
            // It serves, if not this command to this user.
            Err(error) if error.code() == Some("NOPERM") => Ok(connection),
            answered => answered.map(|()| connection),
        }
    }

    /// Why a login was refused, which the client does not tell. Without credentials the server says if it is for another
    /// reason than these, that it has too many clients, say.
    fn why_refused(&self, client: &Client, refused: RedisError) -> RedisError {
        let anonymous = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = client.get_connection_info().clone().set_redis_settings(anonymous);
        match Client::open(info).and_then(|client| self.connection(&client)) {
            Err(error) if error.code() != Some("NOAUTH") => error,
            _ => refused,
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
        self.breaker.connect_or_probe(|generation| {
            let client = self.login(self.resolve()?)?;
            let connection = self.connection(&client).map_err(|error| match error.kind() {
                redis::ErrorKind::AuthenticationFailed => self.why_refused(&client, error),
                _ => error,
            });
            if let Target::Master(sentinel) = &self.target {
                match &connection {
                    // One from before the last change has been opened for nothing.
                    Ok(_) if self.breaker.is_current(*generation) && sentinel.follow(&client) => {
                        *generation = self.breaker.invalidate_all();
                    }
                    Ok(_) => {}
                    Err(_) => sentinel.doubt(),
                }
            }
            let breaker = self.breaker.clone();
            Ok(RedisConnection::new(connection?, *generation, self.deadline(), self.follows_a_master(), breaker))
        })
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

/// Says what a server may mean that wants TLS and hears none, or hears it and knows none.
fn explained(server: &ConnectionAddr, error: RedisError) -> RedisError {
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

/// The client with settings that are fit for worker threads.
fn prepared(client: &Client) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let tcp = info.tcp_settings().clone().set_nodelay(true).set_linger_time(Duration::ZERO);
    let tcp = match tcp.keepalive() {
        Some(_) => tcp,
        None => tcp.set_keepalive(TcpKeepalive::new().with_time(Duration::from_secs(60))),
    };
    // The answer to these would be ignored, whatever it says; PING is to hear it.
    let redis = match info.redis_settings() {
        own if own.lib_name().is_some() => own.clone(),
        settings => settings.clone().set_skip_set_lib_name(),
    };
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
}
