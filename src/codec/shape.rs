//! The outline of a type, as its `Deserialize` shows it, and the outline of a value, whatever its format.
//!
//! Merging uses both: the type shows if its fields are independent, and the value shows which fields would be lost. No value leaves
//! this module.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Expected, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// How the fields of a type depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A struct or a map: each field stands for itself.
    Fields,
    /// An enum with the variant as its only key: it has one part.
    Variant,
    /// A type with flattened parts, an enum with a tag, or a custom type: a field can decide what another one means.
    Unknown,
}

impl Shape {
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let shape = Cell::new(Self::Unknown);
        let _ = T::deserialize(Probe(&shape));
        shape.get()
    }
}

/// A deserialiser without data. It notes what a type asks for and fails.
struct Probe<'s>(&'s Cell<Shape>);

impl Probe<'_> {
    fn note<R>(self, shape: Shape) -> Result<R, Probed> {
        self.0.set(shape);
        Err(Probed)
    }
}

/// Returns how a visitor describes its type: "struct Name" in derived code, "a map" in the standard library.
fn description<'de>(visitor: &impl Visitor<'de>) -> String {
    let expected: &dyn Expected = visitor;
    expected.to_string()
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Probed;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Probed> {
        self.note(Shape::Unknown)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Probed> {
        let is_struct = description(&visitor).starts_with("struct ");
        self.note(if is_struct { Shape::Fields } else { Shape::Unknown })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Probed> {
        let is_map = description(&visitor) == "a map";
        self.note(if is_map { Shape::Fields } else { Shape::Unknown })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Probed> {
        self.note(Shape::Variant)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier ignored_any
    }
}

/// The end of a probe.
#[derive(Debug)]
struct Probed;

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a probe has no data")
    }
}

impl std::error::Error for Probed {}

impl de::Error for Probed {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self
    }
}

/// A value of any format, in a form that can be compared and counted.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tree {
    /// A value without parts: its kind and its bytes.
    Leaf(&'static str, Vec<u8>),
    Seq(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl Tree {
    /// Sorts all parts, so that equal sets and equal maps are equal trees.
    pub(super) fn sort(&mut self) {
        match self {
            Self::Leaf(..) => {}
            Self::Seq(items) => {
                items.iter_mut().for_each(Self::sort);
                items.sort();
            }
            Self::Map(entries) => {
                entries.iter_mut().for_each(|(_, value)| value.sort());
                entries.sort();
            }
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Leaf(kind, _) => kind,
            Self::Seq(_) => "seq",
            Self::Map(_) => "map",
        }
    }

    /// Counts the entries of all maps inside.
    fn entries(&self) -> usize {
        match self {
            Self::Leaf(..) => 0,
            Self::Seq(items) => items.iter().map(Self::entries).sum(),
            Self::Map(entries) => entries.iter().map(|(_, value)| 1 + value.entries()).sum(),
        }
    }

    /// Returns `true` if an entry of a map inside is missing in `again`. Lists are compared by their number of entries, because a
    /// set has another order each time.
    pub(super) fn has_more_than(&self, again: &Self) -> bool {
        match (self, again) {
            (Self::Map(entries), Self::Map(others)) => entries.iter().any(|(key, value)| {
                let other = others.iter().find(|(other, _)| other == key);
                other.is_none_or(|(_, other)| value.has_more_than(other))
            }),
            _ => self.entries() > again.entries(),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

macro_rules! leaves {
    ($($visit:ident: $type:ty, $kind:literal, $value:ident => $bytes:expr;)*) => {$(
        fn $visit<E: de::Error>(self, $value: $type) -> Result<Tree, E> {
            Ok(Tree::Leaf($kind, $bytes))
        }
    )*};
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    leaves! {
        visit_bool: bool, "bool", value => vec![u8::from(value)];
        visit_i64: i64, "number", value => i128::from(value).to_be_bytes().to_vec();
        visit_u64: u64, "number", value => i128::from(value).to_be_bytes().to_vec();
        visit_f64: f64, "number", value => value.to_bits().to_be_bytes().to_vec();
        visit_str: &str, "text", value => value.as_bytes().to_vec();
        visit_bytes: &[u8], "bytes", value => value.to_vec();
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf("nothing", Vec::new()))
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        Tree::deserialize(value)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        Tree::deserialize(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut seq = Vec::new();
        while let Some(item) = items.next_element()? {
            seq.push(item);
        }
        Ok(Tree::Seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}
