//! What the targets have in common: sessions to encode, and ways to spoil a payload.

mod codecs;
mod damage;
mod node;

pub use codecs::{borrowed, decode, encode, quotes_nothing, shown};
pub use damage::{Damage, Payload};
pub use node::{Draft, Edit, Fields, Node};
