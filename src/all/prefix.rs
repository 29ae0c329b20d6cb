//! [`HandlePrefix`], the beginning of a handle.
//!
//! Operators type it instead of 64 digits; [`AllSessions`](super::AllSessions) finds the session. The invariant: a prefix has
//! as many digits as make a chance match unlikely.

use std::fmt;
use std::str::FromStr;

use crate::{Handle, InvalidHandle};

/// The least number of digits of a prefix. Of a million sessions, one in 4,000 shares its first 8 digits with another.
const MIN_DIGITS: usize = 8;

/// The number of digits of a whole handle.
const HANDLE_DIGITS: usize = 64;

/// A handle, or the first 8 or more digits of one.
///
/// # Examples
///
/// ```
/// use threaded_sessions::{Handle, HandlePrefix};
///
/// let handle = Handle::of_key(b"sessions:x");
/// let prefix: HandlePrefix = handle.to_string()[..8].parse()?;
/// assert!(prefix.matches(handle) && !prefix.is_whole());
/// assert!(HandlePrefix::from(handle).is_whole());
/// assert!("1234567".parse::<HandlePrefix>().is_err(), "too short");
/// # Ok::<_, threaded_sessions::InvalidHandle>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HandlePrefix(String);

impl HandlePrefix {
    /// Returns `true` if a handle begins with this prefix.
    pub fn matches(&self, handle: Handle) -> bool {
        self.begins(&digits(handle))
    }

    /// Returns `true` if these digits of a handle begin with this prefix.
    pub(super) fn begins(&self, digits: &[u8]) -> bool {
        digits.starts_with(self.0.as_bytes())
    }

    /// Returns `true` if the prefix is a whole handle, so that at most one session can match.
    pub fn is_whole(&self) -> bool {
        self.0.len() == HANDLE_DIGITS
    }

    /// Returns the handle, if the prefix is a whole one.
    pub fn to_handle(&self) -> Option<Handle> {
        self.0.parse().ok()
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the digits of a handle, without an allocation.
pub(super) fn digits(handle: Handle) -> [u8; HANDLE_DIGITS] {
    let mut digits = [0; HANDLE_DIGITS];
    hex::encode_to_slice(handle.as_bytes(), &mut digits).expect("a byte has two digits");
    digits
}

impl From<Handle> for HandlePrefix {
    fn from(handle: Handle) -> Self {
        Self(handle.to_string())
    }
}

impl FromStr for HandlePrefix {
    type Err = InvalidHandle;

    /// Reads 8 to 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = (MIN_DIGITS..=HANDLE_DIGITS).contains(&text.len()) && text.bytes().all(is_digit);
        valid.then(|| Self(text.to_owned())).ok_or(InvalidHandle)
    }
}

impl fmt::Display for HandlePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HandlePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlePrefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_has_8_to_64_lower_case_digits() {
        let handle = Handle::of_key(b"x").to_string();
        for valid in [&handle[..8], &handle[..63], &handle] {
            let prefix: HandlePrefix = valid.parse().unwrap();
            assert!(prefix.matches(Handle::of_key(b"x")) && !prefix.matches(Handle::of_key(b"y")));
            assert_eq!(prefix.is_whole(), valid.len() == HANDLE_DIGITS);
            assert_eq!(prefix.to_handle().is_some(), prefix.is_whole());
        }
        for invalid in ["", "1234567", "1234567g", "ABCDEF01", &format!("{handle}0"), "12345678\n", "123456 8"] {
            assert_eq!(invalid.parse::<HandlePrefix>(), Err(InvalidHandle), "{invalid:?}");
        }
    }
}
