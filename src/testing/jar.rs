//! The cookies of a [`Browser`](super::Browser), kept by the rules of RFC 6265bis.
//!
//! Invariant: no two cookies have the same name, domain and path, and a value leaves the jar only for a request that a browser
//! would send it with.

use std::fmt;
use std::time::{Duration, SystemTime};

use ::cookie::{Cookie, Expiration, SameSite};
use url::{Host, Url};

use crate::Clock;
use crate::cookie::COOKIE_MAX_AGE;

/// The longest name and value together that browsers keep, in bytes.
const LONGEST_COOKIE: usize = 4096;

/// The cookies that may go with a request, by their `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sends {
    All,
    /// Those of a link from another site.
    LaxAndNone,
    /// Those of a form or a script from another site.
    NoneOnly,
}

impl Sends {
    fn allows(self, same_site: SameSite) -> bool {
        match self {
            Self::All => true,
            Self::LaxAndNone => same_site != SameSite::Strict,
            Self::NoneOnly => same_site == SameSite::None,
        }
    }
}

/// The cookies of one browser, the oldest first.
#[derive(Clone, Default)]
pub(super) struct Jar {
    pub(super) clock: Clock,
    cookies: Vec<Kept>,
}

#[derive(Clone)]
struct Kept {
    name: String,
    value: String,
    domain: String,
    host_only: bool,
    path: String,
    secure: bool,
    same_site: SameSite,
    /// `None`: until the browser is closed.
    until: Option<SystemTime>,
}

impl Jar {
    /// Takes a `Set-Cookie` header of a response from this URL. Returns `false` if a browser would reject it.
    pub(super) fn take(&mut self, url: &Url, set_cookie: &str) -> bool {
        let Some(cookie) = Kept::accept(url, set_cookie, self.clock.now()) else { return false };
        if !is_trustworthy(url) && self.cookies.iter().any(|kept| kept.secure && kept.is_shadowed_by(&cookie)) {
            return false;
        }
        let place = self.cookies.iter().position(|kept| kept.is_replaced_by(&cookie));
        let is_live = cookie.is_live(self.clock.now());
        match (place, is_live) {
            (Some(place), true) => self.cookies[place] = cookie,
            (Some(place), false) => drop(self.cookies.remove(place)),
            (None, true) => self.cookies.push(cookie),
            (None, false) => {}
        }
        true
    }

    /// Returns the `Cookie` header of a request to this URL: cookies with longer paths first, then the older ones.
    pub(super) fn cookies_for(&self, url: &Url, sends: Sends) -> Option<String> {
        let mut cookies: Vec<&Kept> =
            self.live().filter(|kept| kept.goes_to(url) && sends.allows(kept.same_site)).collect();
        cookies.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        let pairs: Vec<String> = cookies.iter().map(|kept| format!("{}={}", kept.name, kept.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Returns the value of a cookie for the host of this URL, whatever its path.
    pub(super) fn value(&self, url: &Url, name: &str) -> Option<&str> {
        self.live().find(|kept| kept.name == name && kept.is_for_host(url)).map(|kept| &*kept.value)
    }

    /// Removes the cookies that last until the browser is closed.
    pub(super) fn restart(&mut self) {
        self.cookies.retain(|kept| kept.until.is_some());
    }

    fn live(&self) -> impl Iterator<Item = &Kept> {
        let now = self.clock.now();
        self.cookies.iter().filter(move |kept| kept.is_live(now))
    }
}

impl Kept {
    fn accept(url: &Url, set_cookie: &str, now: SystemTime) -> Option<Self> {
        let cookie = Cookie::parse(set_cookie).ok()?;
        let host = url.host_str()?;
        let domain = cookie.domain().filter(|domain| !domain.is_empty()).map(str::to_ascii_lowercase);
        let fits = domain.as_ref().is_none_or(|domain| domain_matches(host, domain));
        if !fits || breaks_rules(&cookie, url) {
            return None;
        }
        // A name without a dot is a public suffix, or the name of this machine.
        let domain = domain.filter(|domain| domain.contains('.') && url.domain().is_some());
        let path = cookie.path().filter(|path| path.starts_with('/'));
        if domain.is_none() && cookie.domain().is_some_and(|domain| !domain.is_empty() && domain != host) {
            return None;
        }
        Some(Self {
            name: cookie.name().to_owned(),
            value: cookie.value().to_owned(),
            host_only: domain.is_none(),
            domain: domain.unwrap_or_else(|| host.to_owned()),
            path: path.map_or_else(|| default_path(url), str::to_owned),
            secure: cookie.secure() == Some(true),
            same_site: cookie.same_site().unwrap_or(SameSite::Lax),
            until: end(&cookie, now),
        })
    }

    fn is_live(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    fn is_replaced_by(&self, other: &Self) -> bool {
        let key = |kept: &Self| (kept.name.clone(), kept.domain.clone(), kept.host_only, kept.path.clone());
        key(self) == key(other)
    }

    /// Returns `true` if a request could carry the other cookie in place of this one.
    fn is_shadowed_by(&self, other: &Self) -> bool {
        let meets = domain_matches(&self.domain, &other.domain) || domain_matches(&other.domain, &self.domain);
        self.name == other.name && meets && path_matches(&other.path, &self.path)
    }

    fn is_for_host(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        host == self.domain || (!self.host_only && domain_matches(host, &self.domain))
    }

    fn goes_to(&self, url: &Url) -> bool {
        self.is_for_host(url) && path_matches(url.path(), &self.path) && (!self.secure || is_trustworthy(url))
    }
}

/// Returns `true` if browsers reject the cookie for its attributes or its size.
fn breaks_rules(cookie: &Cookie<'_>, url: &Url) -> bool {
    let name = cookie.name().to_ascii_lowercase();
    let secure = cookie.secure() == Some(true);
    let is_host_only = cookie.path() == Some("/") && cookie.domain().is_none();
    let is_http_prefix = ["__http-", "__host-http-"].iter().any(|prefix| name.starts_with(prefix));
    let needs_secure = name.starts_with("__secure-")
        || name.starts_with("__host-")
        || is_http_prefix
        || cookie.same_site() == Some(SameSite::None)
        || cookie.partitioned() == Some(true);
    (needs_secure && !secure)
        || (is_http_prefix && cookie.http_only() != Some(true))
        || (secure && !is_trustworthy(url))
        || (name.starts_with("__host-") && !is_host_only)
        || cookie.name().len() + cookie.value().len() > LONGEST_COOKIE
}

/// When the cookie ends. `Max-Age` overrides `Expires`.
fn end(cookie: &Cookie<'_>, now: SystemTime) -> Option<SystemTime> {
    let latest = now + COOKIE_MAX_AGE;
    if let Some(age) = cookie.max_age() {
        return Some((now + Duration::try_from(age).unwrap_or_default().min(COOKIE_MAX_AGE)).min(latest));
    }
    match cookie.expires()? {
        Expiration::Session => None,
        Expiration::DateTime(end) => Some(SystemTime::from(end).min(latest)),
    }
}

/// Returns `true` for the addresses that browsers treat as secure.
pub(super) fn is_trustworthy(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || is_loopback
}

fn domain_matches(host: &str, domain: &str) -> bool {
    let is_below = || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    host == domain || (is_below() && Host::parse(host).is_ok_and(|host| matches!(host, Host::Domain(_))))
}

fn path_matches(path: &str, cookie: &str) -> bool {
    let rest = path.strip_prefix(cookie);
    rest.is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

/// The path of a cookie that names none: the folder of the page.
fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder.to_owned(),
        _ => "/".to_owned(),
    }
}

impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.live().map(|kept| &kept.name)).finish()
    }
}
