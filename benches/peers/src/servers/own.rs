//! This crate on rouille, as in the quick start of the README, and on tiny_http.

use std::sync::Arc;
use std::thread;

use rouille::Response;
use threaded_sessions::{RedisSessionStore, Session, SessionManager};

use crate::visit::Visit;

/// The number of threads in the quick start.
const THREADS: usize = 64;

fn manager(url: &str) -> SessionManager<Visit> {
    SessionManager::new(RedisSessionStore::open(url).expect("the server's own URL"))
}

/// The counter after the page, or `None` if the session has ended.
fn page(
    path: &str,
    sessions: &SessionManager<Visit>,
    visit: &mut Session<Visit>,
) -> threaded_sessions::Result<Option<u64>> {
    match path {
        "/start" => **visit = Visit::ordinary(),
        "/count" => {
            return sessions.update_in(visit, |visit| {
                visit.count += 1;
                visit.count
            });
        }
        _ => {}
    }
    Ok(Some(visit.count))
}

pub(crate) fn rouille(port: u16, url: &str) {
    let sessions = manager(url);
    let server = rouille::Server::new(("127.0.0.1", port), move |request| {
        let path = request.url();
        if path == "/plain" {
            return Response::text("1");
        }
        threaded_sessions::rouille::session(&sessions, request, |visit| {
            Ok(match page(&path, &sessions, visit)? {
                Some(count) => Response::text(count.to_string()),
                None => Response::text("ended").with_status_code(410),
            })
        })
    });
    server.expect("the port is free").pool_size(THREADS).run();
}

pub(crate) fn tiny_http(port: u16, url: &str) {
    let server = Arc::new(tiny_http::Server::http(("127.0.0.1", port)).expect("the port is free"));
    let sessions = manager(url);
    let work = || {
        while let Ok(request) = server.recv() {
            respond(&sessions, request);
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
}

fn respond(sessions: &SessionManager<Visit>, request: tiny_http::Request) {
    let path = request.url().to_owned();
    // A client that is gone is no error of the benchmark.
    let _ = match &*path {
        "/plain" => request.respond(tiny_http::Response::from_string("1")),
        _ => threaded_sessions::tiny_http::respond(sessions, request, |visit, _| {
            Ok(match page(&path, sessions, visit)? {
                Some(count) => tiny_http::Response::from_string(count.to_string()),
                None => tiny_http::Response::from_string("ended").with_status_code(410),
            })
        }),
    };
}
