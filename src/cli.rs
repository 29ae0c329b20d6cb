//! The command line that programs which host sessions offer, and that of operators.
//!
//! [`args`] has the flags, and is public as `threaded_sessions::args`. It re-exports [`RedisArgs`](args::RedisArgs) from `redis`,
//! [`Host`](args::Host) from `host`, and the commands for operators from `operator`. `values` has the parsers of single values.
//! Invariant: nothing outside this module depends on clap or on signals.

pub mod args;
mod host;
#[cfg(feature = "cli")]
mod operator;
mod redis;
mod values;
