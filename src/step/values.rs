//! Values that steps pass to each other along one operation.
//!
//! Every operation carries one [`Values`]. It holds at most one value of each type, and its `Debug` shows none of them.

use std::any::Any;
use std::fmt;

/// Values that steps hand each other along one operation, one of each type. A type of one's own keeps them from being
/// mixed up with those of other steps.
#[derive(Default)]
pub struct Values(Vec<Box<dyn Any>>);

impl Values {
    /// Puts a value in, in the place of one of the same type.
    pub fn insert<V: 'static>(&mut self, value: V) {
        self.remove::<V>();
        self.0.push(Box::new(value));
    }

    /// The value of this type.
    pub fn get<V: 'static>(&self) -> Option<&V> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    /// The value of this type, to change it.
    pub fn get_mut<V: 'static>(&mut self) -> Option<&mut V> {
        self.0.iter_mut().find_map(|value| value.downcast_mut())
    }

    /// Takes the value of this type out.
    pub fn remove<V: 'static>(&mut self) -> Option<V> {
        let position = self.0.iter().position(|value| value.is::<V>())?;
        self.0.swap_remove(position).downcast().ok().map(|value| *value)
    }
}

/// They can be anything, also secrets.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({})", self.0.len())
    }
}
