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
//! #[command(version)]
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

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind as UsageErrorKind;
use clap::{ArgMatches, Args as Flatten, Command, Error as UsageError, FromArgMatches, Parser};
use serde::{Deserialize, Serialize};

pub use super::host::Host;
#[cfg(feature = "cli")]
pub use super::operator::OperatorArgs;
pub use super::redis::RedisArgs;
use super::redis::{RedisFlags, missing_url, shows_url};
use super::values::{Checked, Limit, cookie_domain, cookie_name, limit, on_cap, same_site, time};
use crate::{
    MemorySessionStore, OnCap, ReaperBuilder, Result, SameSite, SessionManager, SessionManagerBuilder, SessionStore,
    fence,
};

/// Parses the command line and the environment, as [`Parser::parse`] does, but no error shows a URL.
///
/// A URL in the wrong place, as in `program redis://:PASSWORD@HOST`, would show its password in the terminal and in the logs of a
/// job. This function exits with status 2, and the error asks for `--redis-url`.
///
/// # Examples
///
/// ```no_run
/// #[derive(clap::Parser)]
/// struct Cli {
///     #[command(flatten)]
///     sessions: threaded_sessions::args::Args,
/// }
///
/// let cli: Cli = threaded_sessions::args::parse();
/// # let _ = cli.sessions;
/// ```
pub fn parse<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| match shows_url(&error) {
        true => missing_url("a URL, which may hold a password, is in the wrong place").format(&mut P::command()).exit(),
        false => error.exit(),
    })
}

/// The flags, as clap reads them. A flag that is not given changes no setting of the program.
// Without `about = None`, this text would become the description of the program.
#[derive(Clone, Flatten)]
#[group(skip)]
#[command(about = None, long_about = None, next_help_heading = "Sessions")]
struct Flags {
    #[command(flatten)]
    redis: RedisFlags,

    /// How long a session lives after its last use, such as 30m or 12h, or `never` to stay however idle; 7d by default
    #[arg(long, global = true, env = "SESSION_IDLE_TIMEOUT", value_name = "TIME", value_parser = limit)]
    idle_timeout: Option<Limit>,

    /// The idle timeout of sessions without a user, shorter than that of others. It needs an index: --expiring, or sessions in memory
    #[arg(long, global = true, env = "SESSION_ANONYMOUS_IDLE_TIMEOUT", value_name = "TIME", value_parser = time)]
    anonymous_idle_timeout: Option<Duration>,

    /// How long a session lives at most, however busy; `never`, without a limit, by default
    #[arg(long, global = true, env = "SESSION_LIFETIME", value_name = "TIME", value_parser = limit)]
    lifetime: Option<Limit>,

    /// The idle timeout of visitors who want to be remembered, longer than that of others
    #[arg(long, global = true, env = "SESSION_REMEMBER_FOR", value_name = "TIME", value_parser = time)]
    remember_for: Option<Duration>,

    /// Count only changes as use, not reading
    #[arg(long, global = true, env = "SESSION_NO_TOUCH_ON_READ", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_touch_on_read: Option<bool>,

    /// How often reading extends a session, to save writes; every time by default
    #[arg(long, global = true, env = "SESSION_TOUCH_EVERY", value_name = "TIME", value_parser = time)]
    touch_every: Option<Duration>,

    /// The age at which the id of a session is replaced, such as 4h; only logins replace it by default
    #[arg(long, global = true, env = "SESSION_RENEW_EVERY", value_name = "TIME", value_parser = limit)]
    renew_every: Option<Limit>,

    /// The most sessions of a user; one more login ends the oldest, or fails (--on-cap). It needs an index: --expiring, or sessions in memory
    #[arg(long, global = true, env = "SESSION_MAX_PER_PRINCIPAL", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_per_principal: Option<u32>,

    /// The policy for a login beyond --max-per-principal, end-oldest by default: the oldest session ends, or the login fails
    #[arg(long, global = true, env = "SESSION_ON_CAP", value_name = "POLICY", value_parser = on_cap(), ignore_case = true)]
    on_cap: Option<OnCap>,

    /// How often to delete expired sessions, or `never` if another program does; 10m by default
    #[arg(long, global = true, env = "SESSION_RESOLUTION", value_name = "TIME", value_parser = limit)]
    resolution: Option<Limit>,

    /// The name of the cookie, __Host-session by default
    #[arg(long, global = true, env = "SESSION_COOKIE_NAME", value_name = "NAME", value_parser = cookie_name)]
    cookie_name: Option<String>,

    /// The domain of the cookie, which browsers then send to its subdomains too; this host only by default
    #[arg(long, global = true, env = "SESSION_COOKIE_DOMAIN", value_name = "DOMAIN", value_parser = cookie_domain)]
    cookie_domain: Option<String>,

    /// Which requests from other sites carry the cookie, lax by default
    #[arg(long, global = true, env = "SESSION_SAME_SITE", value_name = "POLICY", value_parser = same_site(), ignore_case = true)]
    same_site: Option<SameSite>,

    /// Send the cookie over plain HTTP too, for development
    #[arg(long, global = true, env = "SESSION_INSECURE_COOKIES", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_cookies: Option<bool>,

    /// Another origin whose pages may send requests, such as https://admin.example.com; repeat it for more, or separate them by
    /// commas
    #[arg(long, global = true, env = "SESSION_TRUSTED_ORIGIN", value_name = "ORIGIN", value_parser = Checked::origins())]
    trusted_origin: Vec<String>,
}

impl Flags {
    /// Rejects flags that have no effect without another flag, or together with it.
    fn check(&self) -> Result<(), UsageError> {
        if self.on_cap.is_some() && self.max_per_principal.is_none() {
            return Err(UsageError::raw(
                UsageErrorKind::MissingRequiredArgument,
                "'--on-cap' needs a cap: set '--max-per-principal <COUNT>' or the variable SESSION_MAX_PER_PRINCIPAL",
            ));
        }
        if self.touch_every.is_some() && self.no_touch_on_read == Some(true) {
            return Err(UsageError::raw(
                UsageErrorKind::ArgumentConflict,
                "'--touch-every' has no effect with '--no-touch-on-read': set only one of them",
            ));
        }
        Ok(())
    }
}

/// The flags for the operator of a program. Each has an environment variable, which the flag overrides.
///
/// Flatten it into the parser of your program. All flags are global: they work before and after a subcommand. The operator's
/// guide [lists](crate::operating#flags) them.
///
/// - **A flag that is not given changes nothing,** so settings of your program are the defaults of its flags. A flag of the store
///   gets another default from clap, as `--expiring` below.
/// - **Bad values** end the program with status 2 and a text that names the flag, also if the value came from the
///   environment. So does a flag that would have no effect: one about Redis without
///   `--redis-url`, `--on-cap` without `--max-per-principal`, and `--touch-every` with `--no-touch-on-read`.
/// - **A time** is a number with a unit (`30m`). `never` lifts the limit.
/// - **A switch** takes a value too. `--expiring=false` overrides the environment.
/// - **The version** is that of your program: `#[command(version)]` adds `--version`.
///
/// A password belongs into the environment, because other users of the machine can see the flags of a program. Neither the help
/// nor an error shows the value of `REDIS_URL`. With [`parse`], no error shows a URL that is in the wrong place either.
///
/// # Examples
///
/// A program that calls [`bind`](crate::Session::bind) needs a store with an index. This program has an expiring store whenever its
/// operator sets `REDIS_URL`, and otherwise a store in memory:
///
/// ```
/// use clap::Parser;
///
/// #[derive(Parser)]
/// #[command(version, mut_arg("expiring", |flag| flag.default_value("true")))]
/// struct Cli {
///     #[command(flatten)]
///     sessions: threaded_sessions::args::Args,
/// }
///
/// # let cli = Cli::parse_from(["program", "--redis-url", "redis://127.0.0.1:1"]);
/// # let store = cli.sessions.redis().expect("there is a URL").builder().build()?;
/// # assert!(threaded_sessions::SessionStore::index(&store).is_some());
/// # let cli = Cli::parse_from(["program"]);
/// let sessions = cli.sessions.manager::<u32>()?.build()?;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone)]
pub struct Args {
    redis: Option<RedisArgs>,
    flags: Flags,
}

impl Args {
    /// Returns the flags about Redis, or `None` without a URL.
    ///
    /// Use it for the store itself and for its pool. [`RedisArgs::builder`] takes settings that have no flag.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use threaded_sessions::{RedisPool, Result, SessionManager, SessionManagerBuilder, args::Args};
    /// fn with_pool(args: &Args) -> Result<Option<(SessionManagerBuilder<u32>, RedisPool)>> {
    ///     let Some(redis) = args.redis() else { return Ok(None) };
    ///     let store = redis.store()?;
    ///     let pool = store.pool().clone();
    ///     Ok(Some((args.apply(SessionManager::builder(store)), pool)))
    /// }
    /// ```
    pub fn redis(&self) -> Option<&RedisArgs> {
        self.redis.as_ref()
    }

    /// Builds the store: in Redis if there is a Redis URL, otherwise in memory.
    ///
    /// A store in memory logs a warning. For a store in Redis, see [`RedisArgs::store`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`RedisArgs::store`].
    pub fn store(&self) -> Result<Arc<dyn SessionStore>> {
        match &self.redis {
            Some(redis) => Ok(Arc::new(redis.store()?)),
            None => {
                fence::log!(Warn, "sessions live in memory and end with this program: no --redis-url");
                Ok(Arc::new(MemorySessionStore::new()))
            }
        }
    }

    /// Creates a manager builder with the [store](Self::store) and these settings. The program can add its own settings.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`store`](Self::store).
    pub fn manager<T: Serialize + for<'de> Deserialize<'de> + 'static>(&self) -> Result<SessionManagerBuilder<T>> {
        Ok(self.apply(SessionManager::builder(self.store()?)))
    }

    /// Applies the flags that are given to a manager builder.
    ///
    /// Use it instead of [`manager`](Self::manager) for a store with steps, a custom store or another codec.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use threaded_sessions::args::Args;
    /// use threaded_sessions::step::WrittenAt;
    /// use threaded_sessions::{Result, SessionManager, StepStore};
    ///
    /// fn sessions(args: &Args) -> Result<SessionManager<u32>> {
    ///     let store = StepStore::builder(args.store()?).step(WrittenAt::new()).build()?;
    ///     // An hour, unless the operator sets --idle-timeout.
    ///     args.apply(SessionManager::builder(store).idle_timeout(Duration::from_secs(3600))).build()
    /// }
    /// ```
    pub fn apply<T: 'static>(&self, mut builder: SessionManagerBuilder<T>) -> SessionManagerBuilder<T> {
        let flags = &self.flags;
        if let Some(Limit(timeout)) = flags.idle_timeout {
            builder = builder.idle_timeout(timeout);
        }
        if let Some(timeout) = flags.anonymous_idle_timeout {
            builder = builder.anonymous_idle_timeout(timeout);
        }
        if let Some(Limit(lifetime)) = flags.lifetime {
            builder = builder.lifetime(lifetime);
        }
        if let Some(timeout) = flags.remember_for {
            builder = builder.remember_for(timeout);
        }
        if let Some(no_touch) = flags.no_touch_on_read {
            builder = builder.touch_on_read(!no_touch);
        }
        if let Some(time) = flags.touch_every {
            builder = builder.touch_every(time);
        }
        if let Some(Limit(age)) = flags.renew_every {
            builder = builder.renew_every(age);
        }
        if let Some(sessions) = flags.max_per_principal {
            builder = builder.max_per_principal(sessions);
        }
        if let Some(on_cap) = flags.on_cap {
            builder = builder.on_cap(on_cap);
        }
        if let Some(insecure) = flags.insecure_cookies {
            builder = builder.secure(!insecure);
        }
        if let Some(name) = &flags.cookie_name {
            builder = builder.cookie_name(name);
        }
        if let Some(domain) = &flags.cookie_domain {
            builder = builder.cookie_domain(domain);
        }
        if let Some(policy) = flags.same_site {
            builder = builder.same_site(policy);
        }
        flags
            .trusted_origin
            .iter()
            .flat_map(|origins| origins.split(','))
            .fold(builder, SessionManagerBuilder::trusted_origin)
    }

    /// Starts the reaper if the store needs one, and begins to handle Ctrl-C and SIGTERM.
    ///
    /// `--resolution` sets the [resolution](ReaperBuilder::resolution) of the reaper; with `never`, no reaper starts. For a program
    /// without these flags, see [`Host::start`].
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`ReaperBuilder::start`], except for [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): a
    ///   store without an index needs no reaper.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the signal handlers cannot be installed.
    pub fn host<T: 'static>(&self, reaper: ReaperBuilder<T>) -> Result<Host> {
        match self.flags.resolution {
            None => Host::start(reaper),
            Some(Limit(Some(resolution))) => Host::start(reaper.resolution(resolution)),
            Some(Limit(None)) => Host::without_reaper(),
        }
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, UsageError> {
        RedisFlags::check(matches)?;
        let flags = Flags::from_arg_matches(matches)?;
        flags.check()?;
        Ok(Self { redis: RedisArgs::of(&flags.redis), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), UsageError> {
        self.flags.update_from_arg_matches(matches)?;
        self.redis = RedisArgs::of(&self.flags.redis);
        Ok(())
    }
}

impl Flatten for Args {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

/// Shows everything but the URL, which may hold a password.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = &self.flags;
        f.debug_struct("Args")
            .field("redis", &self.redis)
            .field("idle_timeout", &flags.idle_timeout)
            .field("anonymous_idle_timeout", &flags.anonymous_idle_timeout)
            .field("lifetime", &flags.lifetime)
            .field("remember_for", &flags.remember_for)
            .field("no_touch_on_read", &flags.no_touch_on_read)
            .field("touch_every", &flags.touch_every)
            .field("renew_every", &flags.renew_every)
            .field("max_per_principal", &flags.max_per_principal)
            .field("on_cap", &flags.on_cap)
            .field("resolution", &flags.resolution)
            .field("cookie_name", &flags.cookie_name)
            .field("cookie_domain", &flags.cookie_domain)
            .field("same_site", &flags.same_site)
            .field("insecure_cookies", &flags.insecure_cookies)
            .field("trusted_origin", &flags.trusted_origin)
            .finish()
    }
}
