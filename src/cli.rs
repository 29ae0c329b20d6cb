//! The command line that programs which host sessions offer.
//!
//! [`args`] has the flags, and is public as `threaded_sessions::args`. `host` has [`Host`](args::Host), which `args` re-exports.
//! Invariant: nothing outside this module depends on clap or on signals.

pub mod args;
mod host;
