//! A cookie jar that keeps and sends cookies as a browser does.

use std::cmp::Reverse;

/// The cookies of a browser, kept and sent as RFC 6265bis and CHIPS have it. Time plays no part.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    /// In the order in which they were created.
    cookies: Vec<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    name: String,
    value: String,
    /// The host that set it, or the domain that it is for.
    domain: String,
    is_host_only: bool,
    path: String,
    is_secure: bool,
    is_partitioned: bool,
}

impl Jar {
    /// Takes a `Set-Cookie` of a response over HTTPS. Returns `false` if a browser refuses it.
    pub fn take(&mut self, host: &str, set_cookie: &str) -> bool {
        let mut parts = set_cookie.split("; ");
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a name and a value");
        let attributes: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        let attribute = |name: &str| attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        let domain = attribute("Domain");
        let kept = Kept {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: domain.unwrap_or(host).to_owned(),
            is_host_only: domain.is_none(),
            path: attribute("Path").unwrap_or("/").to_owned(),
            is_secure: attribute("Secure").is_some(),
            is_partitioned: attribute("Partitioned").is_some(),
        };
        let may_have_prefix = (!name.starts_with("__Secure-") || kept.is_secure)
            && (!name.starts_with("__Host-") || (kept.is_secure && kept.is_host_only && kept.path == "/"));
        if !may_have_prefix || !kept.goes_to(host) {
            return false;
        }
        let place = self.cookies.iter().position(|old| old.is_replaced_by(&kept));
        match (place, attribute("Max-Age")) {
            (Some(at), Some("0")) => drop(self.cookies.remove(at)),
            (None, Some("0")) => (),
            // It keeps its place in the order.
            (Some(at), _) => self.cookies[at] = kept,
            (None, _) => self.cookies.push(kept),
        }
        true
    }

    /// The `Cookie` header of a request over HTTPS: longer paths first, and of equal ones the older.
    pub fn header(&self, host: &str, path: &str) -> String {
        let mut sent: Vec<&Kept> =
            self.cookies.iter().filter(|cookie| cookie.goes_to(host) && cookie.goes_below(path)).collect();
        sent.sort_by_key(|cookie| Reverse(cookie.path.len()));
        sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
    }
}

impl Kept {
    fn is_replaced_by(&self, other: &Self) -> bool {
        let place = |cookie: &Self| {
            (
                cookie.name.clone(),
                cookie.domain.clone(),
                cookie.is_host_only,
                cookie.path.clone(),
                cookie.is_partitioned,
            )
        };
        place(self) == place(other)
    }

    fn goes_to(&self, host: &str) -> bool {
        host == self.domain || (!self.is_host_only && host.ends_with(&format!(".{}", self.domain)))
    }

    fn goes_below(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&*self.path);
        rest.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'))
    }
}
