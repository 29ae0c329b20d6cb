//! The bridge from a [`Browser`] to a rouille handler, with rouille's requests for tests.
//!
//! Invariant: the handler gets what a server would give it, except for the socket.

use std::io::Read;

use ::rouille::{Request, Response};

use super::{Browser, Page};

impl<'a> Browser<'a> {
    /// Creates a browser for a rouille handler.
    ///
    /// ```
    /// use rouille::Response;
    /// use threaded_sessions::rouille::session;
    /// use threaded_sessions::testing::Browser;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let mut browser = Browser::rouille(|request| {
    ///     session(&sessions, request, |visits| {
    ///         **visits += 1;
    ///         Response::text(visits.to_string())
    ///     })
    /// });
    /// assert_eq!(browser.get("/").body(), "1");
    /// assert_eq!(browser.get("/").body(), "2");
    /// ```
    pub fn rouille(app: impl Fn(&Request) -> Response + Send + Sync + 'a) -> Self {
        Self::new(move |request| {
            let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let (method, path, body) = (request.method(), request.path_and_query(), request.body().to_vec());
            let fake = if request.url().starts_with("https:") { Request::fake_https } else { Request::fake_http };
            page(app(&fake(method, path, headers, body)))
        })
    }
}

fn page(response: Response) -> Page {
    let mut body = Vec::new();
    response.data.into_reader_and_size().0.read_to_end(&mut body).expect("the body can be read");
    let page = Page::new(response.status_code, body);
    response.headers.iter().fold(page, |page, (name, value)| page.with_header(name, value))
}
