//! A browser for the tests of applications: it calls a handler without a socket and keeps the cookies of the responses.
//!
//! Applications use it in their tests, through the feature `testing`. Take it as a development dependency. Together with a
//! [`MemorySessionStore`](crate::MemorySessionStore) and a [`Clock`] that the test moves, a test of a whole visit needs neither
//! Redis nor waiting.
//!
//! ```
//! use std::time::Duration;
//! use threaded_sessions::testing::{Browser, Page};
//! use threaded_sessions::{Clock, MemorySessionStore, SessionManager};
//!
//! let clock = Clock::manual();
//! let store = MemorySessionStore::new().with_clock(clock.clone());
//! let sessions = SessionManager::<u32>::builder(store)
//!     .clock(clock.clone())
//!     .idle_timeout(Duration::from_secs(600))
//!     .build()?;
//!
//! // With rouille this is `Browser::rouille`, with tiny_http `Browser::tiny_http`, with the crate `http` `Browser::http`.
//! let app = Browser::new(|request| {
//!     let mut visits = sessions.open(request.header("Cookie")).unwrap();
//!     *visits += 1;
//!     let text = visits.to_string();
//!     let committed = sessions.commit(visits).unwrap();
//!     committed.headers().fold(Page::text(text), |page, (name, value)| page.with_header(name, value))
//! });
//! let (mut ada, mut bob) = (app.clone().with_clock(clock.clone()), app.with_clock(clock.clone()));
//!
//! assert_eq!(ada.get("/").body(), "1");
//! assert_eq!(ada.get("/").body(), "2");
//! assert_eq!(bob.get("/").body(), "1");
//! clock.advance(Duration::from_secs(600));
//! assert_eq!(ada.get("/").body(), "1");
//! # Ok::<_, threaded_sessions::Error>(())
//! ```
//!
//! Invariant: a cookie reaches the application only if a browser would send it, and no value of a cookie is in a `Debug` text.
//!
#![cfg_attr(
    any(all(doc, not(doctest)), all(doctest, feature = "rouille", feature = "tiny-http")),
    doc = include_str!("guides.md"),
    doc = include_str!("../docs/testing.md")
)]

mod exchange;
#[cfg(feature = "http")]
mod http;
mod jar;
#[cfg(feature = "rouille")]
mod rouille;
#[cfg(feature = "tiny-http")]
mod tiny_http;

use std::fmt;
use std::sync::Arc;

use url::Url;

pub use self::exchange::{Page, Request};
use self::jar::{Jar, is_trustworthy};
use crate::Clock;

/// How many redirects browsers follow before they give up.
const MOST_REDIRECTS: usize = 20;

/// A visitor's browser, which calls the application as a function.
///
/// It keeps cookies by the rules of RFC 6265bis and of today's browsers:
///
/// - It rejects a cookie that breaks the rules of its prefix (`__Host-`, `__Secure-`), a `Secure` cookie from an address that is
///   not trustworthy, and `SameSite=None` or `Partitioned` without `Secure`.
/// - It sends a cookie only to the hosts of its `Domain`, below its `Path`, until `Max-Age` or `Expires` has passed on the
///   [clock](Self::with_clock) of the browser. Cookies with longer paths come first.
/// - It sends no `SameSite=Lax` cookie with a cross-site `POST`, and no `SameSite=Strict` cookie with any cross-site request. See
///   [`Request::from_other_site`].
/// - HTTPS and loopback addresses are trustworthy, as in Chromium, Firefox and curl. Safari drops `Secure` cookies from
///   `http://localhost`.
///
/// Public suffixes are not known: a cookie for `Domain=co.uk` is kept.
///
/// With each request the browser sends `Host`, `Cookie` and, to a trustworthy address, `Sec-Fetch-Site`. Unless the method is
/// `GET`, `HEAD` or `OPTIONS`, it also sends `Origin`.
///
/// A clone is another browser for the same application. It has the cookies that this browser has now, so a test can play a thief.
#[derive(Clone)]
pub struct Browser<'a> {
    app: Arc<dyn Fn(&Request) -> Page + Send + Sync + 'a>,
    origin: Url,
    headers: Vec<(String, String)>,
    follows_redirects: bool,
    jar: Jar,
}

impl<'a> Browser<'a> {
    /// Creates a browser for any application, as a function from a request to a page.
    ///
    /// For rouille, tiny_http and the types of the crate `http` take `Browser::rouille`, `Browser::tiny_http` and `Browser::http`.
    pub fn new(app: impl Fn(&Request) -> Page + Send + Sync + 'a) -> Self {
        Self {
            app: Arc::new(app),
            origin: Url::parse("http://localhost").expect("a URL"),
            headers: Vec::new(),
            follows_redirects: false,
            jar: Jar::default(),
        }
    }

    /// Sets the address of the application. Defaults to `http://localhost`.
    ///
    /// # Panics
    ///
    /// Panics if it is no URL with a host, such as `https://shop.example`.
    #[must_use]
    #[track_caller]
    pub fn with_origin(mut self, origin: &str) -> Self {
        self.origin = Url::parse(origin).unwrap_or_else(|error| panic!("{origin} is no URL: {error}"));
        assert!(self.origin.has_host(), "{origin} has no host");
        self
    }

    /// Sets the clock by which cookies expire. Defaults to the system's clock.
    ///
    /// Pass a clone of the clock that the store and the manager have.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.jar.clock = clock;
        self
    }

    /// Adds a header that is sent with every request.
    ///
    /// It replaces the header of the same name that the browser would send by itself. A header of the [`Request`] replaces both.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets whether redirects to the same origin are followed. Defaults to `false`.
    ///
    /// A redirect to another origin is always returned, because its page may belong to another application.
    #[must_use]
    pub fn follow_redirects(mut self, follow: bool) -> Self {
        self.follows_redirects = follow;
        self
    }

    /// Requests a page with `GET`.
    ///
    /// The address is a path with an optional query, or a whole URL of the application.
    ///
    /// # Panics
    ///
    /// Panics as [`send`](Self::send) does.
    #[track_caller]
    pub fn get(&mut self, address: &str) -> Page {
        self.send(Request::new("GET", address))
    }

    /// Requests a page with `POST` and a body of no declared type.
    ///
    /// # Panics
    ///
    /// Panics as [`send`](Self::send) does.
    #[track_caller]
    pub fn post(&mut self, address: &str, body: impl Into<Vec<u8>>) -> Page {
        self.send(Request::new("POST", address).with_body(body))
    }

    /// Sends a form with `POST`, as `application/x-www-form-urlencoded`.
    ///
    /// # Panics
    ///
    /// Panics as [`send`](Self::send) does.
    #[track_caller]
    pub fn post_form(&mut self, address: &str, fields: &[(&str, &str)]) -> Page {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::new("POST", address).with_header("Content-Type", "application/x-www-form-urlencoded");
        self.send(request.with_body(form))
    }

    /// Sends any request and keeps the cookies of the response.
    ///
    /// # Panics
    ///
    /// Panics if the address is invalid, if the application panics, or after more than 20 redirects.
    #[track_caller]
    pub fn send(&mut self, request: Request) -> Page {
        let mut url = self.resolve(&request.url);
        let mut request = request;
        for _ in 0..=MOST_REDIRECTS {
            let page = self.exchange(&url, &request);
            let target = page.redirect().and_then(|location| url.join(location).ok());
            match target.filter(|target| self.follows_redirects && target.origin() == url.origin()) {
                None => return page,
                Some(target) => url = target,
            }
            request = request.redirected(page.status());
        }
        panic!("more than {MOST_REDIRECTS} redirects, the last one to {}", url.path())
    }

    /// Returns the value of a cookie that the browser has for the [origin](Self::with_origin), whatever its path.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.jar.value(&self.origin, name)
    }

    /// Takes a `Set-Cookie` header as if the application had sent it, and returns `true` if the cookie is accepted.
    ///
    /// With it a test plants a cookie.
    pub fn set_cookie(&mut self, set_cookie: &str) -> bool {
        let origin = self.origin.clone();
        self.jar.take(&origin, set_cookie)
    }

    /// Closes the browser and opens it again, which removes all cookies without `Max-Age` and `Expires`.
    pub fn restart(&mut self) {
        self.jar.restart();
    }

    #[track_caller]
    fn resolve(&self, address: &str) -> Url {
        self.origin.join(address).unwrap_or_else(|error| panic!("{address} is no address: {error}"))
    }

    /// Calls the application once.
    fn exchange(&mut self, url: &Url, request: &Request) -> Page {
        let mut url = url.clone();
        url.set_fragment(None);
        let mut sent = request.clone();
        sent.url = url.to_string();
        sent.add_missing(&self.headers);
        sent.add_missing(&self.own_headers(&url, request));
        let page = (self.app)(&sent);
        for (_, set_cookie) in page.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie")) {
            self.jar.take(&url, set_cookie);
        }
        page
    }

    /// The headers that the browser sends by itself.
    fn own_headers(&self, url: &Url, request: &Request) -> Vec<(String, String)> {
        let is_ours = url.origin() == self.origin.origin();
        let other = request.other_site.as_deref();
        let cookies = self.jar.cookies_for(url, request.sends());
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let site = if other.is_none() && is_ours { "same-origin" } else { "cross-site" };
        let origin = other.map_or_else(|| self.origin.origin().ascii_serialization(), str::to_owned);
        [
            ("Host", Some(host.to_owned())),
            ("Cookie", cookies),
            ("Sec-Fetch-Site", is_trustworthy(url).then(|| site.to_owned())),
            ("Origin", (!request.is_safe()).then_some(origin)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

impl fmt::Debug for Browser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Browser");
        debug.field("origin", &self.origin.origin().ascii_serialization()).field("cookies", &self.jar);
        debug.finish_non_exhaustive()
    }
}
