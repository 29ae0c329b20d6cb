//! The command line that programs which host sessions offer.
//!
//! [`args`] has the flags, and is public as `threaded_sessions::args`. It re-exports [`RedisArgs`](args::RedisArgs) from `redis`
//! and [`Host`](args::Host) from `host`. `values` has the parsers of single values.
//! Invariant: nothing outside this module depends on clap or on signals.

pub mod args;
mod host;
mod redis;
mod values;
