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

/// A session value with named JSON values, for applications without a type of their own.
///
/// Use it as `SessionManager<Attributes>`.
///
/// # Examples
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
    /// Returns the value of an attribute as a `V`; `None` if there is no such attribute.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Payload`] if the value is not a `V`.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{Attributes, ErrorKind};
    ///
    /// let mut attributes = Attributes::default();
    /// attributes.insert("visits", 3)?;
    /// assert_eq!(attributes.get::<u32>("visits")?, Some(3));
    /// assert_eq!(attributes.get::<String>("visits").unwrap_err().kind(), ErrorKind::Payload);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        // The error of serde_json quotes the value, so it is dropped.
        V::deserialize(value).map(Some).map_err(|_| {
            let field = locate::<V>(value).map(|field| format!(": {field}")).unwrap_or_default();
            let why = Reason::computed(format!("it is of another type{field}"));
            Error::new(ErrorKind::Payload, operation::READ_ATTRIBUTE).with_source(why)
        })
    }

    /// Returns the value of an attribute as a `V`, and removes the attribute (scs `Pop`).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Payload`] if the value is not a `V`. The attribute then stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::Attributes;
    ///
    /// let mut attributes = Attributes::default();
    /// attributes.insert("flash", "Saved.")?;
    /// assert_eq!(attributes.take::<String>("flash")?.as_deref(), Some("Saved."));
    /// assert!(attributes.is_empty());
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    #[doc(alias = "Pop")]
    pub fn take<V: DeserializeOwned>(&mut self, name: &str) -> Result<Option<V>> {
        let value = self.get(name)?;
        self.remove(name);
        Ok(value)
    }

    /// Sets an attribute.
    ///
    /// An attribute cannot make the session unreadable. It depends on the type of `value` whether [`get`](Self::get) can read
    /// it back as that type: serde cannot read back [some shapes](crate::codec#values-that-serde-cannot-read-back).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Payload`] if [JSON](crate::Json) has no form for the value, or if the value has an integer of more
    /// than 64 bits. The attribute then stays as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::Attributes;
    ///
    /// let mut attributes = Attributes::default();
    /// attributes.insert("cart", ["tea", "milk"])?;
    /// assert!(attributes.insert("user", 1_u128 << 70).is_err());
    /// assert_eq!(attributes.names().collect::<Vec<_>>(), ["cart"]);
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn insert(&mut self, name: impl Into<String>, value: impl Serialize) -> Result<()> {
        Check::attribute(&value).map_err(not_settable)?;
        let value = serde_json::to_value(value).map_err(|_| not_settable(Reason::new(NO_FORM)))?;
        self.0.insert(name.into(), value);
        Ok(())
    }

    /// Removes an attribute, and returns `true` if it existed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Removes all attributes.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns `true` if there is an attribute of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the number of attributes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names of the attributes, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the names and the JSON values of the attributes, in alphabetical order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

fn not_settable(why: Reason) -> Error {
    Error::new(ErrorKind::Payload, operation::SET_ATTRIBUTE).with_source(why)
}

/// Shows only the names, because the values are secrets of the user.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
