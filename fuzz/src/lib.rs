//! Code that the targets share: sessions to encode, and ways to damage a payload.

mod codecs;
mod damage;
mod node;

pub use codecs::{borrowed, decode, encode, quotes_nothing, shown};
pub use damage::{Damage, Payload};
pub use node::{Draft, Edit, Fields, Node};
