//! The bridge from a [`Browser`] to a handler with the types of the crate `http`.
//!
//! Invariant: the handler gets what a server would give it, except for the socket.

use ::http::{HeaderValue, Request, Response};

use super::{Browser, Page};

impl<'a> Browser<'a> {
    /// Creates a browser for a handler with the types of the crate `http`.
    ///
    /// The address of the request has the form that most servers use: a path with an optional query.
    ///
    /// ```
    /// use http::Response;
    /// use threaded_sessions::http::session;
    /// use threaded_sessions::testing::Browser;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut browser = Browser::http(|request| {
    ///     session(&sessions, &request, |visits| {
    ///         **visits += 1;
    ///         Response::new(visits.to_string().into_bytes())
    ///     })
    /// });
    /// assert_eq!(browser.get("/").body(), "1");
    /// assert_eq!(browser.get("/").body(), "2");
    /// ```
    pub fn http(app: impl Fn(Request<Vec<u8>>) -> Response<Vec<u8>> + Send + Sync + 'a) -> Self {
        Self::new(move |request| page(app(fake(request))))
    }
}

fn fake(request: &super::Request) -> Request<Vec<u8>> {
    let builder = Request::builder().method(request.method()).uri(request.path_and_query());
    let builder = request.headers().fold(builder, |builder, (name, value)| builder.header(name, value));
    builder.body(request.body().to_vec()).expect("the method, the address and the headers are valid")
}

fn page(response: Response<Vec<u8>>) -> Page {
    let (head, body) = response.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    head.headers.iter().fold(Page::new(head.status.as_u16(), body), |page, (name, value)| {
        page.with_header(name.as_str(), &text(value))
    })
}
