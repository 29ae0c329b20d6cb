//! A JSON API to a visitor's session, on tiny_http, with the flags that an operator wants.
//!
//! ```text
//! cargo run --features tiny-http,clap --example serve -- --insecure-cookies
//! curl -b jar -c jar -X POST http://127.0.0.1:8000/api/hit
//! curl -b jar -c jar -X POST 'http://127.0.0.1:8000/api/login?user=ada'
//! ```

mod common;

use std::process::ExitCode;
use std::thread;

use common::api::{Call, Reply};
use common::{Cli, Sessions};
use threaded_sessions::BoxError;
use threaded_sessions::tiny_http::{answer, failure, try_session};
use tiny_http::{Header, Request, Response, ResponseBox, Server};

const USAGE: &str = "\
GET  /api/session
POST /api/hit
POST /api/login?user=NAME
POST /api/cart?item=NAME
POST /api/logout
GET  /api/health
";

fn main() -> ExitCode {
    common::run(serve)
}

fn serve(cli: Cli) -> Result<(), BoxError> {
    let sessions: Sessions = cli.sessions.manager()?.build()?;
    let server = Server::http(&cli.listen)?;
    let host = cli.sessions.host(sessions.reaper())?;
    println!("listening on http://{0} (curl http://{0}/ tells the calls)", server.server_addr());
    thread::scope(|scope| {
        for _ in 0..cli.threads {
            scope.spawn(|| {
                for request in server.incoming_requests() {
                    let sent = answer(request, |request| route(&sessions, request));
                    sent.unwrap_or_else(|error| eprintln!("an answer was not sent: {error}"));
                }
            });
        }
        host.wait();
        // Each of these ends one thread, after the requests that came before it.
        (0..cli.threads).for_each(|_| server.unblock());
    });
    host.stop();
    Ok(())
}

fn route(sessions: &Sessions, request: &mut Request) -> ResponseBox {
    // Has nothing to do with sessions, and costs no command.
    if request.url() == "/" {
        return Response::from_string(USAGE).boxed();
    }
    let call = match Call::parse(request.method().as_str(), request.url()) {
        Ok(Call::Health) => return json(&Reply::health(&sessions.store().health())),
        Ok(call) => call,
        Err(reply) => return json(&reply),
    };
    let run =
        |shopper: &mut _, _: &mut _| call.run(sessions, shopper).map_or_else(|error| failure(&error), |r| json(&r));
    match try_session(sessions, request, run) {
        Ok((_, committed)) if committed.outcome().is_lost() => json(&Reply::conflict()),
        Ok((response, _)) => response,
        Err(error) => failure(&error),
    }
}

fn json(reply: &Reply) -> ResponseBox {
    let headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
    let headers = headers.into_iter().chain(reply.allow.map(|allow| ("Allow", allow)));
    let headers = headers.map(|(name, value)| Header::from_bytes(name, value).expect("ASCII"));
    let response = Response::from_string(&*reply.body).with_status_code(reply.status);
    headers.fold(response, Response::with_header).boxed()
}
