//! The JSON API, without the framework that carries it.

use serde_json::{Value, json};
use threaded_sessions::Session;
use threaded_sessions::store::Health;

use super::{Item, Shopper, change, sign_in};

/// What a request asks for.
pub(crate) enum Call {
    Session,
    Hit,
    Login(String),
    Add(String),
    Logout,
    Health,
}

/// What it is answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    /// The methods of the `Allow` header.
    pub(crate) allow: Option<&'static str>,
}

impl Reply {
    fn new(status: u16, body: Value) -> Self {
        Self { status, body, allow: None }
    }

    fn error(status: u16, error: &str) -> Self {
        Self::new(status, json!({ "error": error }))
    }

    /// For a change that was dropped.
    pub(crate) fn conflict() -> Self {
        Self::error(409, "the session was renewed or ended meanwhile")
    }

    pub(crate) fn health(health: &Health) -> Self {
        let body = json!({
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
            (_, "/api/session" | "/api/health") => Err(Self::not_allowed("GET, HEAD")),
            (_, "/api/hit" | "/api/login" | "/api/cart" | "/api/logout") => Err(Self::not_allowed("POST")),
            _ => Err(Reply::error(404, "there is no such call")),
        }
    }

    fn not_allowed(allow: &'static str) -> Reply {
        Reply { allow: Some(allow), ..Reply::error(405, "not with this method") }
    }

    /// Does with the session what is asked for; [`Health`](Self::Health) needs none.
    pub(crate) fn run(self, shopper: &mut Session<Shopper>) -> Reply {
        match self {
            Self::Session | Self::Health => {}
            Self::Hit => change(shopper, |shopper| shopper.hits += 1),
            Self::Login(user) => sign_in(shopper, &user),
            Self::Add(name) => change(shopper, |shopper| shopper.cart.push(Item { name, ..Item::default() })),
            Self::Logout => {
                shopper.destroy();
                return Reply::new(204, Value::Null);
            }
        }
        let cart: Vec<&str> = shopper.cart.iter().map(|item| &*item.name).collect();
        Reply::new(200, json!({ "user": shopper.user, "hits": shopper.hits, "cart": cart }))
    }
}
