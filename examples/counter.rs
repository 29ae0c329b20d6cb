//! Counts the pages that each visitor opens: the quick start of the README.
//!
//! ```text
//! cargo run --features rouille --example counter
//! curl -b jar -c jar http://localhost:8000/
//! ```
//!
//! Sessions live in memory, or in Redis if `REDIS_URL` is set. `ADDR` is the address to listen on.

use std::env;
use std::sync::Arc;

use env_logger::Env;
use rouille::{Response, Server};
use serde::{Deserialize, Serialize};
use threaded_sessions::rouille::session;
use threaded_sessions::{BoxError, MemorySessionStore, RedisSessionStore, SessionManager, SessionStore};

// `default` keeps sessions readable after a deploy adds a field.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Visit {
    pages: u32,
    cart: Vec<String>,
}

fn main() -> Result<(), BoxError> {
    env_logger::init_from_env(Env::default().default_filter_or("warn"));
    let store: Arc<dyn SessionStore> = match env::var("REDIS_URL") {
        Ok(url) => Arc::new(RedisSessionStore::open(&url)?),
        Err(_) => Arc::new(MemorySessionStore::new()),
    };
    let sessions = SessionManager::<Visit>::new(store);

    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    let server = Server::new(addr, move |request| {
        if request.url() != "/" {
            return Response::empty_404(); // browsers also ask for /favicon.ico
        }
        session(&sessions, request, |visit| {
            // `update_in` counts each page, even if two requests come at once.
            let pages = sessions.update_in(visit, |visit| {
                visit.pages += 1;
                visit.pages
            })?;
            Ok(Response::text(match pages {
                Some(pages) => format!("page {pages} of this visit\n"),
                None => "This visit has ended.\n".to_owned(),
            }))
        })
    })?;
    println!("listening on http://localhost:{}/", server.server_addr().port());
    server.pool_size(64).run();
    Ok(())
}
