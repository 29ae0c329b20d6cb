//! Counts the visits of each visitor.
//!
//! ```text
//! cargo run --features rouille --example counter
//! curl -b jar -c jar http://127.0.0.1:8000/
//! ```
//!
//! Sessions live in memory, or in Redis if `REDIS_URL` is set; `ADDR` is where it listens.

use std::env;
use std::sync::Arc;

use rouille::{Response, router};
use threaded_sessions::rouille::session;
use threaded_sessions::{MemorySessionStore, RedisSessionStore, Result, SessionManager, SessionStore};

fn main() -> Result<()> {
    let store: Arc<dyn SessionStore> = match env::var("REDIS_URL") {
        Ok(url) => Arc::new(RedisSessionStore::open(&url)?),
        Err(_) => Arc::new(MemorySessionStore::new()),
    };
    // Over plain HTTP, for this example only: without it browsers send the cookie over HTTPS.
    let sessions = SessionManager::<u64>::builder(store).secure(false).build()?;

    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    println!("listening on http://{addr}; in another terminal:\ncurl -b jar -c jar http://{addr}/");
    // With a pool: `start_server` starts a thread for every request.
    rouille::start_server_with_pool(addr, None, move |request| {
        router!(request,
            (GET) (/) => {
                session(&sessions, request, |visits| {
                    **visits += 1;
                    Response::text(format!("{}\n", **visits))
                })
            },
            _ => Response::empty_404()
        )
    })
}
