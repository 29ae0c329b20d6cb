//! [`RedisArgs`]: the flags of a store in Redis.
//!
//! [`Args`](super::args::Args) contains them; command-line tools flatten [`RedisArgs`] alone. Invariant: the password in the
//! URL never reaches the help text, an error or `Debug`, and a [`RedisArgs`] always has a URL.

use std::fmt;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as Flatten, Command, Error as UsageError, FromArgMatches};

use super::values::{Checked, deadline};
use crate::store::redis::RecordedKind;
use crate::{Error, RedisSessionStore, RedisSessionStoreBuilder, Result, fence, operation};

/// The flags, as clap reads them.
#[derive(Clone, Flatten)]
#[group(skip)]
#[command(about = None, long_about = None, next_help_heading = "Sessions")]
pub(super) struct RedisFlags {
    /// Keep sessions in this Redis, redis://USER:PASSWORD@HOST:PORT/DATABASE or redis+unix:///SOCKET
    #[arg(long, global = true, env = "REDIS_URL", hide_env_values = true, value_name = "URL", value_parser = Checked::redis_url())]
    redis_url: Option<String>,

    /// The text that all keys in Redis begin with, `sessions` by default
    #[arg(long, global = true, env = "SESSION_PREFIX", value_name = "TEXT", value_parser = Checked::prefix())]
    prefix: Option<String>,

    /// Name the keys in Redis by the SHA-256 of the session id, so that a copy of the database holds no usable cookie
    #[arg(long, global = true, env = "SESSION_HASHED_KEYS", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    hashed_keys: Option<bool>,

    /// The number of partitions of the sessions; 1 by default, or 64 in a cluster
    #[arg(long, global = true, env = "SESSION_PARTITIONS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16384))]
    partitions: Option<u32>,

    /// Keep an index of the sessions in Redis, and delete expired sessions by it
    #[arg(long, global = true, env = "SESSION_EXPIRING", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    expiring: Option<bool>,

    /// Announce the ends of sessions, so that listeners in all processes notice them; the commands for operators always do
    #[arg(long, global = true, env = "SESSION_ANNOUNCE_ENDS", value_name = "BOOL", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    announce_ends: Option<bool>,

    /// The most connections to Redis, up to 65535; 64 by default, or 8 for each core if that is more
    #[arg(long, global = true, env = "SESSION_POOL_SIZE", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pool_size: Option<u32>,

    /// The longest time that an operation in Redis may take, up to 1h; 1s by default
    #[arg(long, global = true, env = "SESSION_DEADLINE", value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
}

impl RedisFlags {
    /// Rejects every other flag of this group if there is no URL, because it would have no effect. A default of the program is no
    /// such flag: it is meant for the case that there is a URL.
    pub(super) fn check(matches: &ArgMatches) -> Result<(), UsageError> {
        if is_given(matches, "redis_url") {
            return Ok(());
        }
        let command = Self::augment_args(Command::default());
        let is_default = |id| matches.value_source(id) == Some(ValueSource::DefaultValue);
        let is_useless = |id| is_given(matches, id) && !is_default(id);
        let useless = command.get_arguments().find(|arg| is_useless(arg.get_id().as_str()));
        let Some(arg) = useless else { return Ok(()) };
        // An argument that its command has not built cannot be displayed as a whole.
        let name = match (matches.value_source(arg.get_id().as_str()), arg.get_env()) {
            (Some(ValueSource::EnvVariable), Some(variable)) => format!("the variable {}", variable.display()),
            _ => format!("'--{}'", arg.get_long().unwrap_or_default()),
        };
        Err(missing_url(&format!("{name} needs a Redis")))
    }
}

/// Returns `true` if a flag or its variable is set, to something else than `false`.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches!(matches.try_contains_id(id), Ok(true)) && !matches!(matches.try_get_one(id), Ok(Some(false)))
}

pub(super) fn missing_url(why: &str) -> UsageError {
    UsageError::raw(
        ErrorKind::MissingRequiredArgument,
        format!("{why}: set '--redis-url <URL>' or the variable REDIS_URL"),
    )
}

/// Returns `true` if an error of clap repeats a URL of the command line or the environment. The errors of this crate never do.
pub(super) fn shows_url(error: &UsageError) -> bool {
    error.context().any(|(_, part)| part.to_string().contains("://"))
}

/// The flags of a store in Redis, for command-line tools and for programs that need the store itself.
///
/// A program that serves visitors flattens [`Args`](super::args::Args), which contains these flags. A command-line tool flattens
/// `RedisArgs`. Its parser then requires a URL, so the tool never works on an empty store in memory.
///
/// # Examples
///
/// ```no_run
/// use clap::Parser;
/// use threaded_sessions::SessionStore;
/// use threaded_sessions::args::RedisArgs;
///
/// /// Prints how many sessions live.
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     redis: RedisArgs,
/// }
///
/// let store = Cli::parse().redis.recorded_store()?;
/// match store.index() {
///     Some(index) => println!("{}", index.count()?),
///     None => eprintln!("a plain store has no index"),
/// }
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisArgs {
    url: String,
    flags: RedisFlags,
}

impl RedisArgs {
    /// Returns the flags as settings, unless there is no URL.
    pub(super) fn of(flags: &RedisFlags) -> Option<Self> {
        let url = flags.redis_url.clone()?;
        Some(Self { url, flags: flags.clone() })
    }

    /// Returns a builder for a store with these settings, to add other settings, such as credentials that change.
    pub fn builder(&self) -> RedisSessionStoreBuilder {
        let mut builder = RedisSessionStore::builder().url(&self.url);
        if let Some(prefix) = &self.flags.prefix {
            builder = builder.prefix(prefix);
        }
        if let Some(deadline) = self.flags.deadline {
            builder = builder.deadline(deadline);
        }
        if let Some(connections) = self.flags.pool_size {
            builder = builder.pool_size(connections);
        }
        if let Some(partitions) = self.flags.partitions {
            builder = builder.partitions(partitions);
        }
        if self.flags.hashed_keys == Some(true) {
            builder = builder.hashed_keys();
        }
        if self.flags.expiring == Some(true) {
            builder = builder.expiring();
        }
        if self.flags.announce_ends == Some(true) {
            builder = builder.announce_ends();
        }
        builder
    }

    /// Builds the store for a program that serves visitors.
    ///
    /// The store is [checked](RedisSessionStore::check), and warnings are logged. If Redis is unreachable, that is logged too, and
    /// the store works as soon as Redis is reachable. The [pool](RedisSessionStore::pool) of the store is there to share.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the settings cannot work together.
    /// - Returns an error of [`check`](RedisSessionStore::check) if the error is not [temporary](crate::ErrorKind::is_temporary).
    pub fn store(&self) -> Result<RedisSessionStore> {
        let store = self.builder().build()?;
        match store.check() {
            Ok(warnings) => warnings.iter().for_each(|warning| fence::log!(Warn, "{warning}")),
            Err(error) if error.kind().is_temporary() => fence::log!(Warn, "starting without Redis: {error:#}"),
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    /// Builds the store for a tool that works on the sessions of another program.
    ///
    /// Redis records the kind of a store under `PREFIX:store`: plain or expiring, the number of partitions, and whether keys are
    /// hashed. This method reads that key and writes nothing. If the key is missing, the flags must set all three. The method never
    /// guesses, because a store of another kind finds no session, or ends sessions of the program.
    ///
    /// The store [announces ends](RedisSessionStoreBuilder::announce_ends), in case the program listens.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the settings cannot work together, if a flag
    ///   contradicts the record, or if there is no record and a flag is missing.
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the program names its keys by a custom function.
    /// - Returns the error of reading the key, for example if Redis is unreachable.
    pub fn recorded_store(&self) -> Result<RedisSessionStore> {
        self.of_recorded_kind(self.unread_store()?)
    }

    /// Builds the store for a tool, and sends no command.
    pub(super) fn unread_store(&self) -> Result<RedisSessionStore> {
        self.builder().announce_ends().build()
    }

    /// Returns the store with the kind that Redis records.
    pub(super) fn of_recorded_kind(&self, store: RedisSessionStore) -> Result<RedisSessionStore> {
        let Some(kind) = store.recorded_kind()? else {
            self.require_kind(&store.marker_key())?;
            return Ok(store);
        };
        if let Some(why) = self.contradiction(&kind) {
            let why = format!("{why}, but {:?} records `{kind}`: set what it records", store.marker_key());
            return Err(Error::misconfigured(operation::READ_KIND, why));
        }
        store.of_kind(kind)
    }

    /// Describes the first setting that differs from this kind. The flag, its variable or a default of the program set it.
    fn contradiction(&self, kind: &RecordedKind) -> Option<String> {
        let Self { flags, .. } = self;
        let expiring = flags.expiring.filter(|given| *given != kind.is_expiring());
        let partitions = flags.partitions.filter(|given| *given != kind.partitions());
        let hashed_keys = flags.hashed_keys.filter(|given| *given != kind.has_hashed_keys());
        expiring
            .map(|given| format!("--expiring (or SESSION_EXPIRING) is {given}"))
            .or_else(|| partitions.map(|given| format!("--partitions (or SESSION_PARTITIONS) is {given}")))
            .or_else(|| hashed_keys.map(|given| format!("--hashed-keys (or SESSION_HASHED_KEYS) is {given}")))
    }

    /// Fails unless the flags set the whole kind of the store.
    fn require_kind(&self, key: &str) -> Result<()> {
        let Self { flags, .. } = self;
        let needed = [
            ("--expiring=BOOL", flags.expiring.is_some()),
            ("--partitions=COUNT", flags.partitions.is_some()),
            ("--hashed-keys=BOOL", flags.hashed_keys.is_some()),
        ];
        let missing: Vec<_> = needed.iter().filter(|(_, is_given)| !is_given).map(|(flag, _)| *flag).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "no program has recorded its kind of store under {key:?}: check the prefix; if Redis lost the key, restart a \
             program, or set {} as the program has it",
            missing.join(", ")
        );
        Err(Error::misconfigured(operation::READ_KIND, why))
    }
}

impl FromArgMatches for RedisArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, UsageError> {
        let flags = RedisFlags::from_arg_matches(matches)?;
        Self::of(&flags).ok_or_else(|| missing_url("this program needs a Redis"))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), UsageError> {
        self.flags.update_from_arg_matches(matches)?;
        if let Some(url) = &self.flags.redis_url {
            self.url.clone_from(url);
        }
        Ok(())
    }
}

impl Flatten for RedisArgs {
    fn augment_args(command: Command) -> Command {
        RedisFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        RedisFlags::augment_args_for_update(command)
    }
}

/// Shows everything but the URL, which may hold a password.
impl fmt::Debug for RedisArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = &self.flags;
        f.debug_struct("RedisArgs")
            .field("prefix", &flags.prefix)
            .field("hashed_keys", &flags.hashed_keys)
            .field("partitions", &flags.partitions)
            .field("expiring", &flags.expiring)
            .field("announce_ends", &flags.announce_ends)
            .field("pool_size", &flags.pool_size)
            .field("deadline", &flags.deadline)
            .finish_non_exhaustive()
    }
}
