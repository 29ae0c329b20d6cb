//! The JSON API, without the framework that carries it.

use serde::Serialize;
use serde_json::json;
use threaded_sessions::store::Health;
use threaded_sessions::{Error, ErrorPage, Failure, ReaperStats, Session};

use super::{Item, Sessions, Shopper, sign_in};

/// The call that a request makes.
pub(crate) enum Call {
    Session,
    Hit,
    Login(String),
    Add(String),
    Logout,
    /// Ends a session that cannot be read.
    StartOver,
    Health,
}

/// The response to a call.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// JSON, or nothing.
    pub(crate) body: String,
    /// The methods of the `Allow` header.
    pub(crate) allow: Option<&'static str>,
}

impl Reply {
    fn new(status: u16, body: impl Serialize) -> Self {
        Self { status, body: serde_json::to_string(&body).expect("it has string keys"), allow: None }
    }

    fn session(shopper: &Shopper) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            user: Option<&'a str>,
            hits: u64,
            cart: Vec<&'a str>,
        }
        let cart = shopper.cart.iter().map(|item| &*item.name).collect();
        Self::new(200, Body { user: shopper.user.as_deref(), hits: shopper.hits, cart })
    }

    fn error(status: u16, error: &str) -> Self {
        Self::new(status, json!({ "error": error }))
    }

    pub(crate) fn no_content() -> Self {
        Self { status: 204, body: String::new(), allow: None }
    }

    /// For a change that was dropped.
    fn conflict() -> Self {
        Self::error(409, "another request renewed or ended the session")
    }

    /// For a call that failed.
    pub(crate) fn error_page(failure: &Failure) -> ErrorPage {
        let reply = match failure.status() {
            409 => Self::conflict(),
            503 => Self::error(503, "sessions are unavailable, try again in a moment"),
            status => Self::error(status, "the call failed"),
        };
        ErrorPage::json(reply.body).with_status(reply.status)
    }

    /// The state of the store, and that of the reaper if the program passes it.
    pub(crate) fn health(health: &Health, reaper: Option<ReaperStats>) -> Self {
        let mut body = json!({
            "healthy": health.is_healthy(),
            "failing_for_ms": health.failing_for.map(|time| time.as_millis() as u64),
            "last_error": health.last_error,
            "connections": {
                "in_use": health.connections_in_use,
                "idle": health.connections_idle,
                "max": health.connections_max,
            },
            "operations": { "answered": health.answered, "repeated": health.repeated, "failed": health.failed },
        });
        if let Some(reaper) = reaper {
            body["reaper"] = json!(reaper);
        }
        Self::new(if health.is_healthy() { 200 } else { 503 }, body)
    }
}

impl Call {
    /// Reads method and target of a request; the error is the reply to one that is no call.
    pub(crate) fn parse(method: &str, target: &str) -> Result<Self, Reply> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            let value = form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
            let value = value.map(|(_, value)| value.into_owned()).filter(|value| (1..=200).contains(&value.len()));
            value.ok_or_else(|| Reply::error(400, &format!("the parameter {name} has from 1 to 200 bytes")))
        };
        match (method, path) {
            ("GET" | "HEAD", "/api/session") => Ok(Self::Session),
            ("GET" | "HEAD", "/api/health") => Ok(Self::Health),
            ("POST", "/api/hit") => Ok(Self::Hit),
            ("POST", "/api/login") => parameter("user").map(Self::Login),
            ("POST", "/api/cart") => parameter("item").map(Self::Add),
            ("POST", "/api/logout") => Ok(Self::Logout),
            ("POST", "/api/start-over") => Ok(Self::StartOver),
            (_, "/api/session" | "/api/health") => Err(Self::not_allowed("GET, HEAD")),
            (_, "/api/hit" | "/api/login" | "/api/cart" | "/api/logout" | "/api/start-over") => {
                Err(Self::not_allowed("POST"))
            }
            _ => Err(Reply::error(404, "there is no such call")),
        }
    }

    fn not_allowed(allow: &'static str) -> Reply {
        Reply { allow: Some(allow), ..Reply::error(405, "not with this method") }
    }

    /// Does with the session what is asked for. [`Health`](Self::Health) and [`StartOver`](Self::StartOver) need none.
    pub(crate) fn run(self, sessions: &Sessions, shopper: &mut Session<Shopper>) -> Result<Reply, Error> {
        // However many requests of one visitor do this at once, each counts.
        let kept = match self {
            Self::Session | Self::StartOver | Self::Health => Some(()),
            Self::Hit => sessions.update_in(shopper, |shopper| shopper.hits += 1)?,
            Self::Add(name) => {
                let item = Item { name, ..Item::default() };
                sessions.update_in(shopper, |shopper| shopper.cart.push(item.clone()))?
            }
            Self::Login(user) => {
                sign_in(sessions, shopper, &user, "A program");
                Some(())
            }
            Self::Logout => {
                shopper.destroy();
                return Ok(Reply::no_content());
            }
        };
        Ok(kept.map_or_else(Reply::conflict, |()| Reply::session(shopper)))
    }
}
