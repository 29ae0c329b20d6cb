//! A dry run of serialisation, which rejects values that a format can write but not read.
//!
//! The formats run it before they encode, and [`Attributes`](crate::Attributes) before it takes a value. A value that passes can
//! be read again. The error never quotes the value.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use crate::Reason;

/// The deepest nesting of a payload, with its envelope. serde_json reads no deeper, and the MessagePack format has the same limit.
pub(super) const MAX_DEPTH: usize = 127;

/// Walks through a value as a serde format does when it writes. Rejects a value that the format could write but not read,
/// because the session of such a value could not be opened again.
pub(crate) struct Check {
    human_readable: bool,
    finite: bool,
    depth: usize,
}

impl Check {
    /// Rejects infinite floats and NaN as well, because JSON writes them as `null`.
    pub(crate) fn json(value: &impl Serialize) -> Result<(), Reason> {
        Self { human_readable: true, finite: true, depth: 0 }.run(value)
    }

    /// Checks a value that becomes an attribute: the envelope and the map of the attributes nest around it.
    pub(crate) fn attribute(value: &impl Serialize) -> Result<(), Reason> {
        Self { human_readable: true, finite: true, depth: 2 }.run(value)
    }

    #[cfg(feature = "msgpack")]
    pub(crate) fn message_pack(value: &impl Serialize) -> Result<(), Reason> {
        Self { human_readable: false, finite: false, depth: 0 }.run(value)
    }

    fn run(mut self, value: &impl Serialize) -> Result<(), Reason> {
        value.serialize(&mut self).map_err(|Refused(why)| Reason::new(why))
    }

    fn float(&self, finite: bool) -> Result<(), Refused> {
        if self.finite && !finite { Err(Refused("a float is not finite")) } else { Ok(()) }
    }

    fn enter(&mut self, levels: usize) -> Result<&mut Self, Refused> {
        self.depth += levels;
        if self.depth > MAX_DEPTH { Err(Refused("the value nests too deep")) } else { Ok(self) }
    }

    fn leave(&mut self, levels: usize) -> Result<(), Refused> {
        self.depth -= levels;
        Ok(())
    }
}

/// The reason why a value cannot be stored. It does not quote the value.
#[derive(Debug)]
pub(crate) struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self("the value refuses to be written")
    }
}

macro_rules! pass {
    ($($scalar:ident: $type:ty,)*) => {$(
        #[inline]
        fn $scalar(self, _: $type) -> Result<(), Refused> {
            Ok(())
        }
    )*};
}

impl Serializer for &mut Check {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    pass! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_f32(self, float: f32) -> Result<(), Refused> {
        self.float(float.is_finite())
    }

    fn serialize_f64(self, float: f64) -> Result<(), Refused> {
        self.float(float.is_finite())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        let check = self.enter(1)?;
        value.serialize(&mut *check)?;
        check.leave(1)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Refused> {
        self.enter(1)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        self.enter(1)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.enter(1)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.enter(2)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Refused> {
        self.enter(1)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.enter(1)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.enter(2)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Refused> {
        Ok(())
    }

    fn is_human_readable(&self) -> bool {
        self.human_readable
    }
}

macro_rules! compound {
    ($($trait:ident: $levels:literal, $($part:ident($($name:ty)?)),+;)*) => {$(
        impl ser::$trait for &mut Check {
            type Ok = ();
            type Error = Refused;

            $(#[inline]
            fn $part<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Refused> {
                value.serialize(&mut **self)
            })+

            fn end(self) -> Result<(), Refused> {
                self.leave($levels)
            }
        }
    )*};
}

compound! {
    SerializeSeq: 1, serialize_element();
    SerializeTuple: 1, serialize_element();
    SerializeTupleStruct: 1, serialize_field();
    SerializeTupleVariant: 2, serialize_field();
    SerializeMap: 1, serialize_key(), serialize_value();
    SerializeStruct: 1, serialize_field(&'static str);
    SerializeStructVariant: 2, serialize_field(&'static str);
}
