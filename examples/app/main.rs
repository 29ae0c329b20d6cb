//! A to-do list with accounts, as an application would be written: sign in and be remembered, forms, a JSON API, devices,
//! administration, an error page and the state of the store for monitoring.
//!
//! ```text
//! cargo run --features clap,rouille,testing --example app -- --remember-for 30d
//! ```
//!
//! Open http://localhost:8000/ and sign in as `ada` with the password `secret`, or as `root` with `admin`.

mod pages;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use rouille::input::json_input;
use rouille::{Request, Response, post_input, router, try_or_400};
use serde::{Deserialize, Serialize};
use threaded_sessions::args::Args;
use threaded_sessions::rouille::{discard_unreadable, serve, session, sign_in};
use threaded_sessions::{
    BoxError, Error, ErrorKind, Flash, HandlerResult, Result, Session, SessionManager, SessionManagerBuilder,
};

/// A to-do list with accounts
#[derive(Parser)]
#[command(mut_arg("expiring", |flag| flag.default_value("true")))] // only such a store keeps owners
struct Cli {
    /// Where to listen, IP:PORT; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: String,

    #[command(flatten)]
    sessions: Args,
}

fn main() -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("warn"));
    let Err(error) = run(threaded_sessions::args::parse::<Cli>()) else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run(cli: Cli) -> Result<(), BoxError> {
    let app = App::new(cli.sessions.manager()?)?;
    let host = cli.sessions.host(app.sessions.reaper())?;
    let listening = |address: SocketAddr| println!("listening on http://localhost:{}/", address.port());
    let served = serve(&host, &*cli.listen, 16, listening, move |request| app.respond(request));
    host.stop();
    Ok(served?)
}

/// A real application keeps hashes of the passwords, made for example by Argon2, in its database.
const USERS: [(&str, &str); 2] = [("ada", "secret"), (ADMINISTRATOR, "admin")];
const ADMINISTRATOR: &str = "root";

/// The value in the session of a visitor. The owner of the session is the user who is signed in.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Visit {
    items: Vec<String>,
    message: Flash<String>,
}

struct App {
    sessions: SessionManager<Visit>,
}

impl App {
    /// Fails on a plain Redis store, which an operator gets with `--expiring=false`: it cannot limit the sessions of a user.
    fn new(sessions: SessionManagerBuilder<Visit>) -> Result<Self> {
        Ok(Self { sessions: sessions.max_per_principal(10).error_page(pages::error).build()? })
    }

    fn respond(&self, request: &Request) -> Response {
        router!(request,
            (GET) (/) => { self.home(request) },
            (POST) (/items) => { self.add(request) },
            (GET) (/login) => { pages::login("") },
            (POST) (/login) => { self.log_in(request) },
            (POST) (/logout) => { self.log_out(request) },
            (POST) (/start-over) => { discard_unreadable(&self.sessions, request, Response::redirect_303("/")) },
            (GET) (/account) => { self.account(request) },
            (POST) (/account/end) => { self.end_device(request) },
            (GET) (/admin) => { self.admin(request, |_| Ok(())) },
            (POST) (/admin/end) => { self.lock_out(request) },
            (GET) (/api/items) => { session(&self.sessions, request, |visit| Response::json(&visit.items)) },
            (POST) (/api/items) => { self.add_by_api(request) },
            // Has no session, so it costs no command and also works during an outage.
            (GET) (/health) => { Response::json(&self.sessions.health()) },
            _ => Response::empty_404()
        )
    }

    fn home(&self, request: &Request) -> Response {
        session(&self.sessions, request, |visit| {
            let message = visit.message.take();
            pages::home(visit.principal(), &message.unwrap_or_default(), &visit.items)
        })
    }

    fn add(&self, request: &Request) -> Response {
        let form = try_or_400!(post_input!(request, { item: String }));
        session(&self.sessions, request, |visit| {
            self.push(visit, &form.item)?;
            Ok(Response::redirect_303("/"))
        })
    }

    fn add_by_api(&self, request: &Request) -> Response {
        let item: String = try_or_400!(json_input(request));
        session(&self.sessions, request, |visit| Ok(Response::json(&self.push(visit, &item)?)))
    }

    /// Adds an item to the latest version of the list, so that parallel requests lose none.
    fn push(&self, visit: &mut Session<Visit>, item: &str) -> Result<Vec<String>> {
        let items = self.sessions.update_in(visit, |visit| {
            visit.items.push(item.to_owned());
            visit.items.clone()
        })?;
        items.ok_or_else(|| Error::new(ErrorKind::Conflict, "adding an item"))
    }

    fn log_in(&self, request: &Request) -> Response {
        let form = try_or_400!(post_input!(request, { user: String, password: String, stay: bool }));
        if !USERS.contains(&(&form.user, &form.password)) {
            return pages::login("The name or the password is wrong.").with_status_code(401);
        }
        sign_in(&self.sessions, request, |visit| {
            visit.renew();
            visit.restart_lifetime();
            visit.bind(form.user, request.header("User-Agent").unwrap_or("unknown device"));
            visit.remember(form.stay);
            Response::redirect_303("/")
        })
    }

    fn log_out(&self, request: &Request) -> Response {
        session(&self.sessions, request, |visit| {
            visit.reset();
            visit.message.set("You are signed out.".to_owned());
            Response::redirect_303("/")
        })
    }

    /// Runs a handler for a user who is signed in. Other visitors have to sign in first.
    fn signed_in<H>(&self, request: &Request, handler: H) -> Response
    where
        H: FnOnce(&mut Session<Visit>, &str) -> HandlerResult<Response>,
    {
        session(&self.sessions, request, |visit| match visit.principal().map(str::to_owned) {
            Some(user) => handler(visit, &user),
            None => Ok(Response::redirect_303("/login")),
        })
    }

    fn account(&self, request: &Request) -> Response {
        self.signed_in(request, |visit, user| Ok(pages::account(visit, &self.sessions.list(user)?)))
    }

    fn end_device(&self, request: &Request) -> Response {
        let form = try_or_400!(post_input!(request, { device: String }));
        let device = try_or_400!(form.device.parse());
        self.signed_in(request, |_, user| {
            self.sessions.end(user, device)?;
            Ok(Response::redirect_303("/account"))
        })
    }

    /// Does what an administrator asks for, and shows the page for administrators.
    fn admin(&self, request: &Request, action: impl FnOnce(&SessionManager<Visit>) -> Result<()>) -> Response {
        self.signed_in(request, |_, user| {
            if user != ADMINISTRATOR {
                return Ok(Response::text("This page is for administrators.").with_status_code(403));
            }
            action(&self.sessions)?;
            Ok(pages::admin(self.sessions.count()?))
        })
    }

    fn lock_out(&self, request: &Request) -> Response {
        let form = try_or_400!(post_input!(request, { user: String }));
        self.admin(request, |sessions| sessions.end_all(&form.user).map(drop))
    }
}
