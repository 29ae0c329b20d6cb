//! How the store reaches Redis: addresses, connections, the circuit breaker, pools, Sentinel and cluster.
//!
//! The Redis store and its builder use it. From the bottom up: the dialer opens a stream, the wire carries commands and
//! replies over it, the connector makes a connection of both, the circuit breaker watches it, a server pools it, a cluster has
//! many servers, and the pool hides which topology it is.
//!
//! Invariant: it knows commands and replies, but no sessions. It imports nothing from the rest of `store/redis`, and from the
//! crate only errors, operation names, locks and `Health`.

pub(super) mod address;
mod breaker;
pub(super) mod circuit;
mod cluster;
mod commands;
pub(super) mod connection;
pub(super) mod connector;
pub(super) mod credentials;
mod dial;
pub(super) mod error;
mod handshake;
mod idle;
mod limit;
pub(super) mod pool;
mod sentinel;
pub(super) mod server;
pub(super) mod slots;
mod stream;
pub(super) mod subscription;
pub(super) mod threads;
pub(super) mod tls;
#[cfg(feature = "near-cache")]
pub(super) mod tracking;
mod wire;
