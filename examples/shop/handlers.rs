//! The handlers of pages, forms and the API: what they do with the visitor's session.
//!
//! The routes in `main` call them. Invariant: a form changes nothing without the token of the session, and a failure shows a
//! page that says what was changed.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use rouille::{Request, Response, ResponseBody};
use threaded_sessions::rouille::{error_response, session, sign_in as open_for_sign_in, try_session};
use threaded_sessions::{BoundSession, Error, ErrorKind, ErrorPage, Failure, OpenMode, Session};

use crate::common::api::{Call, Reply};
use crate::common::{Cut, Item, Shopper, sign_in};
use crate::page::{self, Body, View};
use crate::{Place, Shop, account, goods, story};

/// The path of the page that a form leads to; `None` if another request ended or renewed the session.
type Next = Result<Option<&'static str>, Error>;

/// The fields of a form.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the form of a request. It is empty if it is larger than any of the shop.
    fn read(request: &Request) -> Self {
        const LIMIT: usize = 4096;
        let mut body = Vec::new();
        let whole = request.data().is_some_and(|data| data.take(LIMIT as u64 + 1).read_to_end(&mut body).is_ok());
        if !whole || body.len() > LIMIT {
            return Self(Vec::new());
        }
        Self(form_urlencoded::parse(&body).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }
}

impl Shop {
    /// Shows a page of the visitor's session.
    pub(crate) fn show(
        &self,
        request: &Request,
        body: impl FnOnce(&Session<Shopper>) -> Result<Body, Error>,
    ) -> Response {
        session(&self.sessions, request, |shopper| {
            // A detached session cannot act. The browser is about to get the cookie of the renewed one.
            let is_detached = shopper.is_detached();
            let token = if is_detached { String::new() } else { shopper.csrf_token()? };
            let notice = if is_detached { None } else { shopper.notice.take() };
            let body = body(shopper)?;
            let handle = self.sessions.handle(shopper);
            let host = request.header("Host").unwrap_or_default();
            let (place, is_live) = (&*self.place, self.streams.is_some());
            Ok(html(page::page(&body, &View { shopper, handle, notice, token, host, place, is_live })))
        })
    }

    /// Does what a form asks for, and leads on to the page that shows it.
    pub(crate) fn act(&self, request: &Request, action: impl FnOnce(&mut Session<Shopper>, &Form) -> Next) -> Response {
        let form = Form::read(request);
        let done = try_session(&self.sessions, OpenMode::Use, request, |shopper| {
            // Another site does not know the token. After a session has ended, the tokens of its pages are rejected.
            if !form.get("token").is_some_and(|token| shopper.verify_csrf(token)) {
                shopper
                    .notice
                    .set("Your session had ended, so nothing was changed. You can simply start again.".into());
                return Ok(Response::redirect_303("/"));
            }
            Ok(match action(shopper, &form)? {
                // A script shows the change itself.
                Some(_) if form.get("script").is_some() => Response::empty_204(),
                Some(next) => Response::redirect_303(next),
                None => lost(),
            })
        });
        match done {
            Ok((_, committed)) if committed.outcome().is_lost() => lost(),
            Ok((response, _)) => response,
            Err(failure) => self.failed(request, &failure, &form),
        }
    }

    /// The response to a form that failed, which the visitor can send again.
    fn failed(&self, request: &Request, failure: &Failure, form: &Form) -> Response {
        let path = request.url();
        let page = page::failed(failure.kind(), story::changed(), Some((&*path, &*form.0)), &self.place);
        Response { data: ResponseBody::from_string(page), ..error_response(&self.sessions, failure) }
    }

    pub(crate) fn add(&self, shopper: &mut Session<Shopper>, form: &Form) -> Next {
        let Some(name) = form.get("item").filter(|item| goods::is_sold(item)) else { return Ok(Some("/")) };
        let metres = form.get("metres").and_then(|metres| metres.parse().ok()).unwrap_or(100);
        let cut = Cut { metres: metres.clamp(1, 1000), gift: form.get("gift").is_some() };
        let item = Item { name: name.to_owned(), cut };
        self.change(shopper, "/", |shopper| {
            shopper.cart.push(item.clone());
            shopper.notice.set(format!("{} is in your cart.", item.name));
        })
    }

    pub(crate) fn remove(&self, shopper: &mut Session<Shopper>, form: &Form) -> Next {
        let row = form.get("row").and_then(|row| row.parse().ok()).unwrap_or(usize::MAX);
        self.change(shopper, "/cart", |shopper| {
            // Only if that row still is what the visitor saw there.
            if shopper.cart.get(row).is_some_and(|item| form.get("item") == Some(&*item.name)) {
                shopper.cart.remove(row);
            }
        })
    }

    pub(crate) fn stitch(&self, shopper: &mut Session<Shopper>) -> Next {
        self.change(shopper, "/#stitches", |shopper| shopper.hits += 1)
    }

    /// Changes the session, however many other requests do so at once.
    fn change(&self, shopper: &mut Session<Shopper>, next: &'static str, change: impl FnMut(&mut Shopper)) -> Next {
        Ok(self.sessions.update_in(shopper, change)?.map(|()| next))
    }

    pub(crate) fn sign_in(&self, shopper: &mut Session<Shopper>, form: &Form, request: &Request) -> Next {
        let user = form.get("user").map(str::trim).unwrap_or_default();
        if !(1..=40).contains(&user.chars().count()) {
            shopper.notice.set("A name has from 1 to 40 characters.".into());
            return Ok(Some("/sign-in"));
        }
        sign_in(&self.sessions, shopper, user, &account::device(request.header("User-Agent").unwrap_or_default()));
        shopper.remember(form.get("remember").is_some());
        Ok(Some("/account"))
    }

    /// The message needs a session, so a new one begins.
    pub(crate) fn sign_out(&self, shopper: &mut Session<Shopper>) -> Next {
        shopper.reset();
        shopper.notice.set("You are signed out. See you soon!".into());
        Ok(Some("/"))
    }

    pub(crate) fn sign_out_there(&self, shopper: &mut Session<Shopper>, form: &Form) -> Next {
        let handle = form.get("session").and_then(|handle| handle.parse().ok());
        if let (Some(principal), Some(handle)) = (shopper.principal(), handle) {
            let notice = match self.sessions.end(principal, handle)? {
                true => "That device is signed out.",
                false => "That device was signed out already.",
            };
            shopper.notice.set(notice.into());
        }
        Ok(Some("/account"))
    }

    pub(crate) fn sign_out_everywhere(&self, shopper: &mut Session<Shopper>) -> Next {
        self.sessions.end_others(shopper)?;
        shopper.reset();
        shopper.notice.set("You are signed out everywhere.".into());
        Ok(Some("/"))
    }

    /// Returns where the visitor is signed in, or `None` if the store has no index.
    pub(crate) fn devices(&self, shopper: &Session<Shopper>) -> Result<Option<Vec<BoundSession>>, Error> {
        shopper.principal().map(|principal| self.sessions.list(principal)).transpose()
    }

    /// Takes the shop's own Redis away, or brings it back. Needs no session, because there is none then.
    pub(crate) fn switch_redis(&self, path: &str, request: &Request) -> Option<Response> {
        let Place::OwnRedis(redis) = &*self.place else { return None };
        if self.sessions.check_cross_origin(request.method(), request.raw_url(), request.headers()).is_err() {
            return Some(
                html(page::failed(Some(ErrorKind::CrossOrigin), story::changed(), None, &self.place))
                    .with_status_code(403),
            );
        }
        if path == "/redis/take-away" {
            redis.take_away();
        } else if let Err(error) = redis.bring_back() {
            eprintln!("error: {error}");
        } else {
            self.wait_until_healthy();
        }
        Some(Response::redirect_303("/"))
    }

    /// Waits until the circuit breaker has noticed that Redis is back.
    fn wait_until_healthy(&self) {
        let began = Instant::now();
        while !self.sessions.health().is_healthy() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn api(&self, request: &Request) -> Response {
        let call = match Call::parse(request.method(), request.raw_url()) {
            Ok(Call::Health) => return json(&Reply::health(&self.sessions.health(), None)),
            Ok(Call::StartOver) => {
                return threaded_sessions::rouille::discard_unreadable(
                    &self.sessions,
                    request,
                    json(&Reply::no_content()),
                );
            }
            Ok(call) => call,
            Err(reply) => return json(&reply),
        };
        let is_sign_in = matches!(call, Call::Login(_));
        let run = |shopper: &mut _| Ok(json(&call.run(&self.sessions, shopper)?));
        if is_sign_in { open_for_sign_in(&self.sessions, request, run) } else { session(&self.sessions, request, run) }
    }
}

fn lost() -> Response {
    html(page::lost(story::changed())).with_status_code(409)
}

fn json(reply: &Reply) -> Response {
    let response = Response::from_data("application/json", &*reply.body)
        .with_status_code(reply.status)
        .with_additional_header("Cache-Control", "no-store");
    match reply.allow {
        Some(allow) => response.with_additional_header("Allow", allow),
        None => response,
    }
}

/// The headers of all pages.
const PAGE_HEADERS: [(&str, &str); 3] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
];

pub(crate) fn html(page: String) -> Response {
    let add = |response: Response, (name, value)| response.with_additional_header(name, value);
    PAGE_HEADERS.into_iter().fold(Response::html(page), add)
}

/// A page in the place of one that failed.
pub(crate) fn error_page(failure: &Failure, place: &Place) -> ErrorPage {
    if failure.path().starts_with("/api/") {
        return Reply::error_page(failure);
    }
    let page = page::failed(failure.kind(), story::changed(), None, place);
    let add = |page: ErrorPage, (name, value)| page.with_header(name, value);
    PAGE_HEADERS.into_iter().fold(ErrorPage::html(page), add)
}
