//! A JSON API to a visitor's session, on tiny_http, with the flags that an operator wants.
//!
//! ```text
//! cargo run --features tiny-http,clap --example serve -- --insecure-cookies
//! curl -b jar -c jar -X POST http://127.0.0.1:8000/api/hit
//! curl -b jar -c jar -X POST 'http://127.0.0.1:8000/api/login?user=ada'
//! ```

mod common;

use std::net::TcpListener;
use std::process::ExitCode;

use common::api::{Call, Reply};
use common::{Cli, Sessions};
use threaded_sessions::args::Host;
use threaded_sessions::tiny_http::{answer, discard_unreadable, serve, session, sign_in};
use threaded_sessions::{BoxError, Reaper};
use tiny_http::{Header, Request, Response, ResponseBox};

const USAGE: &str = "\
GET  /api/session
POST /api/hit
POST /api/login?user=NAME
POST /api/cart?item=NAME
POST /api/logout
POST /api/start-over
GET  /api/health
";

fn main() -> ExitCode {
    common::run(host)
}

fn host(cli: Cli) -> Result<(), BoxError> {
    let sessions: Sessions = cli.sessions.manager()?.error_page(Reply::error_page).build()?;
    let listener =
        TcpListener::bind(cli.listen).map_err(|error| format!("cannot listen on {}: {error}", cli.listen))?;
    let host = cli.sessions.host(sessions.reaper())?;
    println!("listening on http://{0} (curl http://{0}/ lists the calls)", listener.local_addr()?);
    let served = serve(&host, listener, cli.threads.into(), |request| {
        answer(request, |request| route(&sessions, &host, request))
    });
    host.stop();
    Ok(served?)
}

fn route(sessions: &Sessions, host: &Host, request: &mut Request) -> ResponseBox {
    // Has nothing to do with sessions, and costs no command.
    if request.url() == "/" {
        return Response::from_string(USAGE).boxed();
    }
    let call = match Call::parse(request.method().as_str(), request.url()) {
        Ok(Call::Health) => {
            return json(&Reply::health(&sessions.health(), host.reaper().map(Reaper::stats)));
        }
        Ok(Call::StartOver) => return discard_unreadable(sessions, request, json(&Reply::no_content())),
        Ok(call) => call,
        Err(reply) => return json(&reply),
    };
    let is_sign_in = matches!(call, Call::Login(_));
    let run = |shopper: &mut _, _: &mut _| Ok(json(&call.run(sessions, shopper)?));
    if is_sign_in { sign_in(sessions, request, run) } else { session(sessions, request, run) }
}

fn json(reply: &Reply) -> ResponseBox {
    let headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
    let headers = headers.into_iter().chain(reply.allow.map(|allow| ("Allow", allow)));
    let headers = headers.map(|(name, value)| Header::from_bytes(name, value).expect("ASCII"));
    let response = Response::from_string(&*reply.body).with_status_code(reply.status);
    headers.fold(response, Response::with_header).boxed()
}
