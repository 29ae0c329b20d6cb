//! The commands for operators: see and end sessions, correct the index, and watch the store.
//!
//! The program `threaded-sessions` and the subcommand of a host run them by [`OperatorArgs`]. Invariant: data goes to stdout,
//! all else to stderr, and neither shows a session id.

mod confirm;
mod end;
mod inspect;
mod interrupt;
mod maintain;
mod output;
mod payload;
mod progress;
mod resolve;
mod rows;
mod stop;
mod table;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as Flatten, Subcommand};

use self::interrupt::Interrupt;
use self::output::Output;
use self::stop::{Done, Stop};
use super::args::Args;
use super::redis::{RedisArgs, missing_url};
use super::values::{handle_prefix, interval};
use crate::{AllSessions, Error, HandlePrefix, RedisSessionStore, SessionStore};

/// The commands for operators, to see and end sessions.
///
/// Make them a subcommand of your program, and [`run`](Self::run) it. The program `threaded-sessions` has the commands at its top
/// level. The operator's guide [shows](crate::operating#during-an-incident) them.
///
/// The commands read from Redis which kind of store the program uses. They never guess: if the kind is not recorded, they ask for
/// the flags. They know nothing of steps and custom codecs, so they show less of encrypted sessions.
///
/// # Examples
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use clap::{Parser, Subcommand};
/// use threaded_sessions::args::{Args, OperatorArgs};
///
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     sessions: Args,
///     #[command(subcommand)]
///     command: Option<Command>,
/// }
///
/// #[derive(Subcommand)]
/// enum Command {
///     /// See and end sessions
///     Sessions(OperatorArgs),
/// }
///
/// fn main() -> ExitCode {
///     let cli = Cli::parse();
///     if let Some(Command::Sessions(operator)) = &cli.command {
///         return operator.run(&cli.sessions);
///     }
///     ExitCode::SUCCESS // serve visitors
/// }
/// ```
#[derive(Clone, Debug, Flatten)]
#[group(skip)]
#[command(about = None, long_about = None)]
pub struct OperatorArgs {
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Check that the store can work, and print warnings about settings of Redis
    ///
    /// Records the kind of store under PREFIX:store if no program has. Creates, renews and deletes a session that lives for one
    /// second; listeners get its ends.
    Check {
        /// Exit with 1 if there is a warning
        #[arg(long)]
        strict: bool,
    },
    /// Count the live sessions
    Count {
        /// Count each partition
        #[arg(long)]
        by_partition: bool,
    },
    /// List all sessions, or those of a user
    List {
        /// The user (principal) whose sessions to list
        #[arg(id = "listed_user", value_name = "USER")]
        user: Option<String>,
        /// Another way to name the user, as `show` and `end` have it
        #[arg(long = "user", value_name = "USER", conflicts_with = "listed_user")]
        named_user: Option<String>,
        /// Print the values of the sessions too, which may be confidential; needs --json
        // `requires` would not see a global flag before the subcommand.
        #[arg(long)]
        data: bool,
    },
    /// Show one session
    Show {
        /// The handle, or its first 8 or more digits if no other session begins so
        #[arg(value_name = "HANDLE", value_parser = handle_prefix)]
        session: HandlePrefix,
        /// Look only among the sessions of this user, which is fast
        #[arg(long)]
        user: Option<String>,
        /// Show the value of the session too, which may be confidential
        #[arg(long)]
        data: bool,
    },
    /// End sessions: by handle, all of a user, or all
    End(EndArgs),
    /// Compare the index with the sessions, and correct it
    Verify {
        /// Count the findings and correct nothing; exit with 1 if there are any
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete the sessions that have expired
    ///
    /// The reaper of the application does so too. Its callback for expired sessions does not run for sessions that this command
    /// deletes.
    Reap,
    /// Watch the store: sessions, round trip, memory and clients of Redis, backlog, and the sessions that expire last
    ///
    /// Quit with `q`. If stdout is no terminal, it prints one line in each interval.
    Watch {
        /// The time between two samples, up to 1h
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
        interval: Duration,
    },
}

impl Command {
    /// Returns `true` if the command changes no session of the application, so a reader of the output may leave early.
    fn only_reads(&self) -> bool {
        !matches!(self, Self::End(_) | Self::Verify { dry_run: false } | Self::Reap)
    }
}

/// Which sessions to end.
#[derive(Clone, Debug, Flatten)]
#[group(skip)]
struct EndArgs {
    /// The handles, or the first 8 or more digits of each (12 with --yes)
    #[arg(value_name = "HANDLE", value_parser = handle_prefix, required_unless_present_any = ["user", "everybody"])]
    sessions: Vec<HandlePrefix>,
    /// End all sessions of this user; with handles, only those of them that are this user's
    #[arg(long)]
    user: Option<String>,
    /// End the sessions of all visitors
    #[arg(long, conflicts_with_all = ["sessions", "user"])]
    everybody: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// All that a command works with.
struct Context {
    store: RedisSessionStore,
    output: Output,
    interrupt: Interrupt,
}

impl Context {
    fn all(&self) -> AllSessions<'_> {
        AllSessions::new(&self.store)
    }

    /// What an operator should know if there are no sessions.
    fn note_if_empty(&self) -> &'static str {
        match self.store.index() {
            Some(_) => {
                "note: there are no live sessions in the index; if Redis lost keys, `verify` puts the missing sessions back"
            }
            None => "note: there are no live sessions",
        }
    }

    /// Returns the index, for commands that a plain store cannot run.
    fn index(&self, operation: &'static str) -> Result<&dyn crate::store::SessionIndex, Stop> {
        let why = "a plain store has no index and knows no owners: only `check`, `count`, `list`, `show HANDLE`, `end HANDLE`, \
                   `end --everybody` and `watch` work on it";
        self.store.index().ok_or_else(|| Error::unsupported(operation, why).into())
    }
}

impl OperatorArgs {
    /// Runs the command on the store that these flags name, and returns the exit code of the program.
    ///
    /// The flags must have a Redis URL, because a store in memory belongs to another process. Errors are printed on stderr. The
    /// exit code is 0 for success, 2 for a usage error, 69 if the store cannot do this at all, 75 if the failure is
    /// [temporary](crate::ErrorKind::is_temporary), 77 if Redis denies it, 78 for a misconfiguration, 130 after Ctrl-C, and 1
    /// for all else.
    pub fn run(&self, sessions: &Args) -> ExitCode {
        match sessions.redis() {
            Some(redis) => self.run_on(redis),
            None => Stop::Usage(missing_url("this command needs a Redis").to_string()).report(),
        }
    }

    /// Runs the command. A command-line tool that flattens [`RedisArgs`] calls it. Returns the exit code as [`run`](Self::run)
    /// does.
    pub fn run_on(&self, redis: &RedisArgs) -> ExitCode {
        match self.execute(redis) {
            Ok(()) => ExitCode::SUCCESS,
            Err(stop) => stop.report(),
        }
    }

    fn execute(&self, redis: &RedisArgs) -> Done {
        match &self.command {
            Command::End(end) => end.require_long_handles()?,
            Command::List { data: true, .. } if !self.json => {
                return Err(Stop::Usage("--data needs --json, because a table shows no values".to_owned()));
            }
            _ => {}
        }
        let interrupt = Interrupt::listen()?;
        let store = redis.unread_store()?;
        let place = store.place();
        let done = self.execute_on(redis, store, interrupt).map_err(|stop| stop.at(place));
        if self.command.only_reads() { done } else { done.map_err(Stop::or_closed_pipe) }
    }

    fn execute_on(&self, redis: &RedisArgs, store: RedisSessionStore, interrupt: Interrupt) -> Done {
        let store = match &self.command {
            Command::Watch { interval } => watch::wait_for_kind(redis, &store, &interrupt, *interval)?,
            _ => redis.of_recorded_kind(store)?,
        };
        let mut context = Context { store, output: Output::new(self.json), interrupt };
        let context = &mut context;
        match &self.command {
            Command::Check { strict } => inspect::check(context, *strict),
            Command::Count { by_partition } => inspect::count(context, *by_partition),
            Command::List { user, named_user, data } => match user.as_ref().or(named_user.as_ref()) {
                Some(user) => inspect::list_user(context, user, *data),
                None => inspect::list_all(context, *data),
            },
            Command::Show { session, user, data } => inspect::show(context, session, user.as_deref(), *data),
            Command::End(end) => end.run(context),
            Command::Verify { dry_run } => maintain::verify(context, *dry_run),
            Command::Reap => maintain::reap(context),
            Command::Watch { interval } => watch::run(context, *interval),
        }?;
        context.output.flush()
    }
}
