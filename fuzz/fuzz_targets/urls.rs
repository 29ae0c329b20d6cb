//! An error about a Redis URL shows no part of a password, and is the same for every password.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threaded_sessions::{ErrorKind, RedisConnectionManager};
use threaded_sessions_fuzz::{SECRETS, Secret, full_text, has_secret};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Url(Url<'a>),
    /// Any texts around a secret.
    Any(&'a str, &'a str),
}

/// A URL with its passwords in the places for passwords.
#[derive(Arbitrary, Debug)]
struct Url<'a> {
    scheme: Scheme,
    user: Option<(&'a str, Secret)>,
    host: Host<'a>,
    path: Option<&'a str>,
    parameters: Vec<Parameter<'a>>,
    fragment: Option<&'a str>,
    is_insecure: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Scheme {
    Redis,
    Tls,
    Unix,
    Sentinel,
    Cluster,
    Valkey,
    Other,
}

#[derive(Arbitrary, Debug)]
enum Host<'a> {
    None,
    Name,
    Port(u32),
    V6,
    Any(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Parameter<'a> {
    Password(Secret),
    SentinelPassword(Secret),
    User(&'a str),
    SentinelUser(&'a str),
    Database(u32),
    Protocol(u8),
    Master(&'a str),
    Node(Host<'a>),
    Other(&'a str, &'a str),
}

fuzz_target!(|input: Input<'_>| {
    if has_secret(&input.text("")) {
        return;
    }
    let [first, second] = SECRETS.map(|secret| match &input {
        Input::Url(_) => {
            let text = outcome(&input.text(secret));
            assert!(!text.contains(secret), "{text}");
            text
        }
        // The secret may be a host or the name of a parameter, which texts show.
        Input::Any(..) => outcome(&input.text(secret)).replace(secret, "secret"),
    });
    assert_eq!(first, second);
});

/// Returns the texts of the error, or of the manager of connections.
fn outcome(url: &str) -> String {
    match RedisConnectionManager::open(url) {
        Ok(manager) => format!("{manager:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            full_text(&error)
        }
    }
}

impl Input<'_> {
    fn text(&self, secret: &str) -> String {
        match self {
            Self::Url(url) => url.text(secret),
            Self::Any(before, after) => [before, secret, after].concat(),
        }
    }
}

impl Url<'_> {
    fn text(&self, secret: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Redis => "redis",
            Scheme::Tls => "rediss",
            Scheme::Unix => "redis+unix",
            Scheme::Sentinel => "redis-sentinel",
            Scheme::Cluster => "valkey-cluster",
            Scheme::Valkey => "valkey",
            Scheme::Other => "http",
        };
        let user = self.user.as_ref().map(|(name, password)| format!("{}:{}@", plain(name), password.text(secret)));
        let path = self.path.map(|path| format!("/{}", plain(path)));
        let parameters: Vec<_> = self.parameters.iter().map(|parameter| parameter.text(secret)).collect();
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        let fragment = match (self.is_insecure, self.fragment) {
            (true, _) => "#insecure".to_owned(),
            (false, Some(text)) => format!("#{text}"),
            (false, None) => String::new(),
        };
        let [user, path] = [user, path].map(Option::unwrap_or_default);
        format!("{scheme}://{user}{}{path}{query}{fragment}", self.host.text())
    }
}

impl Host<'_> {
    fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Name => "h".to_owned(),
            Self::Port(port) => format!("h:{port}"),
            Self::V6 => "[::1]:6380".to_owned(),
            Self::Any(text) => plain(text),
        }
    }
}

impl Parameter<'_> {
    fn text(&self, secret: &str) -> String {
        match self {
            Self::Password(password) => format!("pass={}", password.text(secret)),
            Self::SentinelPassword(password) => format!("sentinelPassword={}", password.text(secret)),
            Self::User(name) => format!("user={}", plain(name)),
            Self::SentinelUser(name) => format!("sentinelUsername={}", plain(name)),
            Self::Database(number) => format!("db={number}"),
            Self::Protocol(number) => format!("protocol={number}"),
            Self::Master(name) => format!("sentinelServiceName={}", plain(name)),
            Self::Node(host) => format!("node={}", host.text()),
            Self::Other(name, value) => format!("{}={}", plain(name), plain(value)),
        }
    }
}

/// Removes the characters that would end a part of the URL before the password in it.
fn plain(text: &str) -> String {
    text.replace(['/', '?', '#', '&', '@', ':'], "")
}
