//! Values that steps pass to each other along one operation.
//!
//! Every operation carries one [`Values`]. It holds at most one value of each type, and its `Debug` shows none of them.

use std::any::Any;
use std::fmt;

/// Values that steps pass to each other along one operation, one of each type.
///
/// Use a custom type, so that the values of different steps are not mixed up.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::Values;
///
/// struct Begun(u32);
///
/// let mut values = Values::default();
/// values.insert(Begun(7));
/// assert_eq!(values.get::<Begun>().map(|begun| begun.0), Some(7));
/// assert_eq!(values.remove::<Begun>().map(|begun| begun.0), Some(7));
/// assert!(values.get::<Begun>().is_none());
/// ```
#[derive(Default)]
pub struct Values(Vec<Box<dyn Any>>);

impl Values {
    /// Sets the value of this type. It replaces an earlier value of the type.
    pub fn insert<V: 'static>(&mut self, value: V) {
        self.remove::<V>();
        self.0.push(Box::new(value));
    }

    /// Returns the value of this type.
    pub fn get<V: 'static>(&self) -> Option<&V> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    /// Returns the value of this type, to change it.
    pub fn get_mut<V: 'static>(&mut self) -> Option<&mut V> {
        self.0.iter_mut().find_map(|value| value.downcast_mut())
    }

    /// Removes and returns the value of this type.
    pub fn remove<V: 'static>(&mut self) -> Option<V> {
        let position = self.0.iter().position(|value| value.is::<V>())?;
        self.0.swap_remove(position).downcast().ok().map(|value| *value)
    }
}

/// Shows only the number of values, because they can be secrets.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({})", self.0.len())
    }
}
