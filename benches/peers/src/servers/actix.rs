//! actix-web with actix-session, as in the documentation of its Redis store.

use actix_session::storage::RedisSessionStore;
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::{App, Error, HttpServer, web};

use crate::stores::keys;

pub(crate) fn serve(port: u16, url: &str) {
    actix_web::rt::System::new().block_on(async {
        let store = RedisSessionStore::new(url).await.expect("Redis responds");
        let key = Key::generate();
        let server = HttpServer::new(move || {
            App::new()
                .wrap(SessionMiddleware::new(store.clone(), key.clone()))
                .route("/plain", web::get().to(|| async { "1" }))
                .route("/start", web::get().to(start))
                .route("/count", web::get().to(count))
                .route("/value", web::get().to(value))
        });
        server.bind(("127.0.0.1", port)).expect("the port is free").run().await.expect("it serves");
    });
}

async fn start(session: Session) -> Result<String, Error> {
    for (key, value) in keys() {
        session.insert(key, value)?;
    }
    value(session).await
}

async fn count(session: Session) -> Result<String, Error> {
    let count = session.get::<u64>("count")?.unwrap_or_default() + 1;
    session.insert("count", count)?;
    Ok(count.to_string())
}

async fn value(session: Session) -> Result<String, Error> {
    Ok(session.get::<u64>("count")?.unwrap_or_default().to_string())
}
