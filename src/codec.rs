//! The codecs that convert a session to a payload and back.
//!
//! A payload is an [`Envelope`] around your value, as a [`Codec`] encodes it. [`Json`] is the default; `MessagePack` needs the
//! feature `msgpack`. Both are a [`SerdeCodec`]. It can read payloads from before a deploy changed the value
//! ([`migrate`](SerdeCodec::migrate)), and merges the changes of two requests.
//!
//! | to use | implement |
//! |---|---|
//! | another serde format | [`Format`], and use `SerdeCodec<YourFormat, T>` |
//! | compression, or a `T` that is not a serde type | [`Codec`] |
//!
//! # Values that serde cannot read back
//!
//! serde can write some values that it cannot read, because `flatten`, `tag` and `untagged` read a value without knowing its type.
//! The manager decodes every payload before it stores it, and rejects such a value with
//! [`ErrorKind::Payload`](crate::ErrorKind::Payload), unless [`read_back`](crate::SessionManagerBuilder::read_back) is off:
//!
//! | shape | JSON | MessagePack |
//! |---|---|---|
//! | `flatten`, `tag` or `untagged` around a map whose keys are numbers | rejected | stored |
//! | `flatten`, `tag` or `untagged` around `u128` or `i128`, however small the number | rejected | rejected |
//! | `flatten`, `tag` or `untagged` around a type with another form in binary formats, such as `IpAddr` | stored | rejected |
//! | a name twice: a key of a flattened map that is also a field, or a field that is named as the `tag` | rejected | rejected |
//! | `skip_serializing` or `skip_serializing_if` without `default` | rejected | rejected |
//!
//! Enums without these attributes, or with `tag` and `content`, have none of these problems.
//!
//! Reading back proves that a session can be opened. It does not prove that the value is equal. These values are stored and come
//! back different:
//!
//! - a field that `skip_serializing_if` leaves out, with another `default`;
//! - a variant of an `untagged` enum, if an earlier variant can read the value;
//! - `Some(None)`, which comes back as `None`.
//!
//! # Texts of errors
//!
//! Codecs see the values of sessions, so the text of an error could quote one, as serde's errors do. The crate shows the text of an
//! error that a codec, a format or a migration returns nowhere, unless it is a [`Reason`](crate::Reason), and the panic message of
//! such code neither. (The panic hook of your program does print panic messages.) Errors of the codecs of this crate name the
//! field that is missing or has another type, and never its value.

mod check;
mod envelope;
mod fenced;
mod head;
mod json;
mod locate;
mod merge;
#[cfg(feature = "msgpack")]
mod msgpack;
mod shape;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::check::Check;
pub use self::envelope::{Binding, Envelope};
pub(crate) use self::envelope::{Head, revision_prefix};
pub(crate) use self::fenced::{Fenced, is_panic};
#[cfg(feature = "encryption")]
pub(crate) use self::head::ENCRYPTED;
pub(crate) use self::head::read_head;
pub(crate) use self::json::NO_FORM;
pub use self::json::{Json, JsonFormat};
pub(crate) use self::locate::locate;
use self::merge::Merger;
#[cfg(feature = "msgpack")]
pub use self::msgpack::{MessagePack, MessagePackFormat};
use crate::BoxError;
use crate::reason::shown;

/// A converter from a session to a payload and back (ring-redis-session `:read-handler`, `:write-handler`).
///
/// The [module](crate::codec) lists the codecs of this crate. [`Json`] and `MessagePack` accept values that nest up to about
/// 120 deep.
///
/// # Examples
///
/// ```
/// use serde::{Serialize, de::DeserializeOwned};
/// use threaded_sessions::codec::Envelope;
/// use threaded_sessions::{BoxError, Codec, Json, MemorySessionStore, SessionManager};
///
/// /// Inverts every bit of a JSON payload, in the place where another codec would compress the payload.
/// struct Inverted<T>(Json<T>);
///
/// impl<T: Serialize + DeserializeOwned + 'static> Codec<T> for Inverted<T> {
///     fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError> {
///         Ok(self.0.encode(envelope)?.iter().map(|byte| !byte).collect())
///     }
///
///     fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError> {
///         self.0.decode(&payload.iter().map(|byte| !byte).collect::<Vec<_>>())
///     }
/// }
///
/// let store = MemorySessionStore::new();
/// let sessions = SessionManager::<u32>::builder(store).codec(Inverted(Json::new())).build()?;
/// # let _ = sessions;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// Encodes a session.
    ///
    /// Encode different envelopes differently, even if only their revisions differ. Encode the same envelope to the same bytes
    /// each time, because a session counts as changed when its encoding has changed.
    ///
    /// # Errors
    ///
    /// Returns an error if the value cannot be encoded. The manager hides its text, unless it is a [`Reason`](crate::Reason).
    fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError>;

    /// Decodes a payload of [`encode`](Self::encode), which an earlier version of the program may have written long ago.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload cannot be decoded. The manager hides its text, unless it is a [`Reason`](crate::Reason).
    fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError>;

    /// Applies the changes from `base` to `mine` to `theirs`, and encodes the result with a new revision.
    ///
    /// All three are payloads. `None` is a conflict: this codec, or this value, has no parts that can be merged. The default
    /// returns `None`.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        let _ = (base, mine, theirs);
        None
    }

    /// Returns `true` if two payloads with equal envelopes hold equal values. Defaults to comparing the payloads.
    ///
    /// A map in another order is equal.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }

    /// Returns `true` if a payload, decoded and encoded again, would lose fields of another version of the program. Defaults to
    /// `false`.
    ///
    /// The manager does not merge with such a session.
    fn loses(&self, payload: &[u8]) -> bool {
        let _ = payload;
        false
    }
}

/// The initial capacity of an encoding. An ordinary payload fits, so the buffer does not grow.
const PAYLOAD_CAPACITY_BYTES: usize = 1024;

/// A serde format that [`SerdeCodec`] makes a [`Codec`] of.
pub trait Format: Send + Sync + 'static {
    /// Any value of the format, in an unchanged form, by which a merge copies an untouched field.
    ///
    /// If two encodings hold equal data, their values must compare equal.
    type Value: Serialize + DeserializeOwned + PartialEq;

    /// The name of the format, for `Debug`.
    const NAME: &'static str;

    /// `true` if two encodings of equal data have the same bytes, in another order at most.
    ///
    /// Payloads with other bytes are then known to differ, without being decoded. Defaults to `false`.
    const ONLY_ORDER_VARIES: bool = false;

    /// Serializes data.
    ///
    /// # Errors
    ///
    /// Returns an error if the data cannot be written. [`SerdeCodec`] hides its text, unless it is a [`Reason`](crate::Reason).
    fn to_vec<D: Serialize>(data: &D) -> Result<Vec<u8>, BoxError>;

    /// Deserializes data.
    ///
    /// # Errors
    ///
    /// Returns an error if the data cannot be read. [`SerdeCodec`] hides its text, unless it is a [`Reason`](crate::Reason).
    fn from_slice<D: DeserializeOwned>(bytes: &[u8]) -> Result<D, BoxError>;
}

/// A [`Codec`] of a serde [`Format`], such as [`Json`].
pub struct SerdeCodec<F, T> {
    migrations: Vec<Box<Migration<T>>>,
    format: PhantomData<fn() -> F>,
}

type Migration<T> = dyn Fn(&[u8]) -> Option<Result<Envelope<T>, BoxError>> + Send + Sync;

impl<F: Format, T> SerdeCodec<F, T> {
    /// Creates a codec without migrations.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::codec::Envelope;
    /// use threaded_sessions::{Codec, Json};
    ///
    /// let codec = Json::<u32>::new();
    /// let payload = codec.encode(&Envelope::new(&7))?;
    /// assert_eq!(codec.decode(&payload)?.data, 7);
    /// # Ok::<_, threaded_sessions::BoxError>(())
    /// ```
    pub fn new() -> Self {
        Self { migrations: Vec::new(), format: PhantomData }
    }

    /// Adds a migration, which converts payloads of an earlier type `Old`, so that visitors stay signed in after a deploy.
    ///
    /// If a payload cannot be decoded as a `T`, the codec tries the migrations in the order in which you added them. The first
    /// one whose `Old` can be decoded decides, even if it fails. A migrated session is stored in its new form when it is next
    /// stored. If the envelope of a payload has a newer version, the payload is rejected and no migration is tried.
    ///
    /// If every field of `T` has a serde default, `T` decodes from any payload of the right outline, and no migration is tried. So
    /// give no default to a field that the migration fills. A field that only has a new name needs no migration:
    /// [recipes](crate::recipes#deploy-a-changed-type) shows `rename`.
    ///
    /// The text of an error that a migration returns is hidden, because it could quote the old value, unless it is a
    /// [`Reason`](crate::Reason). If a migration panics, the operation fails with [`Payload`](crate::ErrorKind::Payload).
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use threaded_sessions::codec::Envelope;
    /// use threaded_sessions::{Codec, Json};
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Before { name: String }
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Now { names: Vec<String> }
    ///
    /// let old = Json::<Before>::new().encode(&Envelope::new(&Before { name: "Ada".into() }))?;
    /// let codec = Json::<Now>::new().migrate(|old: Before| Ok(Now { names: vec![old.name] }));
    /// assert_eq!(codec.decode(&old)?.data.names, ["Ada"]);
    /// # Ok::<_, threaded_sessions::BoxError>(())
    /// ```
    pub fn migrate<Old: DeserializeOwned>(
        mut self,
        migrate: impl Fn(Old) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.migrations.push(Box::new(move |payload| {
            let old: Envelope<Old> = F::from_slice(payload).ok()?;
            let migrated = old.try_map(&migrate);
            Some(migrated.map_err(|error| shown(error, format!("the migration from {} failed", type_name::<Old>()))))
        }));
        self
    }
}

impl<F: Format, T> Default for SerdeCodec<F, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Format, T> fmt::Debug for SerdeCodec<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::NAME).field("migrations", &self.migrations.len()).finish()
    }
}

impl<F: Format, T: Serialize + DeserializeOwned + 'static> Codec<T> for SerdeCodec<F, T> {
    fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError> {
        F::to_vec(envelope).map_err(|error| shown(error, format!("the format {} could not write the value", F::NAME)))
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError> {
        F::from_slice(payload).or_else(|error| {
            envelope::check_version::<F>(payload)?;
            let migrated = self.migrations.iter().find_map(|migration| migration(payload));
            let unreadable = || shown(error, format!("the format {} could not read the payload", F::NAME));
            migrated.unwrap_or_else(|| Err(unreadable()))
        })
    }

    /// Merges the fields of the outermost struct or map.
    ///
    /// A field that is the same in `base` and `mine` is taken from `theirs`, which is decoded and encoded first, so that
    /// migrations run. The result is `None` in each of these cases:
    ///
    /// - The value has no fields.
    /// - The merged fields are not those of a value.
    /// - `theirs` has fields that `T` does not know.
    /// - One request changed the variant of an enum, or fields of a type with `flatten` that depend on each other.
    /// - Both requests changed a field that may be a set.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        Merger(self).merge(base, mine, theirs)
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let may_be_same = || !F::ONLY_ORDER_VARIES || merge::has_same_bytes(one, other);
        one == other || (may_be_same() && merge::is_same::<F>(one, other))
    }

    fn loses(&self, payload: &[u8]) -> bool {
        Merger(self).loses(payload)
    }
}
