//! Server-side HTTP sessions for blocking, threaded servers: typed data, kept in Redis, without an async runtime.
//!
//! A request handler gets a [`Session<T>`](Session), which dereferences to a value of your serde type `T`. After the handler, a
//! [`SessionManager<T>`](SessionManager) stores the changes, and returns the headers that the response needs. Sessions are kept in
//! Redis by a [`RedisSessionStore`], or in this process by a [`MemorySessionStore`]. The defaults of all settings are safe for
//! production.
//!
//! The README has a page to copy for rouille. The names follow those of Clojure's rrss and ring-redis-session, which this crate
//! ports.
//!
//! # Example
//!
//! This program calls the manager itself. An adapter such as `threaded_sessions::rouille` does this around a handler, and first
//! rejects requests from other origins. Without an adapter, call [`check_cross_origin`](SessionManager::check_cross_origin) first:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use threaded_sessions::{MemorySessionStore, Result, SessionManager};
//!
//! #[derive(Default, Deserialize, Serialize)]
//! #[serde(default)]
//! struct Visit {
//!     pages: u32,
//!     cart: Vec<String>,
//! }
//!
//! /// Takes the `Cookie` header of a request, and returns the page and the `Set-Cookie` header of the response.
//! fn handle(sessions: &SessionManager<Visit>, cookie: Option<&str>) -> Result<(String, Option<String>)> {
//!     let mut visit = sessions.open(cookie)?;
//!     visit.pages += 1;
//!     let page = format!("page {} of this visit", visit.pages);
//!     let committed = sessions.commit(visit)?;
//!     let set_cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie");
//!     Ok((page, set_cookie.map(|(_, value)| value.to_owned())))
//! }
//!
//! let sessions = SessionManager::new(MemorySessionStore::new());
//!
//! let (page, set_cookie) = handle(&sessions, None)?;
//! assert_eq!(page, "page 1 of this visit");
//! let set_cookie = set_cookie.expect("the visitor has a session now");
//! assert!(set_cookie.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"));
//!
//! // A browser sends back the part before the first semicolon: __Host-session=ID
//! let (page, set_cookie) = handle(&sessions, set_cookie.split(';').next())?;
//! assert_eq!(page, "page 2 of this visit");
//! assert_eq!(set_cookie, None); // the browser has the cookie already
//! # Ok::<_, threaded_sessions::Error>(())
//! ```
//!
//! # The life of a session
//!
//! 1. **A visitor sends no cookie,** or a cookie that no store made. The session is [new](Session::is_new) and holds
//!    `T::default()`. Nothing is stored and no cookie is set, so crawlers leave no sessions behind.
//! 2. **The handler changes the value.** At [`commit`](SessionManager::commit), the session gets a [`SessionId`] of 128 random bits
//!    and is stored, and the response sets the cookie. A value has changed if it is encoded differently than before. A handler that
//!    panics changes nothing.
//! 3. **The visitor returns.** [`open`](SessionManager::open) reads the session, and *touches* it in the same round trip: its
//!    [idle timeout](SessionManagerBuilder::idle_timeout) starts again. A session that is only read is not stored again, unless its cookie, its id or its
//!    timeouts must be renewed. The setting
//!    [`OnConflict`] decides what happens if two requests change a session at once. With every setting,
//!    [`update`](SessionManager::update) loses no change.
//! 4. **The visitor signs in.** [`renew`](Session::renew) moves the session to a new id. The old id is invalid from then on, so an
//!    attacker who knew it has no access. A concurrent request with the old id gets a [detached](Session::is_detached) session,
//!    which stores nothing and does not overwrite the new cookie. [`bind`](Session::bind) records the principal that owns the session.
//! 5. **The visitor wants to be remembered.** [`remember`](Session::remember) sets a cookie that outlives the browser, and the
//!    session lives for [`remember_for`](SessionManagerBuilder::remember_for).
//! 6. **The session ends.** The visitor signs out, here ([`destroy`](Session::destroy)) or everywhere
//!    ([`end_all`](SessionManager::end_all)), or does not return before the idle timeout, or the session reaches its
//!    [lifetime](SessionManagerBuilder::lifetime). From then on, the session is absent for all requests. A request that still holds
//!    it cannot restore it.
//! 7. **The session is removed.** Redis removes the sessions of a *plain* store by itself. An
//!    [*expiring*](RedisSessionStoreBuilder::expiring) store and the memory store have an index. A [`Reaper`] removes their expired
//!    sessions, and can [notify](ReaperBuilder::on_expired) the application.
//!
//! # Imports
//!
//! Import the names that you use. Do not write `use threaded_sessions::*`, because the modules `http`, `rouille` and
//! `tiny_http` and the re-exported crates `redis`, `r2d2` and `rustls` would hide the crates of the same names. Import a
//! function of an adapter by its full path. Then `rouille` is still the crate:
//!
#![cfg_attr(feature = "rouille", doc = "```")]
#![cfg_attr(not(feature = "rouille"), doc = "```ignore")]
//! use rouille::{Request, Response};
//! use threaded_sessions::rouille::session;
//! use threaded_sessions::{MemorySessionStore, SessionManager};
//!
//! fn page(sessions: &SessionManager<u32>, request: &Request) -> Response {
//!     session(sessions, request, |pages| Response::text(format!("{} pages", **pages)))
//! }
//!
//! let sessions = SessionManager::new(MemorySessionStore::new());
//! let request = Request::fake_http("GET", "/", vec![], vec![]);
//! assert_eq!(page(&sessions, &request).status_code, 200);
//! ```
//!
//! # Where to find things
//!
//! | to | use |
//! |---|---|
//! | serve with rouille or tiny_http | the modules `rouille` and `tiny_http` (features `rouille`, `tiny-http`) |
//! | serve with oxhttp, touche, cgi, hyper or another server on the crate `http` | the module `http` (feature `http`) |
//! | let an operator configure the program, and shut down cleanly | the module `args` (feature `clap`) |
//! | serve with another server, or without HTTP | [`SessionManager`]; its settings are [`SessionManagerBuilder`] |
//! | work with a session | [`Session`]; with named values instead of a custom type, [`Attributes`] |
//! | leave a message for the next page | [`Flash`], a field of your value; after a logout, [`Session::reset`] |
//! | keep sessions in Redis | [`RedisSessionStore`], [`RedisSessionStoreBuilder`]; the connections are a [`RedisPool`]; hot sessions also in the process, with `NearCache` (feature `near-cache`) |
//! | test an application without sockets | the module `testing` (feature `testing`) |
//! | keep sessions in the process, and in tests | [`MemorySessionStore`] with a [`Clock`] that tests can move |
//! | keep sessions elsewhere | [`SessionStore`]: its contract is the page of [`store`], its test suite is [`contract`] |
//! | encode sessions in another way, or read old ones | [`Codec`], [`Json`] by default; [`SerdeCodec::migrate`](codec::SerdeCodec::migrate): the page of [`codec`] |
//! | remove expired sessions, and be notified | [`Reaper`], from [`SessionManager::reaper`] |
//! | notice in any process that a session has ended | [`Listener`], from [`SessionManager::listener`] |
//! | run code around every operation, record the last write, encrypt | [`Step`] and [`StepStore`]: the page of [`step`] |
//! | count sessions, correct an index | [`SessionManager::count`], [`SessionManager::verify`]; more in [`SessionIndex`](store::SessionIndex) |
//! | measure operations, sessions and connections | [`Observer`], [`PrometheusText`](observer::PrometheusText): the page of [`observer`] |
//! | monitor Redis | [`SessionManager::check`] at the start, with its [`RedisWarning`]s; [`SessionManager::health`] from then on |
//! | list all sessions, end one by its handle, for operators | [`AllSessions`], from a store or from [`SessionManager::all`]; from a terminal, the program `threaded-sessions` (feature `cli`) |
//! | list and end the sessions of a user, or end all sessions | [`Session::bind`], [`SessionManager::list`] and the methods next to it |
//! | react to errors | [`Error`] and its [`ErrorKind`] |
//! | let handlers fail, and make error pages | `HandlerResult`, and `SessionManagerBuilder::error_page` |
//! | name a session in logs and on pages | [`Handle`], which gives no access to the session |
//!
//! # Guides
//!
//! | to | read |
//! |---|---|
//! | choose a store, set timeouts, size pool and memory | [`choosing`] |
//! | copy a login, forms, devices, an error page and more | [`recipes`] |
//! | serve with the types of the crate `http` | [`servers`] |
//! | test an application, or a custom store | [`testing`] |
//! | operate a program: metrics, logs, keys, Redis's settings, deploys | [`operating`] |
//! | use one server, Sentinel or a cluster, with or without TLS | [`topologies`] |
//! | learn what happens when Redis is slow, unreachable, restarted or demoted | [`outages`] |
//! | read hot sessions without a command | [`near_cache`] |
//! | check the requirements of OWASP one by one | [`security`] |
//! | move from rrss or ring-redis-session | [`migrating`] |
//! | compare this crate with others | [`comparison`] |
//! | learn how it works inside, and which file does what | [`design`] |
//!
//! # Features
//!
//! None is on by default. None changes a default or excludes another.
//!
//! | feature | adds |
//! |---|---|
//! | `http` | the module `http`: sessions for servers with the types of the crate `http` |
//! | `rouille` | the module `rouille`: sessions for rouille handlers |
//! | `tiny-http` | the module `tiny_http`: sessions for tiny_http servers |
//! | `clap` | the module `args`: flags and environment variables for programs that host sessions, and their clean shutdown |
//! | `cli` | the program `threaded-sessions` and `args::OperatorArgs`: the commands of operators |
//! | `testing` | the module `testing`: a browser that keeps cookies, for the tests of applications |
//! | `metrics` | `observer::MetricsObserver`, which feeds the recorder of the `metrics` crate |
//! | `near-cache` | `NearCache`, a copy of hot sessions in the process |
//! | `msgpack` | `MessagePack`, a codec in addition to [`Json`] |
//! | `encryption` | `step::Encrypted`, a step that encrypts payloads |
//! | `tls-rustls` | Redis over TLS, trusting the system's certificate authorities |
//! | `tls-rustls-webpki-roots` | the same, trusting Mozilla's |
//!
//! # Logging
//!
//! The crate logs through the [`log`](https://docs.rs/log) crate, at the levels `error`, `warn`, `info` and `debug`. The
//! [guide to operating](operating#what-is-logged) lists all texts, with their levels, targets and key-value pairs.
//!
//! Operations that succeed are not logged. No record, no [`Error`] and no `Debug` text holds a session id, a payload, a value, a
//! password or a principal. They may hold handles, addresses of servers, the origin of a rejected request, the path of a failed
//! request, the errors of its handler, and error replies of Redis.
//!
//! # Versions
//!
//! - **The crate** follows semantic versioning. `redis` and `r2d2`, which it re-exports, are part of its interface, and so are
//!   `http` 1 with its feature, [`Bytes`](store::Bytes) of `bytes` 1, and the `Value` of `serde_json` 1 in [`Attributes::iter`].
//! - **Stored sessions** outlive a release. Their layout, the [`Envelope`](codec::Envelope), has a separate version, now 1. A release
//!   with another layout still reads the previous one, so that an upgrade logs no visitor out. A payload of a newer version than a
//!   program knows is rejected with [`ErrorKind::Payload`] and left unchanged. Names of keys change in breaking releases only.
//! - **Rust:** 1.88 or newer. A release that needs a newer Rust is a minor release, never a patch, and the changelog mentions it.
//! - **Redis:** 7.0 or newer, or Valkey.

// docs.rs builds with nightly, which then shows the feature that each item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
mod adapter;
mod all;
mod attributes;
mod bearer;
#[cfg(feature = "clap")]
mod cli;
mod clock;
pub mod codec;
pub mod contract;
mod cookie;
mod cross_origin;
mod csrf;
mod ended;
mod error;
mod fence;
mod flash;
mod id;
mod jitter;
mod listener;
mod manager;
pub mod observer;
mod operation;
mod process;
mod reaper;
mod reason;
mod serialize;
mod session;
pub mod step;
pub mod store;
mod sync;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod worker;

/// Makes each guide a page of the documentation, and nothing of the compiled crate. Its snippets are tested if the features are on.
/// The links in `guides.md` lead to items of the crate, and those at the end of a guide, which come second, work on GitHub.
macro_rules! guides {
    ($($name:ident [$($feature:literal),*] $text:literal)*) => {$(
        #[cfg(any(all(doc, not(doctest)), all(doctest $(, feature = $feature)*)))]
        #[cfg_attr(docsrs, doc(auto_cfg = false))]
        #[doc = include_str!("guides.md")]
        #[doc = include_str!($text)]
        pub mod $name {}
    )*};
}

guides! {
    choosing ["rouille"] "../docs/choosing.md"
    comparison [] "../docs/comparison.md"
    design [] "../docs/design.md"
    migrating [] "../docs/migrating.md"
    near_cache ["near-cache"] "../docs/near-cache.md"
    operating [] "../docs/operating.md"
    outages [] "../docs/outages.md"
    recipes ["clap", "rouille", "testing"] "../docs/recipes.md"
    security [] "../docs/security.md"
    servers ["http"] "../docs/servers.md"
    topologies ["tls-rustls"] "../docs/topologies.md"
}

// With the feature `testing`, the guide is part of the page of that module.
#[cfg(all(doc, not(feature = "testing")))]
#[doc = include_str!("guides.md")]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

/// A policy for the cookie in requests from other sites; for [`SessionManagerBuilder::same_site`].
///
pub use ::cookie::SameSite;
#[cfg(feature = "tls-rustls")]
pub use rustls;
pub use {r2d2, redis};

#[cfg(feature = "http")]
#[doc(inline)]
pub use self::adapter::http;
#[cfg(feature = "rouille")]
#[doc(inline)]
pub use self::adapter::rouille;
#[cfg(feature = "tiny-http")]
#[doc(inline)]
pub use self::adapter::tiny_http;
#[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
pub use self::adapter::{
    ErrorPage, Failure, HandlerError, HandlerResponse, HandlerResult, IntoHandlerResult, OpenMode,
};
pub use self::all::{AllSessions, EndedByHandle, FoundByHandle, HandlePrefix, SessionInfo, Walk};
pub use self::attributes::Attributes;
pub use self::bearer::TOKEN_HEADER;
#[cfg(feature = "clap")]
#[doc(inline)]
pub use self::cli::args;
pub use self::clock::Clock;
#[cfg(feature = "msgpack")]
#[doc(inline)]
pub use self::codec::MessagePack;
#[doc(inline)]
pub use self::codec::{Codec, Json};
pub use self::ended::{EndReason, Ended};
pub use self::error::{BoxError, Error, ErrorKind, Result};
pub use self::flash::Flash;
pub use self::id::{Handle, InvalidHandle, InvalidId, SessionId};
pub use self::listener::{Listener, ListenerBuilder, Watch};
pub use self::manager::{
    BoundSession, Committed, OnCap, OnConflict, Outcome, SessionManager, SessionManagerBuilder, SignIn, Unreadable,
    UpdatedAll,
};
pub use self::observer::Observer;
pub use self::reaper::{ExpiredSession, Reaper, ReaperBuilder, ReaperStats};
pub use self::reason::Reason;
pub use self::session::Session;
pub use self::step::{Step, StepStore};
#[doc(inline)]
pub use self::store::SessionStore;
pub use self::store::memory::MemorySessionStore;
pub use self::store::migrating::MigratingStore;
#[cfg(feature = "near-cache")]
pub use self::store::redis::NearCache;
pub use self::store::redis::{
    Credentials, RedisConnection, RedisConnectionManager, RedisPool, RedisSessionStore, RedisSessionStoreBuilder,
    RedisWarning,
};

/// Compiles what the README shows.
#[cfg(all(doctest, feature = "rouille"))]
#[doc = include_str!("../README.md")]
struct Readme;
