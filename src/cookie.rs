//! The session cookie: from `Cookie` headers to an id, and from an id to a `Set-Cookie` header.
//!
//! The manager uses it. A cookie that the manager sends is one that browsers accept, because `validate` has checked its
//! attributes against each other.

use std::time::Duration;

use ::cookie::{Cookie, SameSite};

use crate::{Error, Result, SessionId, operation};

/// The longest time that browsers keep a cookie: 400 days (RFC 6265bis, 5.5).
pub(crate) const COOKIE_MAX_AGE: Duration = Duration::from_secs(400 * 86_400);

/// How many ids of one request are tried. A request that names more is not from a browser of a visitor.
const MAX_CANDIDATES: usize = 4;

/// The attributes of the cookie that carries a session id.
#[derive(Clone, Debug)]
pub(crate) struct SessionCookie {
    /// `None`: [`DEFAULT_COOKIE_NAME`], with the strongest prefix that the other attributes allow.
    pub(crate) name: Option<String>,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: SameSite,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) partitioned: bool,
}

const DEFAULT_COOKIE_NAME: &str = "session";

impl Default for SessionCookie {
    fn default() -> Self {
        Self {
            name: None,
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
            partitioned: false,
        }
    }
}

impl SessionCookie {
    /// Checks the attributes against each other and sets the name.
    pub(crate) fn validate(mut self) -> Result<Self> {
        let name = self.name.take().unwrap_or_else(|| [self.strongest_prefix(), DEFAULT_COOKIE_NAME].concat());
        Error::first_broken(operation::NAME_COOKIE, self.rules(&name))?;
        self.name = Some(name);
        Ok(self)
    }

    /// The rules for a cookie of this name: whether each is broken, and what it demands.
    fn rules(&self, name: &str) -> [(bool, &'static str); 9] {
        let is_token = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
        let is_value = |c: char| (' '..='~').contains(&c) && c != ';';
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_domain = |domain: &String| !domain.is_empty() && domain.chars().all(is_host);
        let lower = name.to_ascii_lowercase();
        [
            (
                name.is_empty() || !name.chars().all(is_token),
                "the name of a cookie is made of letters, digits and !#$%&'*+-.^_`|~",
            ),
            (
                !self.path.starts_with('/') || !self.path.chars().all(is_value),
                "the path begins with a slash and holds neither a semicolon nor anything but ASCII",
            ),
            (
                self.domain.as_ref().is_some_and(|domain| !is_domain(domain)),
                "the domain is the name of a host, of letters, digits, dots and hyphens",
            ),
            // Browsers drop a cookie that breaks one of these rules, and the visitor would never have a session.
            (
                lower.starts_with("__host-") && !self.is_host_only(),
                "a __Host- cookie is Secure, has the path / and no domain",
            ),
            (lower.starts_with("__host-http-") && !self.http_only, "a __Host-Http- cookie is HttpOnly"),
            (
                lower.starts_with("__http-") && !(self.secure && self.http_only),
                "a __Http- cookie is Secure and HttpOnly",
            ),
            (lower.starts_with("__secure-") && !self.secure, "a __Secure- cookie is Secure"),
            (self.same_site == SameSite::None && !self.secure, "a SameSite=None cookie is Secure"),
            (self.partitioned && !self.secure, "a Partitioned cookie is Secure"),
        ]
    }

    /// The strongest prefix of a name that browsers accept with the other attributes.
    fn strongest_prefix(&self) -> &'static str {
        match (self.is_host_only(), self.secure) {
            (true, _) => "__Host-",
            (false, true) => "__Secure-",
            (false, false) => "",
        }
    }

    fn is_host_only(&self) -> bool {
        self.secure && self.path == "/" && self.domain.is_none()
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_COOKIE_NAME)
    }

    /// Returns the well-formed ids under this name in the `Cookie` headers of a request: in the order sent, each once, at most
    /// [`MAX_CANDIDATES`]. Browsers send the cookie with the longer path first, and of two with the same path the older one (RFC
    /// 6265, 5.4).
    pub(crate) fn candidates<'h>(&self, headers: impl IntoIterator<Item = &'h str>) -> Vec<SessionId> {
        let mut ids = Vec::new();
        for cookie in headers.into_iter().flat_map(|header| header.split(';')) {
            let Some((name, value)) = cookie.split_once('=') else { continue };
            if trim(name) != self.name() {
                continue;
            }
            let Ok(id) = trim(value).parse() else { continue };
            if !ids.contains(&id) {
                ids.push(id);
            }
            if ids.len() == MAX_CANDIDATES {
                break;
            }
        }
        ids
    }

    /// Returns the `Set-Cookie` that gives the visitor this id: until the browser is closed, or for a time if the session is
    /// remembered.
    pub(crate) fn give(&self, id: &SessionId, remembered: Option<Duration>) -> String {
        let mut cookie = self.build(id.expose());
        if let Some(duration) = remembered {
            cookie.set_max_age(seconds(duration.min(COOKIE_MAX_AGE)));
        }
        cookie.to_string()
    }

    /// Returns the `Set-Cookie` that removes the cookie.
    pub(crate) fn take(&self) -> String {
        let mut cookie = self.build(String::new());
        cookie.make_removal();
        cookie.to_string()
    }

    fn build(&self, value: String) -> Cookie<'_> {
        let mut cookie = Cookie::new(self.name(), value);
        cookie.set_path(&self.path);
        cookie.set_http_only(self.http_only);
        cookie.set_secure(self.secure);
        cookie.set_same_site(self.same_site);
        cookie.set_partitioned(self.partitioned);
        if let Some(domain) = &self.domain {
            cookie.set_domain(domain);
        }
        cookie
    }
}

/// Removes the white space that may stand around the name and the value of a cookie: spaces and tabs.
///
/// Browsers keep other white space and control characters as a part of the name. If they were removed here, the name of a cookie
/// that a sibling host plants would become one that the browser protects, such as `__Host-session` (CVE-2020-8184).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn seconds(duration: Duration) -> ::cookie::time::Duration {
    ::cookie::time::Duration::seconds(duration.as_secs().max(1) as i64)
}
