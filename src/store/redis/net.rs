//! How the store reaches Redis: addresses, connections, the circuit breaker, pools, Sentinel and cluster.
//!
//! The Redis store and its builder use it. It imports nothing from the rest of `store/redis`: it knows commands and replies, but
//! no sessions.

pub(super) mod address;
mod breaker;
pub(super) mod cluster;
pub(super) mod connection;
pub(super) mod connector;
pub(super) mod credentials;
pub(super) mod error;
pub(super) mod pool;
mod sentinel;
mod server;
#[cfg(feature = "tls-rustls")]
mod tls;
