//! The headers of a response with a session, merged with those that the handler set.
//!
//! [`Committed`] and the adapters use it. Invariant: a response varies with the cookie or the token, and no shared cache may store
//! one that sets a cookie or has a token.

use std::borrow::Cow;
use std::mem;

use super::Committed;

const VARY: &str = "Vary";
const CACHE_CONTROL: &str = "Cache-Control";
const SET_COOKIE: &str = "Set-Cookie";

/// Further headers by which a response allows shared caches to store it. Such a cache may prefer them to
/// `Cache-Control`. The names that end with [`TARGETED`] belong to them too.
const FOR_SHARED_CACHES: [&str; 4] = ["Expires", "Surrogate-Control", "Edge-Control", "X-Accel-Expires"];

/// The end of the names of headers for certain caches (RFC 9213), such as `CDN-Cache-Control`.
const TARGETED: &str = "-Cache-Control";

/// The changes to the headers that a handler set.
#[derive(Debug, PartialEq)]
pub(crate) struct HeaderChanges {
    drops_vary: bool,
    drops_cache_control: bool,
    drops_permissions: bool,
    pub(crate) added: Vec<(&'static str, Cow<'static, str>)>,
}

impl HeaderChanges {
    /// Returns `true` if a header of this name has to go.
    pub(crate) fn drops(&self, name: &str) -> bool {
        (self.drops_vary && name.eq_ignore_ascii_case(VARY))
            || (self.drops_cache_control && name.eq_ignore_ascii_case(CACHE_CONTROL))
            || (self.drops_permissions && permits_shared_caches(name))
    }
}

impl Committed {
    /// Puts the session's headers onto those of a response that a handler made.
    ///
    /// Use it if you copy the headers by hand. The adapters do the same. The rules are:
    ///
    /// - `Vary` names `Cookie`, or `Authorization` if the session was opened [by a token](crate::SessionManager::open_bearer), in
    ///   addition to what the handler set.
    /// - If the handler set no `Cache-Control`, it is `no-store`, because a page that only reads the session is personal too.
    /// - If the response has a new token, or a `Set-Cookie` from the session or from the handler, no shared cache may store it: a
    ///   `Cache-Control` of the handler stays only if it has `no-store` or `private`, and none of `public`, `s-maxage` and
    ///   `must-understand`. Otherwise it becomes `no-store`. `Expires` and headers such as `CDN-Cache-Control`,
    ///   `Surrogate-Control` and `X-Accel-Expires` are removed.
    /// - All other headers of the handler stay.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut session = sessions.open(None)?;
    /// *session += 1;
    /// let mut headers = vec![("Vary".to_owned(), "Accept".to_owned())];
    /// sessions.commit(session)?.merge_into(&mut headers);
    /// assert!(headers.contains(&("Vary".to_owned(), "Accept, Cookie".to_owned())));
    /// assert!(headers.iter().any(|(name, _)| name == "Set-Cookie"));
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    pub fn merge_into<N, V>(&self, headers: &mut Vec<(N, V)>)
    where
        N: AsRef<str> + From<&'static str>,
        V: AsRef<str> + From<String>,
    {
        let changes = self.header_changes(|| headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        headers.retain(|(name, _)| !changes.drops(name.as_ref()));
        headers.extend(changes.added.into_iter().map(|(name, value)| (name.into(), value.into_owned().into())));
    }

    /// Returns what to change about the headers of a response. `set` returns those that the handler set.
    pub(crate) fn header_changes<'a, I>(&self, set: impl Fn() -> I) -> HeaderChanges
    where
        I: Iterator<Item = (&'a str, &'a str)>,
    {
        let values = |wanted: &'static str| {
            set().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
        };
        let carrier = self.carrier().vary();
        let mut vary: Vec<&str> = values(VARY).filter(|value| !value.trim().is_empty()).collect();
        let varies =
            vary.iter().flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case(carrier));
        let mut control = values(CACHE_CONTROL).peekable();
        let is_controlled = control.peek().is_some();
        let sets_cookie = self.credential.is_some() || values(SET_COOKIE).next().is_some();
        let drops_cache_control = is_controlled && sets_cookie && !forbids_shared_caches(control);

        let mut added: Vec<(&'static str, Cow<'static, str>)> = Vec::with_capacity(3);
        if !is_controlled || drops_cache_control {
            added.push((CACHE_CONTROL, "no-store".into()));
        }
        if !varies {
            // One header for all, because some caches look at one only.
            vary.push(carrier);
            added.push((VARY, if vary.len() == 1 { carrier.into() } else { vary.join(", ").into() }));
        }
        added.extend(self.credential.clone().map(|value| (self.carrier().header(), value.into())));
        HeaderChanges { drops_vary: !varies, drops_cache_control, drops_permissions: sets_cookie, added }
    }
}

/// Returns `true` if these values of `Cache-Control` keep the response out of every shared cache.
///
/// `private="…"` concerns single headers only. With `must-understand`, a cache that knows the status may ignore `no-store`.
fn forbids_shared_caches<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let mut forbids = false;
    for directive in values.flat_map(directives) {
        let name = directive.split('=').next().unwrap_or_default().trim();
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("public") || is("s-maxage") || is("must-understand") {
            return false;
        }
        forbids |= (is("private") || is("no-store")) && !directive.contains('=');
    }
    forbids
}

/// Splits a header at its commas, except for those within quotes. Within quotes, a backslash escapes the next character.
fn directives(value: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |c| {
        if mem::take(&mut is_escaped) {
            return false;
        }
        is_escaped = is_quoted && c == '\\';
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    })
}

/// Returns `true` for headers that only caches between server and browser read.
pub(crate) fn permits_shared_caches(name: &str) -> bool {
    let is_targeted = name.len().checked_sub(TARGETED.len()).and_then(|at| name.get(at..));
    is_targeted.is_some_and(|end| end.eq_ignore_ascii_case(TARGETED))
        || FOR_SHARED_CACHES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{MemorySessionStore, Outcome};

    /// The headers of a response with these headers of the handler, with or without a cookie of the session.
    fn merged(cookie: bool, set: &[(&str, &str)]) -> Vec<(String, String)> {
        let store = Arc::new(MemorySessionStore::new());
        let committed = Committed::new(Outcome::Stored, None, store, cookie.then(|| "session=id".to_owned()));
        let mut headers = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        committed.merge_into(&mut headers);
        headers
    }

    fn values(headers: &[(String, String)], wanted: &str) -> Vec<String> {
        let named = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| value.clone()).collect()
    }

    #[test]
    fn vary_always_names_cookie_once() {
        for (set, expected) in [
            (&[][..], "Cookie"),
            (&[("Vary", "Accept")], "Accept, Cookie"),
            (&[("VARY", "Accept"), ("vary", "Origin")], "Accept, Origin, Cookie"),
            (&[("Vary", "*")], "*, Cookie"),
            (&[("Vary", "")], "Cookie"),
            (&[("Vary", " ")], "Cookie"),
            (&[("Vary", "X-Cookie")], "X-Cookie, Cookie"),
            (&[("Vary", "accept, COOKIE")], "accept, COOKIE"),
        ] {
            for cookie in [false, true] {
                assert_eq!(values(&merged(cookie, set), "Vary"), [expected], "{set:?}");
            }
        }
        let apart = merged(true, &[("Vary", "Accept"), ("Vary", "Cookie")]);
        assert_eq!(values(&apart, "Vary"), ["Accept", "Cookie"]);
    }

    #[test]
    fn set_cookie_is_never_for_shared_caches() {
        for (control, expected) in [
            (&[][..], "no-store"),
            (&["public"], "no-store"),
            (&["Public, Max-Age=60"], "no-store"),
            (&["max-age=60"], "no-store"),
            (&["s-maxage=60, private"], "no-store"),
            (&["immutable"], "no-store"),
            (&["no-cache"], "no-store"),
            (&[""], "no-store"),
            (&["no-store", "public"], "no-store"),
            (&["no-store, must-understand"], "no-store"),
            (&["private=\"X-Name\", max-age=60"], "no-store"),
            (&["x=\"a, private, b\""], "no-store"),
            (&["x=\"a, private"], "no-store"),
            (&["private, x=\"a, b\", public"], "no-store"),
            (&["max-age=60, x=\"a\\\", private, b\""], "no-store"),
            (&["x=\\\", private, b\""], "no-store"),
            (&["x=\"\\\"\", private"], "x=\"\\\"\", private"),
            (&["x=\"a\\\\\", private"], "x=\"a\\\\\", private"),
            (&["x=\"a, b\", private"], "x=\"a, b\", private"),
            (&["private"], "private"),
            (&["PRIVATE, max-age=60, immutable"], "PRIVATE, max-age=60, immutable"),
            (&["no-store, max-age=0"], "no-store, max-age=0"),
        ] {
            let set: Vec<_> = control.iter().map(|value| ("cache-control", *value)).collect();
            assert_eq!(values(&merged(true, &set), "Cache-Control"), [expected], "{control:?}");
            // The same goes for a cookie of the handler.
            let set = [set, vec![("set-cookie", "lang=de")]].concat();
            assert_eq!(values(&merged(false, &set), "Cache-Control"), [expected], "{control:?}");
        }
    }

    #[test]
    fn set_cookie_removes_permissions_for_shared_caches() {
        let set = [
            ("Expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
            ("CDN-Cache-Control", "max-age=60"),
            ("cloudflare-cdn-cache-control", "max-age=60"),
            ("Surrogate-Control", "max-age=60"),
            ("Edge-Control", "max-age=60"),
            ("X-Accel-Expires", "60"),
            ("Content-Type", "text/html"),
            ("ETag", "\"1\""),
            ("é-Cache-Control", "x"),
        ];
        let kept: Vec<_> = merged(true, &set).into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept, ["Content-Type", "ETag", "Cache-Control", "Vary", "Set-Cookie"]);
    }

    #[test]
    fn page_without_cookie_keeps_its_headers() {
        let set = [("Cache-Control", "public, max-age=60"), ("Expires", "0"), ("CDN-Cache-Control", "max-age=60")];
        let headers = merged(false, &set);
        for (name, value) in set {
            assert_eq!(values(&headers, name), [value]);
        }
        assert_eq!(values(&headers, "Vary"), ["Cookie"]);
    }
}
