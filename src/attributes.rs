use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A session value for those who want keys instead of a type of their own: names with JSON values.
///
/// ```
/// use threaded_sessions::Attributes;
///
/// let mut attributes = Attributes::default();
/// attributes.insert("cart", vec!["tea", "milk"])?;
/// assert_eq!(attributes.get::<Vec<String>>("cart")?, Some(vec!["tea".into(), "milk".into()]));
/// assert_eq!(attributes.get::<u32>("visits")?, None);
/// assert!(attributes.remove("cart"));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Value>);

impl Attributes {
    /// The value of an attribute as a `V`; `None` if there is no such attribute.
    ///
    /// # Errors
    ///
    /// If the value is not a `V`.
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> serde_json::Result<Option<V>> {
        self.0.get(name).map(V::deserialize).transpose()
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// If JSON has no form for the value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Serialize) -> serde_json::Result<()> {
        self.0.insert(name.into(), serde_json::to_value(value)?);
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

    /// The names of the attributes, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Shows the names only: values are the user's secrets.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
