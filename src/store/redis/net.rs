//! How the store reaches Redis: addresses, connections, the circuit breaker, pools, Sentinel and cluster.
//!
//! The Redis store and its builder use it. From the bottom up: the connector opens a connection, the circuit breaker watches
//! it, a server pools it, a cluster has many servers, and the pool hides which topology it is.
//!
//! Invariant: it knows commands and replies, but no sessions. It imports nothing from the rest of `store/redis`, and from the
//! crate only errors, operation names, locks and `Health`.

pub(super) mod address;
mod breaker;
mod cluster;
pub(super) mod connection;
pub(super) mod connector;
pub(super) mod credentials;
pub(super) mod error;
pub(super) mod pool;
mod sentinel;
pub(super) mod server;
pub(super) mod slots;
#[cfg(feature = "tls-rustls")]
mod tls;
