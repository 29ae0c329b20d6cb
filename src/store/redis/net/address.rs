//! The URL of a Redis: one server, the master that Sentinel names, or a cluster.
//!
//! The builder of the store and the connector parse URLs here, and the cluster and Sentinel derive the settings of other
//! servers. Invariant: an error never quotes the URL, because the URL may have a password in it.

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult,
    parse_redis_url,
};
use url::{Position, Url};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The error for a URL that cannot be parsed, for example because of an unescaped `#` in the password.
const URL_SYNTAX: &str = "it is no URL such as redis://USER:PASSWORD@HOST:PORT/DATABASE or redis+unix:///PATH; \
                    what is special in a password is written as %XX";

/// A parsed URL.
pub(crate) enum Address {
    Server(Client),
    Sentinel { name: String, sentinels: Vec<Client>, master: Client },
    Cluster(Vec<Client>),
}

impl Address {
    /// Parses `redis://…` and the other schemes of the client, and `redis-sentinel://…` and `redis-cluster://…` in the syntax
    /// of the `fred` crate.
    pub(crate) fn parse(url: &str) -> RedisResult<Self> {
        Self::read(url).map_err(|error| match error.to_string() {
            // The client does not name the crate of the feature.
            text if text.contains("the feature is not enabled") => {
                refuse("TLS takes the feature tls-rustls of threaded-sessions")
            }
            _ => error,
        })
    }

    fn read(url: &str) -> RedisResult<Self> {
        let url = Url::parse(url).map_err(|_| refuse(URL_SYNTAX))?;
        let Some((scheme, kind)) = url.scheme().rsplit_once('-') else {
            return parse_plain(url.as_str()).and_then(Client::open).map(Self::Server);
        };
        let query = Query::of(&url);
        let port = if kind == "sentinel" { SENTINEL_PORT } else { REDIS_PORT };
        let host = url.host_str().map(|host| (host.to_owned(), url.port().unwrap_or(port)));
        let others = query.nodes.iter().map(|node| host_and_port(node, port));
        let servers = host.into_iter().map(Ok).chain(others).collect::<RedisResult<Vec<_>>>()?;
        // The client parses the URL without the suffix of the scheme and without the parameters of this crate.
        let (login, fragment) = (&url[Position::AfterScheme..Position::AfterPath], &url[Position::AfterQuery..]);
        let settings = parse_plain(&format!("{scheme}{login}?{}{fragment}", query.rest))?;
        let clients = |settings: &ConnectionInfo| {
            let clients = servers.into_iter().map(|(host, port)| Client::open(at(settings, bare(&host), port)));
            clients.collect::<RedisResult<Vec<_>>>()
        };
        match kind {
            "cluster" => clients(&settings).map(Self::Cluster),
            "sentinel" => {
                let name = query.name.ok_or_else(|| refuse("the URL has no sentinelServiceName"))?;
                let login = RedisConnectionInfo::default();
                let login = query.username.iter().fold(login, RedisConnectionInfo::set_username);
                let login = query.password.iter().fold(login, RedisConnectionInfo::set_password);
                let sentinels = clients(&settings.clone().set_redis_settings(login))?;
                Ok(Self::Sentinel { name, sentinels, master: Client::open(settings)? })
            }
            _ => Err(refuse("the scheme is none of redis, rediss, redis+unix, redis-sentinel and redis-cluster")),
        }
    }
}

/// Parses a URL that the client supports.
fn parse_plain(url: &str) -> RedisResult<ConnectionInfo> {
    parse_redis_url(url).ok_or_else(|| refuse(URL_SYNTAX))?.into_connection_info()
}

/// The parameters in the query of a URL.
#[derive(Default)]
struct Query {
    nodes: Vec<String>,
    name: Option<String>,
    username: Option<String>,
    password: Option<String>,
    /// The parameters that the client reads.
    rest: String,
}

impl Query {
    fn of(url: &Url) -> Self {
        let mut query = Self::default();
        let mut rest = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "node" => query.nodes.push(value.into_owned()),
                "sentinelServiceName" => query.name = Some(value.into_owned()),
                "sentinelUsername" => query.username = Some(value.into_owned()),
                "sentinelPassword" => query.password = Some(value.into_owned()),
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        Self { rest: rest.finish(), ..query }
    }
}

fn host_and_port(node: &str, port: u16) -> RedisResult<(String, u16)> {
    let invalid = || refuse("a node in the URL is not HOST:PORT");
    let node = Url::parse(&format!("redis://{node}")).map_err(|_| invalid())?;
    let host = node.host_str().ok_or_else(invalid)?;
    Ok((host.to_owned(), node.port().unwrap_or(port)))
}

/// Removes the brackets that an IPv6 address has in a URL.
fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_owned()
}

fn refuse(why: &'static str) -> RedisError {
    (redis::ErrorKind::InvalidClientConfig, why).into()
}

/// Returns these settings for another server.
pub(crate) fn at(settings: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let addr = match settings.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    settings.clone().set_addr(addr)
}

/// Returns host and port of a server, or `None` for a Unix socket.
pub(crate) fn of(settings: &ConnectionInfo) -> Option<(&str, u16)> {
    match settings.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some((host, *port)),
        _ => None,
    }
}
