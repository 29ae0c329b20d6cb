//! The user name and password with which connections log in.
//!
//! The connector asks for them each time it connects, so that they can change while the program runs. Invariant: `Debug`
//! shows neither.

use std::fmt;

use redis::RedisConnectionInfo;

/// A user name and password for Redis.
#[derive(Clone)]
pub struct Credentials {
    username: Option<String>,
    password: String,
}

impl Credentials {
    /// Creates credentials for the default user, with the password that Redis has as `requirepass`.
    pub fn password(password: impl Into<String>) -> Self {
        Self { username: None, password: password.into() }
    }

    /// Creates credentials for a user that `ACL SETUSER` created.
    pub fn user(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: Some(username.into()), password: password.into() }
    }

    /// Returns these settings with these credentials.
    pub(crate) fn onto(&self, settings: &RedisConnectionInfo) -> RedisConnectionInfo {
        // A user name in the URL must not combine with this password.
        let username = self.username.as_deref().unwrap_or("default");
        settings.clone().set_username(username).set_password(&self.password)
    }
}

/// Shows neither the user name nor the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
