use std::fmt;

use redis::RedisConnectionInfo;

/// As whom to log in at Redis.
#[derive(Clone)]
pub struct Credentials {
    username: Option<String>,
    password: String,
}

impl Credentials {
    /// The default user, with the password of `requirepass`.
    pub fn password(password: impl Into<String>) -> Self {
        Self { username: None, password: password.into() }
    }

    /// This user, as `ACL SETUSER` made them.
    pub fn user(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: Some(username.into()), password: password.into() }
    }

    /// The settings of a connection, logging in as this.
    pub(crate) fn onto(&self, settings: &RedisConnectionInfo) -> RedisConnectionInfo {
        // Without a name of its own the default user's, whatever the URL says.
        let username = self.username.as_deref().unwrap_or("default");
        settings.clone().set_username(username).set_password(&self.password)
    }
}

/// Shows neither.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}
