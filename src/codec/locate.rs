//! Finding the field that makes a payload unreadable, after decoding has failed.
//!
//! The formats call [`locate`] for their error texts. It decodes the payload once more, with every deserialiser and visitor
//! wrapped, and follows the path. The invariant: a description holds only names that are in the program, never a value or a key
//! of a map, which come from the payload.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

/// The names of the fields or variants of a type.
type Names = &'static [&'static str];

/// Describes where and why a payload is not a `T`. Returns `None` if the payload as a whole is something else.
pub(crate) fn locate<'de, T: Deserialize<'de>>(payload: impl Deserializer<'de>) -> Option<String> {
    let trail = Trail::default();
    let Fault(problem) = T::deserialize(Wrapped::new(payload, &trail)).err()?;
    trail.describe(problem)
}

/// The way from the payload to the part that is decoded.
#[derive(Default)]
struct Trail {
    path: RefCell<Vec<Part>>,
    /// The problem, while an error passes through code that has another type of error.
    problem: Cell<Option<Problem>>,
}

#[derive(Clone, Copy)]
enum Part {
    /// A field or a variant, by its name in the program.
    Named(&'static str),
    Item(usize),
    /// An entry of a map. Its key may be secret.
    Entry,
}

#[derive(Clone, Copy)]
enum Problem {
    Missing(&'static str),
    Twice(&'static str),
    UnknownField,
    UnknownVariant,
    Type,
    Value,
}

impl Trail {
    fn depth(&self) -> usize {
        self.path.borrow().len()
    }

    /// Goes back to an earlier depth. A failure leaves the trail as it is.
    fn back_to(&self, depth: usize) {
        self.path.borrow_mut().truncate(depth);
    }

    fn enter(&self, part: Part) {
        self.path.borrow_mut().push(part);
    }

    /// Keeps the problem while the error has another type.
    fn carry<E: serde::de::Error>(&self, Fault(problem): Fault) -> E {
        self.problem.set(Some(problem));
        E::custom("located")
    }

    /// Takes up the problem again. An error without one is of the format, which found another type than it was asked for.
    fn resume<E>(&self, _: E) -> Fault {
        Fault(self.problem.take().unwrap_or(Problem::Type))
    }

    fn describe(&self, problem: Problem) -> Option<String> {
        if let Problem::Twice(_) = problem {
            // The trail has entered the second field already.
            self.path.borrow_mut().pop();
        }
        let at = self.text();
        let field = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        match problem {
            Problem::Missing(name) => Some(format!("the field `{}` is missing", field(name))),
            Problem::Twice(name) => Some(format!("the field `{}` is there twice", field(name))),
            _ if at.is_empty() => None,
            Problem::UnknownField => Some(format!("`{at}` has a field that its type does not have")),
            Problem::UnknownVariant => Some(format!("`{at}` has a variant that its type does not have")),
            Problem::Type => Some(format!("the field `{at}` has another type")),
            Problem::Value => Some(format!("the field `{at}` has a value that its type rejects")),
        }
    }

    fn text(&self) -> String {
        self.path.borrow().iter().fold(String::new(), |at, part| {
            let dot = if at.is_empty() { "" } else { "." };
            match part {
                Part::Named(name) => format!("{at}{dot}{name}"),
                Part::Item(position) => format!("{at}[{position}]"),
                Part::Entry => format!("{at}{dot}*"),
            }
        })
    }
}

/// The error of all wrapped deserialisers.
#[derive(Debug)]
struct Fault(Problem);

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Problem")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload cannot be decoded")
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self(Problem::Value)
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self(Problem::Type)
    }

    fn unknown_variant(_: &str, _: Names) -> Self {
        Self(Problem::UnknownVariant)
    }

    fn unknown_field(_: &str, _: Names) -> Self {
        Self(Problem::UnknownField)
    }

    fn missing_field(name: &'static str) -> Self {
        Self(Problem::Missing(name))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self(Problem::Twice(name))
    }
}

/// A deserialiser, visitor, seed or access, wrapped.
struct Wrapped<'t, W> {
    inner: W,
    trail: &'t Trail,
    /// The fields of the struct that is visited.
    fields: Names,
    /// The name to look for, if the key of a field or variant is read.
    key: Option<&'t Key>,
}

/// The key of a field or variant, once it is read.
struct Key {
    names: Names,
    found: Cell<Option<&'static str>>,
}

impl Key {
    fn of(names: Names) -> Self {
        Self { names, found: Cell::new(None) }
    }

    fn find(&self, name: &[u8]) {
        self.found.set(self.names.iter().copied().find(|known| known.as_bytes() == name));
    }

    fn part(&self) -> Part {
        self.found.get().map_or(Part::Entry, Part::Named)
    }
}

impl<'t, W> Wrapped<'t, W> {
    fn new(inner: W, trail: &'t Trail) -> Self {
        Self { inner, trail, fields: &[], key: None }
    }

    fn with_fields(self, fields: Names) -> Self {
        Self { fields, ..self }
    }

    fn with_key(self, key: &'t Key) -> Self {
        Self { key: Some(key), ..self }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*) $(with $fields:ident)?;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Fault> {
            let visitor = Wrapped { inner: visitor, trail: self.trail, fields: &[], key: self.key };
            $(let visitor = visitor.with_fields($fields);)?
            self.inner.$method($($argument,)* visitor).map_err(|error| self.trail.resume(error))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Wrapped<'_, D> {
    type Error = Fault;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: Names) with fields;
        deserialize_enum(name: &'static str, variants: Names) with variants;
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! pass_on {
    ($($visit:ident: $type:ty,)*) => {$(
        fn $visit<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$visit(value).map_err(|fault| self.trail.carry(fault))
        }
    )*};
}

macro_rules! note_and_pass_on {
    ($($visit:ident: $type:ty,)*) => {$(
        fn $visit<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            if let Some(key) = self.key {
                key.find(value.as_ref());
            }
            self.inner.$visit(value).map_err(|fault| self.trail.carry(fault))
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Wrapped<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    pass_on! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
    }

    note_and_pass_on! {
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none().map_err(|fault| self.trail.carry(fault))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit().map_err(|fault| self.trail.carry(fault))
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Wrapped::new(value, self.trail)).map_err(|fault| self.trail.carry(fault))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Wrapped::new(value, self.trail)).map_err(|fault| self.trail.carry(fault))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let parts = Parts { inner: items, trail: self.trail, fields: self.fields, depth: self.trail.depth(), read: 0 };
        self.inner.visit_seq(parts).map_err(|fault| self.trail.carry(fault))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let parts =
            Parts { inner: entries, trail: self.trail, fields: self.fields, depth: self.trail.depth(), read: 0 };
        self.inner.visit_map(parts).map_err(|fault| self.trail.carry(fault))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        let data = Wrapped::new(data, self.trail).with_fields(self.fields);
        self.inner.visit_enum(data).map_err(|fault| self.trail.carry(fault))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Wrapped<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = Wrapped { inner: deserializer, trail: self.trail, fields: &[], key: self.key };
        self.inner.deserialize(deserializer).map_err(|fault| self.trail.carry(fault))
    }
}

/// The items of a list or the entries of a map, on the way through them.
struct Parts<'t, A> {
    inner: A,
    trail: &'t Trail,
    fields: Names,
    /// The length of the trail outside.
    depth: usize,
    read: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Parts<'_, A> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.trail.back_to(self.depth);
        // A struct can be a list of its fields.
        self.trail.enter(self.fields.get(self.read).map_or(Part::Item(self.read), |name| Part::Named(name)));
        self.read += 1;
        let item = self.inner.next_element_seed(Wrapped::new(seed, self.trail));
        let item = item.map_err(|error| self.trail.resume(error))?;
        self.trail.back_to(self.depth);
        Ok(item)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Parts<'_, A> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.trail.back_to(self.depth);
        let key = Key::of(self.fields);
        let read = self.inner.next_key_seed(Wrapped::new(seed, self.trail).with_key(&key));
        let read = read.map_err(|error| self.trail.resume(error))?;
        if read.is_some() {
            self.trail.enter(key.part());
        }
        Ok(read)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let value = self.inner.next_value_seed(Wrapped::new(seed, self.trail));
        let value = value.map_err(|error| self.trail.resume(error))?;
        self.trail.back_to(self.depth);
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 't, A: EnumAccess<'de>> EnumAccess<'de> for Wrapped<'t, A> {
    type Error = Fault;
    type Variant = Wrapped<'t, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), Fault> {
        let key = Key::of(self.fields);
        let read = self.inner.variant_seed(Wrapped::new(seed, self.trail).with_key(&key));
        let (variant, data) = read.map_err(|error| self.trail.resume(error))?;
        self.trail.enter(key.part());
        Ok((variant, Wrapped::new(data, self.trail)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Wrapped<'_, A> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.inner.unit_variant().map_err(|error| self.trail.resume(error))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        let value = self.inner.newtype_variant_seed(Wrapped::new(seed, self.trail));
        value.map_err(|error| self.trail.resume(error))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        let value = self.inner.tuple_variant(length, Wrapped::new(visitor, self.trail));
        value.map_err(|error| self.trail.resume(error))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: Names, visitor: V) -> Result<V::Value, Fault> {
        let value = self.inner.struct_variant(fields, Wrapped::new(visitor, self.trail).with_fields(fields));
        value.map_err(|error| self.trail.resume(error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::codec::{Format, JsonFormat};

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Shop {
        name: String,
        #[serde(default)]
        cart: BTreeMap<String, Item>,
        #[serde(default)]
        list: Vec<Item>,
        #[serde(default)]
        order: Option<Order>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Item {
        price: u8,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Order {
        Paid { by: Item },
        Open(Item),
    }

    fn described<T: DeserializeOwned>(payload: &str) -> Option<String> {
        locate::<T>(&mut serde_json::Deserializer::from_str(payload))
    }

    #[test]
    fn description_names_the_path_and_no_value() {
        for (payload, description) in [
            (r#"{"name":"secret"}"#, None),
            (r#""secret""#, None),
            (r#"{"secret":1}"#, Some("the field `name` is missing")),
            (r#"{"name":"a","name":"secret"}"#, Some("the field `name` is there twice")),
            (r#"{"name":7}"#, Some("the field `name` has another type")),
            (r#"{"name":"a","cart":["secret"]}"#, Some("the field `cart` has another type")),
            (r#"{"name":"a","cart":{"secret":{}}}"#, Some("the field `cart.*.price` is missing")),
            (r#"{"name":"a","cart":{"secret":{"price":"secret"}}}"#, Some("the field `cart.*.price` has another type")),
            (
                r#"{"name":"a","list":[{"price":1},{"price":-7}]}"#,
                Some("the field `list[1].price` has a value that its type rejects"),
            ),
            (r#"{"name":"a","order":"secret"}"#, Some("`order` has a variant that its type does not have")),
            (r#"{"name":"a","order":{"Paid":{"by":{}}}}"#, Some("the field `order.Paid.by.price` is missing")),
            (r#"{"name":"a","order":{"Open":{"price":[]}}}"#, Some("the field `order.Open.price` has another type")),
        ] {
            assert_eq!(described::<Shop>(payload).as_deref(), description, "{payload}");
        }
    }

    #[test]
    fn flattened_and_tagged_types_name_the_serde_field() {
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Outer {
            visit: Visit,
        }
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Visit {
            #[serde(flatten)]
            item: Item,
        }
        #[derive(Deserialize)]
        #[serde(tag = "kind")]
        #[allow(dead_code)]
        enum Tagged {
            Known { id: u8 },
        }
        let missing = Some("the field `visit.price` is missing".to_owned());
        assert_eq!(described::<Outer>(r#"{"visit":{"secret":1}}"#), missing);
        let missing = Some("the field `[0].id` is missing".to_owned());
        assert_eq!(described::<Vec<Tagged>>(r#"[{"kind":"Known"}]"#), missing);
    }

    #[test]
    fn error_of_a_format_names_the_field() {
        #[derive(Serialize)]
        struct Other {
            name: &'static str,
            list: [u8; 1],
        }
        fn check<F: Format>() {
            let payload = F::to_vec(&Other { name: "secret", list: [7] }).unwrap();
            let error = F::from_slice::<Shop>(&payload).map(drop).unwrap_err().to_string();
            assert!(error.ends_with(": the field `list[0]` has another type"), "{error}");
        }
        check::<JsonFormat>();
        #[cfg(feature = "msgpack")]
        check::<crate::codec::MessagePackFormat>();
    }
}
