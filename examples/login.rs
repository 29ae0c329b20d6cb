//! Signs visitors in and out.
//!
//! ```text
//! cargo run --features rouille --example login
//! curl -b jar -c jar -d user=ada http://localhost:8000/login
//! curl -b jar -c jar http://localhost:8000/whoami
//! curl -b jar -c jar -X POST http://localhost:8000/logout
//! ```
//!
//! Sessions live in memory, or in Redis if `REDIS_URL` is set; `ADDR` is the address to listen on.

use std::env;
use std::sync::Arc;

use rouille::{Response, post_input, router, try_or_400};
use serde::{Deserialize, Serialize};
use threaded_sessions::rouille::{session, sign_in};
use threaded_sessions::{MemorySessionStore, RedisSessionStore, Result, SessionManager, SessionStore};

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Visit {
    user: Option<String>,
}

fn main() -> Result<()> {
    let store: Arc<dyn SessionStore> = match env::var("REDIS_URL") {
        Ok(url) => Arc::new(RedisSessionStore::open(&url)?),
        Err(_) => Arc::new(MemorySessionStore::new()),
    };
    let sessions = SessionManager::<Visit>::builder(store).build()?;

    let addr = env::var("ADDR").unwrap_or_else(|_| "localhost:8000".to_owned());
    println!("listening on http://{addr}; in another terminal:");
    println!("curl -b jar -c jar -d user=ada http://{addr}/login");
    println!("curl -b jar -c jar http://{addr}/whoami");
    println!("curl -b jar -c jar -X POST http://{addr}/logout");
    rouille::start_server_with_pool(addr, None, move |request| {
        router!(request,
            (POST) (/login) => {
                let form = try_or_400!(post_input!(request, { user: String }));
                sign_in(&sessions, request, |visit| {
                    // A new id, so that the old id, which an attacker may know, is not signed in.
                    visit.renew();
                    visit.restart_lifetime();
                    visit.user = Some(form.user);
                    Response::text("signed in\n")
                })
            },
            (GET) (/whoami) => {
                session(&sessions, request, |visit| match &visit.user {
                    Some(user) => Response::text(format!("{user}\n")),
                    None => Response::text("nobody\n").with_status_code(401),
                })
            },
            (POST) (/logout) => {
                session(&sessions, request, |visit| {
                    visit.destroy();
                    Response::text("signed out\n")
                })
            },
            _ => Response::empty_404()
        )
    })
}
