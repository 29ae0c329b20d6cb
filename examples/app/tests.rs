//! Whole visits to the application, without a server and without Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use threaded_sessions::step::on_write;
use threaded_sessions::testing::{Browser, Page, Request as Sent};
use threaded_sessions::{MemorySessionStore, SessionStore, StepStore};

use super::*;

const COOKIE: &str = "__Host-session";

fn app_on(store: impl SessionStore) -> App {
    App::new(SessionManager::builder(store)).expect("the settings are valid")
}

fn app() -> App {
    app_on(MemorySessionStore::new())
}

fn browser(app: &App) -> Browser<'_> {
    Browser::rouille(|request| app.respond(request)).follow_redirects(true)
}

fn log_in(browser: &mut Browser<'_>, user: &str, password: &str) -> Page {
    browser.post_form("/login", &[("user", user), ("password", password)])
}

fn add_by_api(item: &str) -> Sent {
    let request = Sent::new("POST", "/api/items").with_header("Content-Type", "application/json");
    request.with_header("Accept", "application/json").with_body(format!("{item:?}"))
}

/// Two browsers in which ada is signed in.
fn two_devices(app: &App) -> (Browser<'_>, Browser<'_>) {
    let mut devices = ["laptop", "phone"].map(|name| browser(app).with_header("User-Agent", name));
    for device in &mut devices {
        assert_eq!(log_in(device, "ada", "secret").status(), 200);
    }
    devices.into()
}

#[test]
fn form_adds_escaped_item() {
    let app = app();
    let mut visitor = browser(&app);
    assert!(visitor.get("/").header("Set-Cookie").is_none());
    assert!(visitor.post_form("/items", &[("item", "buy <tea>")]).body().contains("<li>buy &lt;tea&gt;"));
    assert!(!browser(&app).get("/").body().contains("tea"));
}

#[test]
fn parallel_requests_lose_no_item() {
    let app = app();
    let mut visitor = browser(&app);
    visitor.send(add_by_api("first"));
    thread::scope(|scope| {
        for mut tab in vec![visitor.clone(); 8] {
            scope.spawn(move || assert_eq!(tab.send(add_by_api("tea")).status(), 200));
        }
    });
    assert_eq!(visitor.get("/api/items").json::<Vec<String>>().len(), 9);
}

#[test]
fn login_keeps_items_under_new_id() {
    let app = app();
    let mut visitor = browser(&app);
    visitor.send(add_by_api("tea"));
    let mut thief = visitor.clone();
    assert_eq!(log_in(&mut visitor, "ada", "guessed").status(), 401);
    assert_eq!(visitor.cookie(COOKIE), thief.cookie(COOKIE));
    let home = log_in(&mut visitor, "ada", "secret");
    assert!(home.body().contains("ada") && home.body().contains("tea"));
    assert_ne!(visitor.cookie(COOKIE), thief.cookie(COOKIE));
    assert!(!thief.get("/").body().contains("tea"));
}

#[test]
fn remembered_visitor_survives_restart_of_browser() {
    let app = app();
    for (stay, is_remembered) in [(&[("stay", "on")][..], true), (&[], false)] {
        let mut visitor = browser(&app);
        visitor.post_form("/login", &[&[("user", "ada"), ("password", "secret")], stay].concat());
        visitor.restart();
        assert_eq!(visitor.get("/").body().contains("ada"), is_remembered);
    }
}

#[test]
fn logout_shows_message_once() {
    let app = app();
    let mut visitor = browser(&app);
    log_in(&mut visitor, "ada", "secret");
    let mut thief = visitor.clone();
    let home = visitor.post("/logout", "");
    assert!(home.body().contains("You are signed out.") && !home.body().contains("ada"));
    assert!(!visitor.get("/").body().contains("signed out"));
    assert!(!thief.get("/").body().contains("ada"));
}

#[test]
fn other_device_can_be_signed_out() {
    let app = app();
    let (mut laptop, mut phone) = two_devices(&app);
    let page = laptop.get("/account");
    assert!(page.body().contains("<li>laptop (this device)") && page.body().contains("<li>phone <form"));
    let handle = app.sessions.list("ada").unwrap().into_iter().find(|device| device.label == "phone").unwrap().handle;
    assert!(!laptop.post_form("/account/end", &[("device", &handle.to_string())]).body().contains("phone"));
    assert!(phone.get("/account").body().contains("name=password"), "the phone has to sign in");
}

#[test]
fn only_administrator_ends_sessions_of_user() {
    let app = app();
    let (mut laptop, mut phone) = two_devices(&app);
    assert_eq!(laptop.get("/admin").status(), 403);
    assert_eq!(laptop.post_form("/admin/end", &[("user", "root")]).status(), 403);
    let mut root = browser(&app);
    log_in(&mut root, "root", "admin");
    assert!(root.get("/admin").body().contains("3 sessions"));
    assert!(root.post_form("/admin/end", &[("user", "ada")]).body().contains("1 sessions"));
    for device in [&mut laptop, &mut phone] {
        assert!(!device.get("/").body().contains("ada"));
    }
}

#[test]
fn form_of_other_site_is_rejected() {
    let app = app();
    let (mut laptop, _) = two_devices(&app);
    let forged = laptop.send(Sent::new("POST", "/logout").from_other_site("https://evil.example"));
    assert_eq!((forged.status(), forged.body()), (403, "<p>This form belongs to another site."));
    assert!(laptop.get("/").body().contains("ada"));
}

#[test]
fn outage_shows_error_page_and_stores_nothing() {
    let away = Arc::new(AtomicBool::new(false));
    let switch = away.clone();
    let outage = on_write(move |operation, next| match switch.load(Ordering::Relaxed) {
        true => Err(Error::new(ErrorKind::Unavailable, "storing a session")),
        false => next.write(operation),
    });
    let app = app_on(StepStore::builder(MemorySessionStore::new()).step(outage).build().unwrap());
    let mut visitor = browser(&app);
    visitor.send(add_by_api("tea"));
    away.store(true, Ordering::Relaxed);
    let page = visitor.post_form("/items", &[("item", "milk")]);
    assert_eq!((page.status(), page.body()), (503, "<p>Please try again in a moment."));
    let reply = visitor.send(add_by_api("milk"));
    assert_eq!((reply.status(), reply.body(), reply.header("Retry-After")), (503, r#"{"error": 503}"#, Some("1")));
    assert_eq!(visitor.get("/health").status(), 200);
    assert_eq!(visitor.get("/api/items").json::<Vec<String>>(), ["tea"]);
}
