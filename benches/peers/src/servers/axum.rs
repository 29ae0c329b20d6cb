//! axum with tower-sessions, as in the README of its Redis store.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower_sessions::{Session, SessionManagerLayer};

use crate::stores::{keys, tower};

/// The counter, or status 500.
type Page = Result<String, StatusCode>;

pub(crate) fn serve(port: u16, url: &str) {
    Runtime::new().expect("threads can be started").block_on(async {
        let layer = SessionManagerLayer::new(tower::connect(url).await).with_expiry(tower::expiry());
        let app = Router::new()
            .route("/plain", get(|| async { "1" }))
            .route("/start", get(start))
            .route("/count", get(count))
            .route("/value", get(value))
            .layer(layer);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        axum::serve(listener, app).await.expect("it serves");
    });
}

async fn start(session: Session) -> Page {
    for (key, value) in keys() {
        session.insert(&key, value).await.map_err(failed)?;
    }
    value(session).await
}

async fn count(session: Session) -> Page {
    let count = session.get::<u64>("count").await.map_err(failed)?.unwrap_or_default() + 1;
    session.insert("count", count).await.map_err(failed)?;
    Ok(count.to_string())
}

async fn value(session: Session) -> Page {
    Ok(session.get::<u64>("count").await.map_err(failed)?.unwrap_or_default().to_string())
}

fn failed(_: tower_sessions::session::Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}
