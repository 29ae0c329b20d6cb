//! Typed sessions.
mod attributes;
mod clock;
mod codec;
pub mod contract;
mod cookie;
mod error;
mod id;
mod manager;
mod reaper;
#[cfg(feature = "rouille")]
pub mod rouille;
mod session;
pub mod store;

pub use ::cookie::SameSite;
pub use {r2d2, redis};

pub use self::attributes::Attributes;
pub use self::clock::Clock;
pub use self::codec::{Binding, Codec, Envelope, Format, Json, JsonFormat, SerdeCodec};
#[cfg(feature = "msgpack")]
pub use self::codec::{MessagePack, MessagePackFormat};
pub use self::error::{BoxError, Error, ErrorKind, Result};
pub use self::id::{Handle, InvalidHandle, InvalidId, SessionId};
pub use self::manager::{
    BoundSession, Committed, OnConflict, Outcome, SessionManager, SessionManagerBuilder, Unreadable,
};
pub use self::reaper::{Reaper, ReaperBuilder, ReaperStats};
pub use self::session::Session;
pub use self::store::{
    KeyMapper, MemorySessionStore, RedisConnection, RedisConnectionManager, RedisPool, RedisSessionStore,
    RedisSessionStoreBuilder, SessionStore,
};
