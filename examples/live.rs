//! A page that says at once that its visitor was signed out elsewhere.
//!
//! ```text
//! cargo run --features rouille --example live
//! ```
//!
//! Open http://localhost:8000/ in two browsers, or in a window and a private window, and sign in. Then sign out everywhere in one
//! of them. Sessions live in memory, or in Redis if `REDIS_URL` is set. `ADDR` is the address to listen on.

use std::env;
use std::sync::Arc;

use rouille::{Response, router};
use threaded_sessions::rouille::{Streams, events, session, sign_in};
use threaded_sessions::{BoxError, MemorySessionStore, RedisSessionStore, SessionManager, SessionStore};

const PAGE: &str = r#"<!doctype html><title>Live</title>
<p id=state>Signed out. <form method=post action=/login><button>Sign in as Ada</button></form>
<form method=post action=/logout><button>Sign out everywhere</button></form>
<script>
const source = new EventSource("/events"), state = document.getElementById("state");
source.onopen = () => state.textContent = "Signed in.";
source.addEventListener("session-ended", event => {
    if (event.data === "renewed") return; // the source opens again, with the new cookie
    source.close();
    state.textContent = "You were signed out: " + event.data + ".";
});
</script>"#;

fn main() -> Result<(), BoxError> {
    let store: Arc<dyn SessionStore> = match env::var("REDIS_URL") {
        Ok(url) => Arc::new(RedisSessionStore::builder().url(url).expiring().hashed_keys().announce_ends().build()?),
        Err(_) => Arc::new(MemorySessionStore::new()),
    };
    let sessions = SessionManager::<u32>::new(store);
    let streams = Streams::start(&sessions)?;

    let addr = env::var("ADDR").unwrap_or_else(|_| "localhost:8000".to_owned());
    println!("listening on http://{addr}");
    rouille::start_server_with_pool(addr, None, move |request| {
        router!(request,
            (GET) (/) => { Response::html(PAGE) },
            (GET) (/events) => { events(&streams, request, |_, _| {}) },
            (POST) (/login) => {
                sign_in(&sessions, request, |visit| {
                    visit.renew();
                    visit.bind("ada", request.header("User-Agent").unwrap_or("unknown device"));
                    Response::redirect_303("/")
                })
            },
            (POST) (/logout) => {
                session(&sessions, request, |visit| {
                    if let Some(user) = visit.principal() {
                        sessions.end_all(user)?;
                    }
                    visit.destroy();
                    Ok(Response::redirect_303("/"))
                })
            },
            _ => Response::empty_404()
        )
    })
}
