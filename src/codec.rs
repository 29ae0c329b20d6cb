//! How a session becomes a payload, and back.
//!
//! A payload is an [`Envelope`] around the user's own value, as a [`Codec`] encodes it. [`Json`] is the default; `MessagePack`
//! comes with the feature `msgpack`. Both are a [`SerdeCodec`], which also reads what was stored before a deploy changed the
//! value ([`migrate`](SerdeCodec::migrate)), and puts the changes of two requests together.
//!
//! | for | implement |
//! |---|---|
//! | another serde format | [`Format`], and take `SerdeCodec<YourFormat, T>` |
//! | compressing, or a `T` that is no serde type | [`Codec`] |
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
//! back different: a field that `skip_serializing_if` leaves out and that has another `default`; a variant of an `untagged`
//! enum that an earlier variant can read; `Some(None)`, which comes back as `None`.
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

/// How a session becomes a payload and back (ring-redis-session `:read-handler`, `:write-handler`).
///
/// The [module](crate::codec) says which there are. [`Json`] and `MessagePack` take values that nest up to about 120 deep.
///
/// ```
/// use serde::{Serialize, de::DeserializeOwned};
/// use threaded_sessions::codec::Envelope;
/// use threaded_sessions::{BoxError, Codec, Json, MemorySessionStore, SessionManager};
///
/// /// Turns every bit of a JSON payload around, as another would compress it.
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
    /// Encodes a session. Envelopes that differ, if only in their revision, must be encoded differently. The same envelope
    /// should be encoded alike each time, for a session counts as changed when its encoding has.
    ///
    /// # Errors
    ///
    /// Returns an error if the value cannot be encoded. The manager hides its text, unless it is a [`Reason`](crate::Reason).
    fn encode(&self, envelope: &Envelope<&T>) -> Result<Vec<u8>, BoxError>;

    /// Decodes what [`encode`](Self::encode) made, perhaps long ago, by another version of the program.
    ///
    /// # Errors
    ///
    /// Returns an error if the payload cannot be decoded. The manager hides its text, unless it is a [`Reason`](crate::Reason).
    fn decode(&self, payload: &[u8]) -> Result<Envelope<T>, BoxError>;

    /// Puts what changed from `base` to `mine` onto `theirs`, all three encoded, and encodes it with a new revision.
    /// `None` if this codec or this value has no parts to tell apart: then it is a conflict. That is the default.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        let _ = (base, mine, theirs);
        None
    }

    /// Returns `true` if two payloads hold equal values, whatever the rest of their envelopes. A map in another order is equal.
    /// Defaults to comparing the payloads.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other
    }

    /// Returns `true` if a payload, decoded and encoded again, would lose fields, because another version of the program wrote it.
    /// Such a session is not merged with. Defaults to `false`.
    fn loses(&self, payload: &[u8]) -> bool {
        let _ = payload;
        false
    }
}

/// The initial capacity of an encoding. An ordinary payload fits, so the buffer does not grow.
const PAYLOAD_CAPACITY_BYTES: usize = 1024;

/// A serde format, to make a [`Codec`] of with [`SerdeCodec`].
pub trait Format: Send + Sync + 'static {
    /// Any value of the format as it stands, for merging: what an untouched field is copied as. Equal values of two
    /// encodings of the same thing must compare equal.
    type Value: Serialize + DeserializeOwned + PartialEq;

    /// The name of the format, for `Debug`.
    const NAME: &'static str;

    /// Serialises.
    ///
    /// # Errors
    ///
    /// Returns an error if the data cannot be written. [`SerdeCodec`] hides its text, unless it is a [`Reason`](crate::Reason).
    fn to_vec<D: Serialize>(data: &D) -> Result<Vec<u8>, BoxError>;

    /// Deserialises.
    ///
    /// # Errors
    ///
    /// Returns an error if the data cannot be read. [`SerdeCodec`] hides its text, unless it is a [`Reason`](crate::Reason).
    fn from_slice<D: DeserializeOwned>(bytes: &[u8]) -> Result<D, BoxError>;
}

/// The [`Codec`] of a serde [`Format`]; [`Json`] is one.
pub struct SerdeCodec<F, T> {
    migrations: Vec<Box<Migration<T>>>,
    format: PhantomData<fn() -> F>,
}

type Migration<T> = dyn Fn(&[u8]) -> Option<Result<Envelope<T>, BoxError>> + Send + Sync;

impl<F: Format, T> SerdeCodec<F, T> {
    /// The codec, without migrations.
    pub fn new() -> Self {
        Self { migrations: Vec::new(), format: PhantomData }
    }

    /// Reads payloads that are not (any more) a `T` as an `Old` and makes a `T` of it: what keeps people signed in after a
    /// deploy that changed `T`. Several migrations are tried in the order they were added; the first one whose `Old` can
    /// be decoded decides, also if it fails. A session that was migrated is stored in its new form when it next changes. A
    /// payload whose envelope is of a newer version is refused without asking.
    ///
    /// A `T` whose every field has a serde default decodes from anything with the right outline, and no migration is
    /// asked.
    ///
    /// The text of an error that a migration returns is hidden, because it could quote the old value, unless it is
    /// a [`Reason`](crate::Reason). A migration that panics is an error of kind [`Payload`](crate::ErrorKind::Payload).
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

    /// The fields of the outermost struct or map are the parts. A field that is the same in `base` and `mine` is taken
    /// from `theirs`, which is decoded and encoded first, so that migrations run. It returns `None` for a value without fields; if
    /// the merged fields are not those of a value; if `theirs` has fields that `T` does not know; if one request changed
    /// the variant of an enum, or fields of a type with `flatten` that depend on each other; and if both requests changed a field
    /// that may be a set.
    fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        Merger(self).merge(base, mine, theirs)
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other || merge::is_same::<F>(one, other)
    }

    fn loses(&self, payload: &[u8]) -> bool {
        Merger(self).loses(payload)
    }
}
