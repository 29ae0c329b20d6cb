//! The bridge from a [`Browser`] to a tiny_http handler, with tiny_http's requests for tests.
//!
//! Invariant: the handler gets what a server would give it, except for the socket.

use std::io::Read;

use ::tiny_http::{Header, Request, ResponseBox, TestRequest};

use super::{Browser, Page};

impl<'a> Browser<'a> {
    /// Creates a browser for a tiny_http handler that returns its response.
    ///
    /// tiny_http's requests for tests take bodies of `&'static str`, so bodies must be UTF-8 and are never freed.
    ///
    /// ```
    /// use threaded_sessions::testing::Browser;
    /// use threaded_sessions::tiny_http::session;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    /// use tiny_http::Response;
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut browser = Browser::tiny_http(|request| {
    ///     session(&sessions, request, |visits, _| {
    ///         **visits += 1;
    ///         Response::from_string(visits.to_string())
    ///     })
    /// });
    /// assert_eq!(browser.get("/").body(), "1");
    /// assert_eq!(browser.get("/").body(), "2");
    /// ```
    pub fn tiny_http(app: impl Fn(&mut Request) -> ResponseBox + Send + Sync + 'a) -> Self {
        Self::new(move |request| page(app(&mut Request::from(fake(request)))))
    }
}

fn fake(request: &super::Request) -> TestRequest {
    let method = request.method().parse().expect("a method is ASCII");
    let mut fake = TestRequest::new().with_method(method).with_path(request.path_and_query());
    if request.url().starts_with("https:") {
        fake = fake.with_https();
    }
    if !request.body().is_empty() {
        let body =
            String::from_utf8(request.body().to_vec()).expect("tiny_http's requests for tests have bodies of UTF-8");
        fake = fake.with_body(body.leak());
    }
    let header = |(name, value): (&str, &str)| Header::from_bytes(name, value).expect("a header is ASCII");
    request.headers().map(header).fold(fake, TestRequest::with_header)
}

fn page(response: ResponseBox) -> Page {
    let headers = response.headers().to_vec();
    let (status, mut body) = (response.status_code().0, Vec::new());
    response.into_reader().read_to_end(&mut body).expect("the body can be read");
    headers.iter().fold(Page::new(status, body), |page, header| {
        page.with_header(header.field.as_str().as_str(), header.value.as_str())
    })
}
