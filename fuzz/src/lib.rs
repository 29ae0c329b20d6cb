//! Code that the targets share: sessions to encode, ways to damage a payload, and secrets that no text shows.

mod codecs;
mod damage;
mod node;
mod secret;

pub use codecs::{borrowed, decode, encode, quotes_nothing, shown};
pub use damage::{Damage, Payload};
pub use node::{Draft, Edit, Fields, Node};
pub use secret::{SECRETS, Secret, full_text, has_secret};
