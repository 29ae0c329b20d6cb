//! A small shop that a person can click through, on rouille: signing in and being remembered, a cart, a counter, signing
//! out here or everywhere, and the time left until the session ends. The JSON API of `serve` is there as well.
//!
//! ```text
//! cargo run --features rouille,clap --example shop -- --insecure-cookies --idle-timeout 5m --remember-for 30d
//! ```
//!
//! Then open http://127.0.0.1:8000/ in a browser, and again in a private window: two visitors. What they click is in `route`,
//! what they see in `page.rs`, what their session holds in `../common/mod.rs`.

#[path = "../common/mod.rs"]
mod common;
mod page;

use std::collections::HashMap;
use std::io::Read;
use std::process::ExitCode;

use common::api::{Call, Reply};
use common::{Cli, Cut, Item, Sessions, Shopper, sign_in};
use page::{Body, View};
use rouille::{Request, Response};
use threaded_sessions::rouille::{
    discard_unreadable, error_response, serve, session, sign_in as open_for_sign_in, try_session,
};
use threaded_sessions::{BoxError, Error, ErrorKind, ErrorPage, Failure, Session};

type Form = HashMap<String, String>;

fn main() -> ExitCode {
    common::run(host)
}

fn host(cli: Cli) -> Result<(), BoxError> {
    let sessions: Sessions = cli.sessions.manager()?.error_page(error_page).build()?;
    let host = cli.sessions.host(sessions.reaper())?;
    let listening = |address| println!("listening on http://{address} (open it in a browser)");
    let served = serve(&host, cli.listen, cli.threads.into(), listening, move |request| route(&sessions, request));
    host.stop();
    Ok(served?)
}

fn route(sessions: &Sessions, request: &Request) -> Response {
    let file = |kind, content: &'static str| Response::from_data(kind, content).with_public_cache(300);
    match (if request.method() == "HEAD" { "GET" } else { request.method() }, &*request.url()) {
        // These have nothing to do with sessions, and cost no command.
        ("GET", "/style.css") => file("text/css; charset=utf-8", include_str!("style.css")),
        ("GET", "/script.js") => file("text/javascript; charset=utf-8", include_str!("script.js")),
        ("GET", "/icon.svg") => file("image/svg+xml", include_str!("icon.svg")),
        ("GET", "/about") => html(page::about()).with_public_cache(300),

        ("GET", "/") => show(sessions, request, |_| Ok(Body::Shop)),
        ("GET", "/cart") => show(sessions, request, |_| Ok(Body::Cart)),
        ("GET", "/sign-in") => show(sessions, request, |_| Ok(Body::SignIn)),
        ("GET", "/account") => show(sessions, request, |shopper| {
            Ok(match (&shopper.user, shopper.principal()) {
                (Some(_), Some(principal)) => Body::Account(sessions.list(principal)?),
                (Some(_), None) => Body::Account(Vec::new()),
                (None, _) => Body::SignIn,
            })
        }),

        ("POST", "/cart/add") => act(sessions, request, |shopper, form| {
            let metres = form.get("metres").and_then(|metres| metres.parse().ok()).unwrap_or(100);
            let cut = Cut { metres: metres.clamp(1, 1000), gift: form.contains_key("gift") };
            let Some(name) = form.get("item").filter(|item| page::is_sold(item)) else { return Ok("/") };
            let item = Item { name: name.clone(), cut };
            change(sessions, shopper, |shopper| shopper.cart.push(item.clone()), "/?notice=added")
        }),
        ("POST", "/cart/remove") => act(sessions, request, |shopper, form| {
            let row = form.get("row").and_then(|row| row.parse().ok()).unwrap_or(usize::MAX);
            let remove = |shopper: &mut Shopper| {
                // Only if that row still is what the visitor saw there.
                if shopper.cart.get(row).is_some_and(|item| form.get("item") == Some(&item.name)) {
                    shopper.cart.remove(row);
                }
            };
            change(sessions, shopper, remove, "/cart")
        }),
        ("POST", "/stitch") => {
            act(sessions, request, |shopper, _| change(sessions, shopper, |shopper| shopper.hits += 1, "/#stitches"))
        }
        ("POST", "/sign-in") => act(sessions, request, |shopper, form| {
            let user = form.get("user").map(|user| user.trim()).unwrap_or_default();
            if !(1..=40).contains(&user.chars().count()) {
                return Ok("/sign-in?notice=name");
            }
            sign_in(sessions, shopper, user, &page::device(request.header("User-Agent").unwrap_or_default()));
            shopper.remember(form.contains_key("remember"));
            Ok("/account")
        }),
        ("POST", "/sign-out") => act(sessions, request, |shopper, _| {
            shopper.destroy();
            Ok("/?notice=signed-out")
        }),
        ("POST", "/sign-out-there") => act(sessions, request, |shopper, form| {
            let handle = form.get("session").and_then(|handle| handle.parse().ok());
            if let (Some(principal), Some(handle)) = (shopper.principal(), handle) {
                sessions.end(principal, handle)?;
            }
            Ok("/account")
        }),
        ("POST", "/sign-out-everywhere") => act(sessions, request, |shopper, _| {
            sessions.end_others(shopper)?;
            shopper.destroy();
            Ok("/?notice=signed-out")
        }),

        // From the page of a visitor whose session cannot be read.
        ("POST", "/start-over") => discard_unreadable(sessions, request, Response::redirect_303("/?notice=ended")),

        (_, path) if path.starts_with("/api/") => api(sessions, request),
        _ => {
            html(page::sorry("There is nothing here", "Perhaps the link was cut a little short.")).with_status_code(404)
        }
    }
}

/// Shows a page of the visitor's session.
fn show(
    sessions: &Sessions,
    request: &Request,
    body: impl FnOnce(&Session<Shopper>) -> Result<Body, Error>,
) -> Response {
    session(sessions, request, |shopper| {
        let notice = request.get_param("notice");
        // A detached session cannot act. The browser is about to get the cookie of the renewed one.
        let token = if shopper.is_detached() { String::new() } else { shopper.csrf_token()? };
        let view = View { handle: sessions.handle(shopper), notice: notice.as_deref(), token, shopper };
        Ok(html(page::page(body(shopper)?, &view)))
    })
}

/// Does what a form of ours asks for, and leads on to the page that shows it.
fn act(
    sessions: &Sessions,
    request: &Request,
    action: impl FnOnce(&mut Session<Shopper>, &Form) -> Result<&'static str, Error>,
) -> Response {
    let form = read_form(request);
    let done = try_session(sessions, request, |shopper| {
        // Another site does not know the token. After a session has ended, the tokens of its pages are refused.
        let genuine = form.get("token").is_some_and(|token| shopper.verify_csrf(token));
        Ok(Response::redirect_303(if genuine { action(shopper, &form)? } else { "/?notice=ended" }))
    });
    match done {
        Ok((_, committed)) if committed.outcome().is_lost() => Response::redirect_303(LOST),
        Ok((response, _)) => response,
        Err(failure) => error_response(sessions, &failure),
    }
}

const LOST: &str = "/?notice=lost";

/// Changes the session, however many others do so at once, and tells where to go next.
fn change(
    sessions: &Sessions,
    shopper: &mut Session<Shopper>,
    change: impl FnMut(&mut Shopper),
    next: &'static str,
) -> Result<&'static str, Error> {
    Ok(sessions.update_in(shopper, change)?.map_or(LOST, |()| next))
}

/// The fields of a form; none of what is no form of ours.
fn read_form(request: &Request) -> Form {
    const LIMIT: usize = 4096;
    let mut body = Vec::new();
    let whole = request.data().is_some_and(|data| data.take(LIMIT as u64 + 1).read_to_end(&mut body).is_ok());
    if !whole || body.len() > LIMIT {
        return Form::new();
    }
    form_urlencoded::parse(&body).into_owned().collect()
}

fn api(sessions: &Sessions, request: &Request) -> Response {
    let call = match Call::parse(request.method(), request.raw_url()) {
        Ok(Call::Health) => return json(&Reply::health(&sessions.health(), None)),
        Ok(Call::StartOver) => return discard_unreadable(sessions, request, json(&Reply::no_content())),
        Ok(call) => call,
        Err(reply) => return json(&reply),
    };
    let is_sign_in = matches!(call, Call::Login(_));
    let run = |shopper: &mut _| Ok(json(&call.run(sessions, shopper)?));
    if is_sign_in { open_for_sign_in(sessions, request, run) } else { session(sessions, request, run) }
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
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
];

fn html(page: String) -> Response {
    let add = |response: Response, (name, value)| response.with_additional_header(name, value);
    PAGE_HEADERS.into_iter().fold(Response::html(page), add)
}

/// A page in the place of one that failed.
fn error_page(failure: &Failure) -> ErrorPage {
    if failure.path().starts_with("/api/") {
        return Reply::error_page(failure);
    }
    let page = match failure.kind() {
        Some(ErrorKind::Payload) => page::start_over(),
        _ => page::sorry(
            "One moment, please",
            "Our book of visitors is out of reach. Nothing was changed; try again in a moment.",
        ),
    };
    let add = |page: ErrorPage, (name, value)| page.with_header(name, value);
    PAGE_HEADERS.into_iter().fold(ErrorPage::html(page), add)
}
