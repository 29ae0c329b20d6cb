//! A session value with named attributes, for applications without a type of their own.
//!
//! Applications use it as `SessionManager<Attributes>`. Values are JSON; a value that cannot be read back the same is rejected
//! when it is set.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codec::{Check, NO_FORM, locate};
use crate::{Error, ErrorKind, Reason, Result, operation};

/// A session value for those who want keys instead of a type of their own, as `SessionManager<Attributes>`: names with
/// JSON values.
///
/// ```
/// use threaded_sessions::Attributes;
///
/// let mut attributes = Attributes::default();
/// attributes.insert("cart", vec!["tea", "milk"])?;
/// assert_eq!(attributes.get::<Vec<String>>("cart")?, Some(vec!["tea".into(), "milk".into()]));
/// assert_eq!(attributes.get::<u32>("visits")?, None);
/// assert!(attributes.contains("cart") && attributes.len() == 1);
/// assert!(attributes.remove("cart"));
///
/// // A flash message, for the next page only.
/// attributes.insert("flash", "Saved.")?;
/// assert_eq!(attributes.take("flash")?, Some("Saved.".to_owned()));
/// assert_eq!(attributes.take::<String>("flash")?, None);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Value>);

impl Attributes {
    /// The value of an attribute as a `V`; `None` if there is no such attribute.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`] if the value is not a `V`.
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        // The error of serde_json quotes the value, so it is dropped.
        V::deserialize(value).map(Some).map_err(|_| {
            let field = locate::<V>(value).map(|field| format!(": {field}")).unwrap_or_default();
            let why = Reason::computed(format!("it is of another type{field}"));
            Error::new(ErrorKind::Payload, operation::READ_ATTRIBUTE).with_source(why)
        })
    }

    /// The same, and removes the attribute (scs `Pop`).
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get). The attribute stays then.
    #[doc(alias = "Pop")]
    pub fn take<V: DeserializeOwned>(&mut self, name: &str) -> Result<Option<V>> {
        let value = self.get(name)?;
        self.remove(name);
        Ok(value)
    }

    /// Sets an attribute.
    ///
    /// An attribute cannot make the session unreadable. Whether [`get`](Self::get) can read it as the type of `value` depends on
    /// that type: serde cannot read back [some shapes](crate::codec#values-that-serde-cannot-read-back).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Payload`] if [JSON](crate::Json) has no form for the value, or it holds an integer of more than 64 bits.
    /// The attribute is as before then.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Serialize) -> Result<()> {
        Check::json(&value).map_err(not_settable)?;
        let value = serde_json::to_value(value).map_err(|_| not_settable(Reason::new(NO_FORM)))?;
        self.0.insert(name.into(), value);
        Ok(())
    }

    /// Removes an attribute; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Removes all attributes.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is such an attribute.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many attributes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the attributes, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The attributes, names with JSON values, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

fn not_settable(why: Reason) -> Error {
    Error::new(ErrorKind::Payload, operation::SET_ATTRIBUTE).with_source(why)
}

/// Shows the names only: values are the user's secrets.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
