//! How the store reaches Redis: addresses, connections, the circuit breaker, pools, Sentinel and cluster.
//!
//! The Redis store and its builder use it. From the bottom up: the dialer opens a stream, the wire carries commands and
//! replies over it, the connector makes a connection of both, the circuit breaker watches it, a server pools it, a cluster has
//! many servers, and the pool hides which topology it is. Outside the pool, `push` and `subscription` receive what servers announce.
//!
//! Invariant: it knows commands and replies, but no sessions. It imports nothing from the rest of `store/redis`. From the crate
//! it imports only errors and operation names, locks, fences and the check of the process, events for observers, and `Health`.

pub(super) mod address;
mod breaker;
pub(super) mod circuit;
mod cluster;
pub(super) mod commands;
pub(super) mod connection;
pub(super) mod connector;
pub(super) mod credentials;
mod dial;
pub(super) mod error;
mod handshake;
mod idle;
mod limit;
pub(super) mod pool;
pub(super) mod push;
mod sentinel;
pub(super) mod server;
pub(super) mod slots;
pub(super) mod span;
mod stream;
pub(super) mod subscription;
pub(super) mod threads;
pub(super) mod tls;
mod wire;
