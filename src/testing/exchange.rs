//! Requests of a [`Browser`](super::Browser) to an application, and the pages that it gets.
//!
//! The bridges to the frameworks and the tests of applications use it. Invariant: bodies and values of headers are in no `Debug`
//! text, because they may hold ids and passwords.

use std::fmt;

use serde::de::DeserializeOwned;

use super::jar::Sends;

/// A request of a [`Browser`](super::Browser).
///
/// ```
/// use threaded_sessions::testing::Request;
///
/// let request = Request::new("PUT", "/cart?page=2").with_header("Accept", "application/json").with_body("{}");
/// assert_eq!(request.path_and_query(), "/cart?page=2");
/// ```
#[derive(Clone)]
pub struct Request {
    method: String,
    pub(super) url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    pub(super) other_site: Option<String>,
}

impl Request {
    /// Creates a request for a path with an optional query, or for a whole URL.
    pub fn new(method: &str, address: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: address.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            other_site: None,
        }
    }

    /// Adds a header. It replaces the header of the same name that the browser would send.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body. Defaults to an empty one.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Makes it a request that a page of another site causes, such as `https://evil.example`.
    ///
    /// The browser then sends only the cookies whose `SameSite` allows it, `Sec-Fetch-Site: cross-site`, and the other site as
    /// `Origin`.
    #[must_use]
    pub fn from_other_site(mut self, origin: &str) -> Self {
        self.other_site = Some(origin.to_owned());
        self
    }

    /// Returns the method, such as `GET`.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the address. An application gets a whole URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address without scheme and host.
    pub fn path_and_query(&self) -> &str {
        let Some((_, rest)) = self.url.split_once("://") else { return &self.url };
        rest.find('/').map_or("/", |start| &rest[start..])
    }

    /// Returns the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Returns all headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns `true` if the method changes nothing, so that browsers send no `Origin`.
    pub(super) fn is_safe(&self) -> bool {
        ["GET", "HEAD", "OPTIONS"].contains(&&*self.method)
    }

    /// The cookies that the browser may send with it.
    pub(super) fn sends(&self) -> Sends {
        match (&self.other_site, self.is_safe()) {
            (None, _) => Sends::All,
            (Some(_), true) => Sends::LaxAndNone,
            (Some(_), false) => Sends::NoneOnly,
        }
    }

    /// Adds the headers that it does not have yet.
    pub(super) fn add_missing(&mut self, headers: &[(String, String)]) {
        let missing = headers.iter().filter(|(name, _)| find(&self.headers, name).is_none()).cloned();
        let missing: Vec<_> = missing.collect();
        self.headers.extend(missing);
    }

    /// The request that follows a redirect with this status.
    pub(super) fn redirected(mut self, status: u16) -> Self {
        let becomes_get = match status {
            303 => self.method != "HEAD",
            301 | 302 => self.method == "POST",
            _ => false,
        };
        if becomes_get {
            self.method = "GET".to_owned();
            self.body.clear();
            self.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
        }
        self
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query().split('?').next();
        let mut debug = f.debug_struct("Request");
        debug.field("method", &self.method).field("path", &path.unwrap_or_default());
        debug.field("headers", &names(&self.headers)).field("body_len", &self.body.len()).finish()
    }
}

/// A response, as a [`Browser`](super::Browser) gets it.
#[derive(Clone)]
pub struct Page {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Page {
    /// Creates a page without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Creates a page with status 200.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(200, text.into())
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the status, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Returns all headers. `Set-Cookie` may be among them several times.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the body as text.
    ///
    /// # Panics
    ///
    /// Panics if the body is not UTF-8. Take [`bytes`](Self::bytes) then.
    #[track_caller]
    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Returns the body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body as a value that was sent as JSON.
    ///
    /// # Panics
    ///
    /// Panics if the body is not the JSON of such a value.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the body is no such JSON: {error}"))
    }

    /// The address that the page redirects to.
    pub(super) fn redirect(&self) -> Option<&str> {
        self.header("Location").filter(|_| matches!(self.status, 301 | 302 | 303 | 307 | 308))
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Page");
        debug.field("status", &self.status).field("headers", &names(&self.headers));
        debug.field("body_len", &self.body.len()).finish()
    }
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

fn names(headers: &[(String, String)]) -> Vec<&str> {
    headers.iter().map(|(name, _)| &**name).collect()
}
