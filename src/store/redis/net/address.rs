//! The address of a Redis: one server, the master that Sentinel names, or a cluster.
//!
//! The builder of the store and the connector parse URLs and check clients here, and the cluster and Sentinel derive the
//! settings of other servers. Two invariants hold. A setting that this kind of address would ignore is rejected. An error never
//! quotes the URL, except for the name of a parameter, because the URL may have a password in it.

use std::borrow::Cow;

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, parse_redis_url,
};
use url::{Position, Url, form_urlencoded};

use super::error::Cause;
use super::tls::NO_FEATURE;
use crate::{Error, Result, operation};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The error for a URL that cannot be parsed, for example because of an unescaped `#` in the password.
const URL_SYNTAX: &str = "the URL of Redis must have the form redis://USER:PASSWORD@HOST:PORT/DATABASE or redis+unix:///PATH: \
                          add the scheme if it is missing, and write each special character of the password as %XX";

const SCHEMES: &str =
    "the scheme of the URL must be redis, rediss, redis+unix, or one of the first two with -sentinel or -cluster";

const USER_WITHOUT_PASSWORD: &str = "a user name without a password has no effect: add the password (any, if the user has `nopass`), or omit the user name";

/// A parsed URL.
pub(crate) enum Address {
    Server(Client),
    Sentinel { name: String, sentinels: Vec<Client>, master: Client },
    Cluster(Vec<Client>),
}

/// The kind of address that the scheme of a URL names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Unix,
    Sentinel,
    Cluster,
}

impl Kind {
    /// Returns the kind, and the scheme by which the client connects to each server.
    fn of(scheme: &str) -> Option<(Self, &str)> {
        let (base, kind) = match scheme.rsplit_once('-') {
            None if scheme == "unix" || scheme.ends_with("+unix") => (scheme, Self::Unix),
            None => (scheme, Self::Tcp),
            Some((base, "sentinel")) => (base, Self::Sentinel),
            Some((base, "cluster")) => (base, Self::Cluster),
            Some(_) => return None,
        };
        let known: &[&str] = match kind {
            Self::Unix => &["unix", "redis+unix", "valkey+unix"],
            _ => &["redis", "rediss", "valkey", "valkeys"],
        };
        known.contains(&base).then_some((kind, base))
    }

    /// The parameters of such a URL.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["protocol"],
            Self::Unix => &["db", "user", "pass", "protocol"],
            Self::Sentinel => &["sentinelServiceName", "node", "sentinelUsername", "sentinelPassword", "protocol"],
            Self::Cluster => &["node", "protocol"],
        }
    }

    /// The place of a setting that belongs elsewhere in such a URL.
    fn place_of(self, parameter: &str) -> Option<&'static str> {
        match (self, parameter) {
            (Self::Cluster, "db") => Some("a cluster has only database 0"),
            (Self::Tcp | Self::Sentinel, "db") => Some("the database is the path: redis://HOST:PORT/DATABASE"),
            (Self::Tcp | Self::Sentinel | Self::Cluster, "user" | "pass" | "username" | "password") => {
                Some("user and password come before the host: redis://USER:PASSWORD@HOST:PORT")
            }
            (_, "timeout" | "deadline") => Some("the builder of the store sets the deadline"),
            (Self::Tcp | Self::Unix, "node" | "sentinelServiceName") => {
                Some("the scheme of Sentinels is redis-sentinel, that of a cluster redis-cluster")
            }
            _ => None,
        }
    }
}

impl Address {
    /// Parses `redis://…` and the other schemes of the client, and `redis-sentinel://…` and `redis-cluster://…` in the syntax
    /// of the `fred` crate.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the URL has a part that would be ignored.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        // The parser would remove tabs and line breaks, even from a password.
        if text.contains(|c: char| c.is_ascii_control()) {
            return Err(refuse(URL_SYNTAX));
        }
        let url = Url::parse(text).map_err(|_| refuse(URL_SYNTAX))?;
        let (kind, scheme) = Kind::of(url.scheme()).ok_or_else(|| refuse(scheme_error(url.scheme())))?;
        let query = Query::of(&url, kind)?;
        check_fragment(&url, scheme)?;
        check_user_info(&url, kind)?;
        let settings = settings_of(&url, kind, scheme, &query)?;
        match kind {
            Kind::Tcp | Kind::Unix => open(settings).map(Self::Server),
            Kind::Cluster => query.servers(&url, &settings, REDIS_PORT).map(Self::Cluster),
            Kind::Sentinel => {
                let name = query
                    .get("sentinelServiceName")
                    .ok_or_else(|| refuse("the URL has no sentinelServiceName: add ?sentinelServiceName=NAME"))?;
                let login = login(&query, "sentinelUsername", "sentinelPassword")?;
                let at_sentinels = settings.clone().set_redis_settings(login);
                let sentinels = query.servers(&url, &at_sentinels, SENTINEL_PORT)?;
                Ok(Self::Sentinel { name: name.to_owned(), sentinels, master: open(settings)? })
            }
        }
    }
}

/// Returns the error for a scheme of another kind. A text without `://` is often a host without a scheme.
fn scheme_error(scheme: &str) -> &'static str {
    let is_meant = |(base, kind): (&str, &str)| base.starts_with("redis") || ["sentinel", "cluster"].contains(&kind);
    if scheme.rsplit_once(['-', '+']).is_some_and(is_meant) { SCHEMES } else { URL_SYNTAX }
}

/// Reads the settings that all servers of the URL share. The client parses the URL without its query, because it ignores
/// unknown parameters, and reads a plus sign as a space.
fn settings_of(url: &Url, kind: Kind, scheme: &str, query: &Query) -> Result<ConnectionInfo> {
    let database = match kind {
        Kind::Unix => query
            .get("db")
            .map_or(Ok(0), |db| database(db, "the parameter `db` must be the number of a database, such as 0")),
        _ if url.host_str().is_none_or(str::is_empty) => Err(refuse("the URL must name a host, such as 127.0.0.1")),
        _ => match url.path().trim_matches('/') {
            "" => Ok(0),
            path => {
                database(path, "the path of the URL must be the number of a database, as in redis://HOST/0, or empty")
            }
        },
    }?;
    if kind == Kind::Cluster && database != 0 {
        return Err(refuse("a cluster has only database 0: omit the path of the URL"));
    }
    let rest = if kind == Kind::Unix { Position::AfterPath } else { Position::BeforePath };
    let (place, fragment) = (&url[Position::AfterScheme..rest], &url[Position::AfterQuery..]);
    let info = parse_redis_url(&format!("{scheme}{place}{fragment}")).ok_or_else(|| refuse(URL_SYNTAX))?;
    let info = info.into_connection_info().map_err(|error| match error.to_string() {
        // The client does not name the crate of the feature.
        text if text.contains("the feature is not enabled") => refuse(NO_FEATURE),
        _ => refuse(Cause::of(&error)),
    })?;
    let login = if kind == Kind::Unix { login(query, "user", "pass")? } else { info.redis_settings().clone() };
    let login = login.set_db(database.into()).set_protocol(query.protocol()?);
    Ok(info.set_redis_settings(login))
}

fn database(text: &str, why: &'static str) -> Result<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| refuse(why))
}

/// Reads user name and password from the query.
fn login(query: &Query, user: &str, password: &str) -> Result<RedisConnectionInfo> {
    let login = RedisConnectionInfo::default();
    let login = query.get(user).into_iter().fold(login, RedisConnectionInfo::set_username);
    let login = query.get(password).into_iter().fold(login, RedisConnectionInfo::set_password);
    check_login(&login)?;
    Ok(login)
}

fn check_fragment(url: &Url, scheme: &str) -> Result<()> {
    match url.fragment() {
        None => Ok(()),
        Some("insecure") if ["rediss", "valkeys"].contains(&scheme) => Ok(()),
        Some(_) => Err(refuse(
            "the URL has a fragment, which means nothing; the database is the path, and a # in a password is written as %23",
        )),
    }
}

/// Rejects user info that would be ignored. Empty user info is the same as none.
fn check_user_info(url: &Url, kind: Kind) -> Result<()> {
    let why = match (kind, url.host_str().unwrap_or_default()) {
        (Kind::Unix, "") => return Ok(()),
        (Kind::Unix, _) => {
            "the URL of a Unix socket has no host and no user info: redis+unix:///PATH?user=USER&pass=PASSWORD"
        }
        _ if url.username().is_empty() || url.password().is_some() => return Ok(()),
        _ => USER_WITHOUT_PASSWORD,
    };
    Err(refuse(why))
}

/// The parameters in the query of a URL.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(url: &Url, kind: Kind) -> Result<Self> {
        let text = url.query().unwrap_or_default();
        // A password with an unescaped question mark looks like a query, and with a # after it like a query and a fragment. Its text
        // must not get into an error.
        if url[Position::AfterPath..].contains('@') {
            return Err(refuse(URL_SYNTAX));
        }
        let mut pairs = Vec::new();
        // Only %XX is decoded: a plus sign is no space.
        for (name, value) in form_urlencoded::parse(text.replace('+', "%2B").as_bytes()) {
            if !kind.parameters().contains(&&*name) {
                return Err(ignored(kind, &name, pairs.iter().any(is_password)));
            }
            let shown = shown(&name);
            if value.is_empty() {
                return Err(refuse(format!("{shown} of the URL is empty: give it a value, or omit it")));
            }
            // The decoder writes this character for bytes that are not UTF-8.
            if value.contains('\u{fffd}') {
                return Err(refuse(format!("{shown} of the URL is not UTF-8")));
            }
            if name != "node" && pairs.iter().any(|(known, _)| *known == name) {
                return Err(refuse(format!("the URL has {shown} twice: omit one of them")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn protocol(&self) -> Result<ProtocolVersion> {
        match self.get("protocol") {
            None | Some("2" | "resp2") => Ok(ProtocolVersion::RESP2),
            Some("3" | "resp3") => Ok(ProtocolVersion::RESP3),
            Some(_) => Err(refuse("the parameter `protocol` of the URL is neither resp2 nor resp3")),
        }
    }

    /// Returns a client for the host of the URL and for each node.
    fn servers(&self, url: &Url, settings: &ConnectionInfo, port: u16) -> Result<Vec<Client>> {
        let host = url.host_str().map(|host| (host.to_owned(), url.port().unwrap_or(port)));
        let nodes = self.all("node").map(|node| host_and_port(node, port));
        let servers = host.into_iter().map(Ok).chain(nodes);
        servers.map(|server| server.and_then(|(host, port)| open(at(settings, bare(&host), port)))).collect()
    }
}

fn is_password((name, _): &(String, String)) -> bool {
    ["pass", "sentinelPassword"].contains(&&**name)
}

/// Returns the error for an unknown parameter. After a password the name is not shown, because a password with an unescaped `&`
/// looks like two parameters.
fn ignored(kind: Kind, name: &str, is_after_password: bool) -> Error {
    let shown = if is_after_password { "a parameter".into() } else { shown(name) };
    let remedy = match kind.place_of(name) {
        Some(place) => place.to_owned(),
        None => format!("omit it; the parameters are {}", kind.parameters().join(", ")),
    };
    refuse(format!("the URL has {shown}, which would be ignored: {remedy}"))
}

/// Returns a parameter for an error. A name that no setting could have is not shown, because it may be a part of a password.
fn shown(name: &str) -> Cow<'static, str> {
    let is_name =
        (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c));
    if is_name { format!("the parameter `{name}`").into() } else { "a parameter".into() }
}

fn open(info: ConnectionInfo) -> Result<Client> {
    Client::open(info).map_err(|error| refuse(Cause::of(&error)))
}

/// Reads a node. Anything but host and port would be ignored.
fn host_and_port(node: &str, port: u16) -> Result<(String, u16)> {
    let invalid = || refuse("the parameter `node` of the URL is not HOST:PORT");
    if node.contains(['/', '?', '#', '@']) || node.contains(char::is_whitespace) {
        return Err(invalid());
    }
    let node = Url::parse(&format!("redis://{node}")).map_err(|_| invalid())?;
    let host = node.host_str().ok_or_else(invalid)?;
    Ok((host.to_owned(), node.port().unwrap_or(port)))
}

/// Removes the brackets that an IPv6 address has in a URL.
fn bare(host: &str) -> String {
    host.trim_matches(['[', ']']).to_owned()
}

fn refuse(why: impl Into<crate::BoxError>) -> Error {
    Error::misconfigured(operation::READ_ADDRESS, why)
}

/// Rejects a login that would be ignored: without a password, the client sends no user name.
pub(crate) fn check_login(login: &RedisConnectionInfo) -> Result<()> {
    match (login.username(), login.password()) {
        (Some(_), None) => Err(refuse(USER_WITHOUT_PASSWORD)),
        _ => Ok(()),
    }
}

/// Rejects settings of Sentinels, and of the master behind them, that would be ignored or cannot work.
pub(crate) fn check_sentinels(name: &str, sentinels: &[Client], master: &Client) -> Result<()> {
    if sentinels.is_empty() {
        return Err(refuse("there are no Sentinels"));
    }
    if name.is_empty() {
        return Err(refuse("the name of the master is empty"));
    }
    if of(master.get_connection_info()).is_none() {
        return Err(refuse("Sentinels name the master by host and port, so it cannot be at a Unix socket"));
    }
    check_login(master.get_connection_info().redis_settings())?;
    for sentinel in sentinels {
        let settings = sentinel.get_connection_info().redis_settings();
        check_login(settings)?;
        if settings.db() != 0 {
            return Err(refuse("a Sentinel has no databases: set the database in the client of the master"));
        }
    }
    Ok(())
}

/// Rejects settings of the nodes of a cluster that would be ignored. All nodes take the settings of the first one, so another
/// one may have the same settings or none.
pub(crate) fn check_cluster(nodes: &[Client]) -> Result<()> {
    let Some(first) = nodes.first().map(Client::get_connection_info) else { return Ok(()) };
    check_login(first.redis_settings())?;
    for node in nodes.iter().map(Client::get_connection_info) {
        if node.redis_settings().db() != 0 {
            return Err(refuse("a cluster has only database 0: omit the database of its clients"));
        }
        if !agrees(node, first) {
            return Err(refuse(
                "all nodes of a cluster take login, protocol and TLS of the first client: omit those of the others, or \
                 make them equal",
            ));
        }
    }
    Ok(())
}

fn agrees(node: &ConnectionInfo, first: &ConnectionInfo) -> bool {
    let login = |info: &ConnectionInfo| {
        let settings = info.redis_settings();
        (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
    };
    let tls = |info: &ConnectionInfo| match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => Some((*insecure, tls_params.is_some())),
        _ => None,
    };
    let protocol = |info: &ConnectionInfo| info.redis_settings().protocol();
    (login(node) == (None, None) || login(node) == login(first))
        && (tls(node).is_none() || tls(node) == tls(first))
        && (protocol(node) == ProtocolVersion::RESP2 || protocol(node) == protocol(first))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn login_of(client: &Client) -> (Option<&str>, Option<&str>, i64) {
        let settings = client.get_connection_info().redis_settings();
        (settings.username(), settings.password(), settings.db())
    }

    #[test]
    fn plus_sign_in_url_stays_a_plus_sign() {
        let Ok(Address::Sentinel { name, sentinels, master }) = Address::parse(
            "redis-sentinel://u+%2B:p+%20@h/3?sentinelServiceName=m+1&sentinelUsername=a+b&sentinelPassword=c+%2B%25+%20d",
        ) else {
            panic!("the URL is of Sentinels")
        };
        assert_eq!(name, "m+1");
        assert_eq!(login_of(&master), (Some("u++"), Some("p+ "), 3));
        assert_eq!(login_of(&sentinels[0]), (Some("a+b"), Some("c++%+ d"), 0));
        let Ok(Address::Server(client)) = Address::parse("redis+unix:///s?db=4&user=a+b&pass=c+%2Bd") else {
            panic!("the URL is of a server")
        };
        assert_eq!(login_of(&client), (Some("a+b"), Some("c++d"), 4));
    }
}
