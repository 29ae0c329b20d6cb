//! Arbitrary values of every shape that serde knows, sessions that hold them, and edits.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use arbitrary::Arbitrary;
use serde::{Deserialize, Serialize};
use threaded_sessions::codec::{Binding, Envelope};

/// One of every shape that serde knows.
#[derive(Arbitrary, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Node {
    Unit,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Wide(i128),
    Double(f64),
    Single(f32),
    Char(char),
    Text(String),
    Pair(u8, String),
    Maybe(Option<Box<Node>>),
    Boxed(Box<Node>),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    Numbered(BTreeMap<i32, Node>),
    Struct { inner: Box<Node>, unit: (), array: [u16; 3] },
}

pub type Fields = BTreeMap<String, Node>;

/// Few names, so that they meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Name {
    A,
    B,
    C,
    Empty,
    Odd,
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::Empty => "",
            Self::Odd => "\u{0}\"\\ ☃",
        }
        .to_owned()
    }
}

/// An envelope with fields in it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Draft {
    fields: Vec<(Name, Node)>,
    revision: u64,
    created: u64,
    remembered: Option<u64>,
    bound: Option<(String, String)>,
}

impl Draft {
    pub fn envelope(&self) -> Envelope<Fields> {
        let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut envelope: Envelope<Fields> =
            Envelope::new(self.fields.iter().map(|(name, node)| (name.text(), node.clone())).collect());
        envelope.revision = self.revision;
        envelope.created = time(self.created);
        envelope.remembered = self.remembered.map(time);
        envelope.bound = self.bound.as_ref().map(|(principal, label)| Binding::new(principal, label));
        envelope
    }
}

/// A change of a session.
#[derive(Arbitrary, Clone, Debug)]
pub enum Edit {
    Put(Name, Node),
    Remove(Name),
    Restart(u32),
    Remember(Option<u32>),
    Bind(Option<(String, String)>),
}

impl Edit {
    pub fn apply(&self, envelope: &mut Envelope<Fields>) {
        let time = |secs: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(secs.into());
        match self {
            Self::Put(name, node) => drop(envelope.data.insert(name.text(), node.clone())),
            Self::Remove(name) => drop(envelope.data.remove(&name.text())),
            Self::Restart(secs) => envelope.created = time(*secs),
            Self::Remember(secs) => envelope.remembered = secs.map(time),
            Self::Bind(bound) => {
                envelope.bound = bound.as_ref().map(|(principal, label)| Binding::new(principal, label));
            }
        }
    }
}
