//! The program `threaded-sessions`: see and end the sessions of an application, for operators.
//!
//! An operator installs it with `cargo install --path . --features cli`. Invariant: it has no logic; the library has the
//! commands, so that the subcommand of a host does the same.

use std::process::ExitCode;

use clap::Parser;
use threaded_sessions::args::{self, OperatorArgs, RedisArgs};

/// See and end sessions that an application keeps in Redis
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

fn main() -> ExitCode {
    let cli: Cli = args::parse();
    cli.operator.run_on(&cli.redis)
}
