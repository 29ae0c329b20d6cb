//! Flags and environment variables for programs that host sessions, and their orderly end.
//!
//! A program flattens [`Args`] into its own command line. [`Args`] builds the store and the manager. [`Host`] runs the reaper
//! and notices Ctrl-C and SIGTERM. At such a signal, stop accepting requests, finish the running requests, then stop the
//! reaper. Invariant: the password in the Redis URL never reaches the help text or `Debug`.
//!
//! With tiny_http, `threaded_sessions::tiny_http::serve` does this, and accepts connections again after a shortage of file
//! descriptors:
//!
//! ```no_run
//! use clap::Parser;
//! # #[cfg(feature = "tiny-http")]
//! use threaded_sessions::tiny_http::{respond, serve};
//!
//! /// Counts your visits.
//! #[derive(Parser)]
//! struct Cli {
//!     /// How many requests to serve at once
//!     #[arg(long, default_value_t = 16)]
//!     threads: usize,
//!     #[command(flatten)]
//!     sessions: threaded_sessions::args::Args,
//! }
//!
//! # #[cfg(feature = "tiny-http")]
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let cli = Cli::parse();
//! let sessions = cli.sessions.manager::<u32>()?.build()?;
//! let listener = std::net::TcpListener::bind("127.0.0.1:8000")?;
//! let host = cli.sessions.host(sessions.reaper())?;
//! let served = serve(&host, listener, cli.threads, |request| {
//!     respond(&sessions, request, |visits, _| {
//!         **visits += 1;
//!         tiny_http::Response::from_string(visits.to_string())
//!     })
//! });
//! host.stop();
//! served?; // an error here ends the program with a failure
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tiny-http"))]
//! # fn main() {}
//! ```
//!
//! With rouille, `threaded_sessions::rouille::serve` does the same, as the example `shop` shows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use humantime::{DurationError, parse_duration};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use super::host::Host;
use crate::{
    MemorySessionStore, ReaperBuilder, RedisSessionStore, Result, SessionManager, SessionManagerBuilder, SessionStore,
    fence,
};

/// What an operator sets. Each flag has an environment variable, which the flag overrides.
///
/// A password belongs into the environment: other users of the machine can see the flags of a program. The help shows no
/// value of `REDIS_URL`.
// The first paragraph would otherwise become the description of the program.
#[derive(Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Sessions")]
pub struct Args {
    /// Keep sessions in this Redis, redis://USER:PASSWORD@HOST:PORT/DATABASE or redis+unix:///SOCKET; otherwise they live in
    /// memory and end with the program
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    redis_url: Option<String>,

    /// What all keys in Redis begin with
    #[arg(long, env = "SESSION_PREFIX", value_name = "TEXT", default_value = "sessions")]
    prefix: String,

    /// Name the keys in Redis by the SHA-256 of the session id, so that a copy of the database gives nobody a usable cookie
    #[arg(long, env = "SESSION_HASHED_KEYS", value_parser = BoolishValueParser::new())]
    hashed_keys: bool,

    /// Over how many partitions to spread the sessions; 1 by default, or 64 in a cluster
    #[arg(long, env = "SESSION_PARTITIONS", value_name = "COUNT")]
    partitions: Option<u32>,

    /// Keep an index of the sessions in Redis, and delete what is overdue by it
    #[arg(long, env = "SESSION_EXPIRING", value_parser = BoolishValueParser::new())]
    expiring: bool,

    /// How long a session lives after its last use: 30m, 12h, or never to end by idling
    #[arg(long, env = "SESSION_IDLE_TIMEOUT", value_name = "TIME", default_value = "7d", value_parser = timeout)]
    idle_timeout: Timeout,

    /// How long a session lives at most, however busy
    #[arg(long, env = "SESSION_LIFETIME", value_name = "TIME", value_parser = parse_duration)]
    lifetime: Option<Duration>,

    /// The idle timeout of visitors who want to be remembered, longer than that of others
    #[arg(long, env = "SESSION_REMEMBER_FOR", value_name = "TIME", value_parser = parse_duration)]
    remember_for: Option<Duration>,

    /// Count only changes as use, not reading
    #[arg(long, env = "SESSION_NO_TOUCH_ON_READ", value_parser = BoolishValueParser::new())]
    no_touch_on_read: bool,

    /// How often to delete what is overdue
    #[arg(long, env = "SESSION_RESOLUTION", value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    resolution: Duration,

    /// How many connections to Redis to open at most; 64 by default, or 8 for each core where that is more
    #[arg(long, env = "SESSION_POOL_SIZE", value_name = "COUNT")]
    pool_size: Option<u32>,

    /// How long one operation in Redis may take
    #[arg(long, env = "SESSION_DEADLINE", value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    deadline: Duration,

    /// The name of the cookie, __Host-session by default
    #[arg(long, env = "SESSION_COOKIE_NAME", value_name = "NAME")]
    cookie_name: Option<String>,

    /// Let the cookie go over plain HTTP, for development
    #[arg(long, env = "SESSION_INSECURE_COOKIES", value_parser = BoolishValueParser::new())]
    insecure_cookies: bool,
}

/// An idle timeout, or none. Its own type, because clap reads a bare `Option` as a flag that may be missing.
#[derive(Clone, Copy, Debug)]
struct Timeout(Option<Duration>);

fn timeout(text: &str) -> Result<Timeout, DurationError> {
    if text == "never" { Ok(Timeout(None)) } else { parse_duration(text).map(|timeout| Timeout(Some(timeout))) }
}

impl Args {
    /// Builds the store: in Redis if there is a Redis URL, otherwise in memory.
    ///
    /// A store in memory logs a warning. A store in Redis is [checked](RedisSessionStore::check), and problems are logged. If
    /// Redis is unreachable, the store works as soon as Redis is reachable.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if a value is invalid, and any error of
    /// [`check`](RedisSessionStore::check) that is not [temporary](crate::ErrorKind::is_temporary).
    pub fn store(&self) -> Result<Arc<dyn SessionStore>> {
        let Some(url) = &self.redis_url else {
            fence::log!(Warn, "sessions live in memory and end with this program: no --redis-url");
            return Ok(Arc::new(MemorySessionStore::new()));
        };
        let mut builder = RedisSessionStore::builder().url(url).prefix(&self.prefix).deadline(self.deadline);
        if let Some(connections) = self.pool_size {
            builder = builder.pool_size(connections);
        }
        if let Some(partitions) = self.partitions {
            builder = builder.partitions(partitions);
        }
        if self.hashed_keys {
            builder = builder.hashed_keys();
        }
        if self.expiring {
            builder = builder.expiring();
        }
        let store = builder.build()?;
        match store.check() {
            Ok(warnings) => warnings.iter().for_each(|warning| fence::log!(Warn, "{warning}")),
            Err(error) if error.kind().is_temporary() => fence::log!(Warn, "starting without Redis: {error:#}"),
            Err(error) => return Err(error),
        }
        Ok(Arc::new(store))
    }

    /// Creates a manager builder with the [store](Self::store) and these settings. The program can add its own settings.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`store`](Self::store).
    pub fn manager<T: Serialize + DeserializeOwned + 'static>(&self) -> Result<SessionManagerBuilder<T>> {
        let builder = SessionManager::builder(self.store()?)
            .idle_timeout(self.idle_timeout.0)
            .lifetime(self.lifetime)
            .remember_for(self.remember_for)
            .touch_on_read(!self.no_touch_on_read)
            .secure(!self.insecure_cookies);
        Ok(match &self.cookie_name {
            Some(name) => builder.cookie_name(name),
            None => builder,
        })
    }

    /// Starts the reaper with the configured [resolution](ReaperBuilder::resolution) if the store needs a reaper, and begins
    /// to handle Ctrl-C and SIGTERM.
    ///
    /// # Errors
    ///
    /// Returns an error if the reaper cannot be started, or if the signal handlers cannot be installed.
    pub fn host<T: 'static>(&self, reaper: ReaperBuilder<T>) -> Result<Host> {
        Host::start(reaper.resolution(self.resolution))
    }
}

/// Shows everything but the URL, which may hold a password.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args")
            .field("redis", &self.redis_url.is_some())
            .field("prefix", &self.prefix)
            .field("hashed_keys", &self.hashed_keys)
            .field("partitions", &self.partitions)
            .field("expiring", &self.expiring)
            .field("idle_timeout", &self.idle_timeout.0)
            .field("lifetime", &self.lifetime)
            .field("remember_for", &self.remember_for)
            .field("touch_on_read", &!self.no_touch_on_read)
            .field("resolution", &self.resolution)
            .field("pool_size", &self.pool_size)
            .field("deadline", &self.deadline)
            .field("cookie_name", &self.cookie_name)
            .field("insecure_cookies", &self.insecure_cookies)
            .finish()
    }
}
