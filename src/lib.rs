//! Server-side HTTP sessions for blocking, threaded servers: typed data, kept in Redis, without an async runtime.
//!
//! A request handler gets a [`Session<T>`](Session), which dereferences to a value of your own serde type `T`. When the
//! handler is done, a [`SessionManager<T>`](SessionManager) stores what changed, in Redis with a [`RedisSessionStore`] or in
//! this process with a [`MemorySessionStore`], and says which headers the response needs. All settings have defaults that
//! are safe to go online with.
//!
//! The README has a page to copy for rouille. The names here follow those of Clojure's rrss and ring-redis-session, which
//! this crate ports.
//!
//! # Example
//!
//! What an adapter such as `threaded_sessions::rouille` does around a handler, by hand:
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
//! /// Takes a request's `Cookie` header, and answers the page and the response's `Set-Cookie` header.
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
//! // What a browser sends back is what is in front of the first semicolon: __Host-session=ID
//! let (page, set_cookie) = handle(&sessions, set_cookie.split(';').next())?;
//! assert_eq!(page, "page 2 of this visit");
//! assert_eq!(set_cookie, None); // the browser has the cookie already
//! # Ok::<_, threaded_sessions::Error>(())
//! ```
//!
//! # The life of a session
//!
//! 1. **A visitor comes without a cookie,** or with one that no store made. The session is [new](Session::is_new) and holds
//!    `T::default()`. Nothing is stored and no cookie is set, so crawlers leave nothing behind.
//! 2. **The handler changes the value.** At [`commit`](SessionManager::commit) the session gets a [`SessionId`] of 128 random
//!    bits and is stored, and the response carries the cookie. Changed means that the value is encoded differently than
//!    before; a handler that panics changes nothing.
//! 3. **The visitor comes back.** [`open`](SessionManager::open) reads the session, and *touches* it in the same round trip:
//!    its [idle timeout](SessionManagerBuilder::idle_timeout) begins anew. A session that is only read is not stored again. What
//!    [happens](OnConflict) when two requests change it at once is a setting, and
//!    [`update`](SessionManager::update) loses nothing whatever the setting is.
//! 4. **The visitor signs in.** [`renew`](Session::renew) moves the session to a new id. The old one is dead: whoever knew it
//!    has nothing. A request that is still under way with it gets a [detached](Session::is_detached) session, which stores
//!    nothing and leaves the new cookie alone. [`bind`](Session::bind) says whose session it is.
//! 5. **The visitor wants to be remembered.** [`remember`](Session::remember) makes the cookie outlive the browser, and the
//!    session live for [`remember_for`](SessionManagerBuilder::remember_for).
//! 6. **It ends:** the visitor signs out, here ([`destroy`](Session::destroy)) or everywhere
//!    ([`end_all`](SessionManager::end_all)), does not come back before the idle timeout, or the session reaches its
//!    [lifetime](SessionManagerBuilder::lifetime). From that moment on it is absent for everybody, and a request that still
//!    holds it brings nothing back.
//! 7. **It is removed.** Redis drops the session of a *plain* store by itself. An
//!    [*expiring*](RedisSessionStoreBuilder::expiring) store and the memory store have an index: a [`Reaper`] removes what has
//!    expired, and can [tell](ReaperBuilder::on_expired) the application.
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
//! # What is where
//!
//! | to | take |
//! |---|---|
//! | serve with rouille or tiny_http | the modules `rouille` and `tiny_http` (features `rouille`, `tiny-http`) |
//! | serve with oxhttp, touche, cgi, hyper or another server on the crate `http` | the module `http` (feature `http`) |
//! | let an operator set what is an operator's business, and stop in order | the module `args` (feature `clap`) |
//! | serve with anything else, or nothing | [`SessionManager`]; its settings are [`SessionManagerBuilder`] |
//! | work with a session | [`Session`]; with named values instead of a type of one's own, [`Attributes`] |
//! | leave a message for the next page | [`Flash`], a field of your value; after a logout, [`Session::reset`] |
//! | keep sessions in Redis | [`RedisSessionStore`], [`RedisSessionStoreBuilder`]; the connections are a [`RedisPool`] |
//! | test an application without sockets | the module `testing` (feature `testing`) |
//! | keep them in the process, and test | [`MemorySessionStore`] with a [`Clock`] that tests can move |
//! | keep them elsewhere | [`SessionStore`]: its contract is the page of [`store`], its test suite is [`contract`] |
//! | encode them otherwise, or read old ones | [`Codec`], [`Json`] by default; [`SerdeCodec::migrate`](codec::SerdeCodec::migrate): the page of [`codec`] |
//! | remove what expired, and hear of it | [`Reaper`], from [`SessionManager::reaper`] |
//! | act around every operation, note the last write, encrypt | [`Step`] and [`StepStore`]: the page of [`step`] |
//! | count sessions, correct an index | [`SessionManager::count`], [`SessionManager::verify`]; more in [`SessionIndex`](store::SessionIndex) |
//! | measure operations, sessions and connections | [`Observer`], [`PrometheusText`](observer::PrometheusText): the page of [`observer`] |
//! | see how Redis is doing | [`SessionManager::check`] at the start, with its [`RedisWarning`]s; [`SessionManager::health`] from then on |
//! | list all sessions, end one by its handle, for operators | [`AllSessions`], from a store or from [`SessionManager::all`] |
//! | list and end the sessions of a user, or end everybody's | [`Session::bind`], [`SessionManager::list`] and what is beside it |
//! | know what failed | [`Error`] and its [`ErrorKind`] |
//! | let handlers fail, and make error pages | `HandlerResult`, and `SessionManagerBuilder::error_page` |
//! | name a session in logs and on pages | [`Handle`], which gives nobody the session |
//!
//! # Guides
//!
//! | to | read |
//! |---|---|
//! | take a store, set timeouts, size pool and memory | [`choosing`] |
//! | copy a login, forms, devices, an error page and more | [`recipes`] |
//! | serve with the types of the crate `http` | [`servers`] |
//! | test an application, or a store of one's own | [`testing`] |
//! | run it: metrics, logs, keys, Redis's settings, deploys | [`operating`] |
//! | run it on one server, Sentinel or a cluster, over TLS | [`topologies`] |
//! | know what happens when Redis is slow, away, restarted or demoted | [`outages`] |
//! | read hot sessions without a command | [`near_cache`] |
//! | see it measured by OWASP, requirement by requirement | [`security`] |
//! | move from rrss or ring-redis-session | [`migrating`] |
//! | know what others can that this crate cannot, and the reverse | [`comparison`] |
//! | know how it works inside, and which file does what | [`design`] |
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
//! | `clap` | the module `args`: flags and environment variables for programs that host sessions, and their orderly end |
//! | `testing` | the module `testing`: a browser that keeps cookies, for the tests of applications |
//! | `metrics` | `observer::MetricsObserver`, which feeds the recorder of the `metrics` crate |
//! | `near-cache` | `NearCache`, a copy of hot sessions in the process |
//! | `msgpack` | `MessagePack`, a codec beside [`Json`] |
//! | `encryption` | `step::Encrypted`, a step that encrypts payloads |
//! | `tls-rustls` | Redis over TLS, trusting the system's certificate authorities |
//! | `tls-rustls-webpki-roots` | the same, trusting Mozilla's |
//!
//! # Logging
//!
//! Through the [`log`](https://docs.rs/log) crate, in records of these levels. The [guide to operating](operating#what-is-logged) lists all
//! texts, their targets and their key-value pairs.
//!
//! | level | what |
//! |---|---|
//! | `error` | a request that failed for another reason than an outage, with method, path and error; a server that stops; a callback for expired or ended sessions that panicked, once |
//! | `warn` | a request that an adapter rejected because it comes from another origin, or whose change was lost; Redis is away, or the reaper or a listener fails: once, when it begins; what [`check`](RedisSessionStore::check) of a Redis says at the start of a host, and that one keeps sessions in memory; a session whose payload cannot be read and that is passed over, by its handle, and one whose removal a step refused; sessions beyond a principal's cap that could not be ended yet; how many requests failed during an outage, at most every ten seconds; a server that accepts no connections |
//! | `info` | Redis is back, the reaper or a listener works again, or connections are accepted again |
//! | `debug` | each request that failed during an outage; clean-up that did not succeed |
//!
//! Nothing is logged for an operation that succeeds. Session ids, payloads, values and passwords are in no record, in no
//! [`Error`] and in no `Debug` text, and nor are principals. Handles, addresses of servers, the origin of a rejected
//! request, the path of a failed one, the errors of its handler and what Redis says of a failure may be.
//!
//! # Versions
//!
//! - **The crate** follows semantic versioning. `redis` and `r2d2`, which it re-exports, are part of its interface, and so are
//!   `http` 1 with its feature, [`Bytes`](store::Bytes) of `bytes` 1, and the `Value` of `serde_json` 1 in [`Attributes::iter`].
//! - **Stored sessions** outlive a release. Their layout, the [`Envelope`](codec::Envelope), carries a version of its own,
//!   now 1. A release that writes another one reads the one before, so that nobody is logged out by an upgrade. A payload of a
//!   newer version than a program knows is refused with [`ErrorKind::Payload`] and left as it is. Names of keys change in
//!   breaking releases only.
//! - **Rust:** 1.88 or newer. A release that needs a newer one is a minor release, never a patch, and the changelog says so.
//! - **Redis:** 7.0 or newer, or Valkey.

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

/// The guides: pages of the documentation, and nothing of the compiled crate.
macro_rules! guides {
    ($($name:ident: $text:literal,)*) => {$(
        #[cfg(any(doc, doctest))]
        #[doc = include_str!($text)]
        pub mod $name {}
    )*};
}

guides! {
    choosing: "../docs/choosing.md",
    comparison: "../docs/comparison.md",
    design: "../docs/design.md",
    migrating: "../docs/migrating.md",
    near_cache: "../docs/near-cache.md",
    operating: "../docs/operating.md",
    outages: "../docs/outages.md",
    security: "../docs/security.md",
    topologies: "../docs/topologies.md",
}

// Its snippets need these features to run.
#[cfg(any(all(doc, not(doctest)), all(doctest, feature = "clap", feature = "rouille", feature = "testing")))]
#[doc = include_str!("../docs/recipes.md")]
pub mod recipes {}

// Its snippets need this feature.
#[cfg(any(all(doc, not(doctest)), all(doctest, feature = "http")))]
#[doc = include_str!("../docs/servers.md")]
pub mod servers {}

// With the feature `testing`, the guide is part of the page of that module.
#[cfg(all(any(doc, doctest), not(feature = "testing")))]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

/// Whether requests from other sites carry the cookie; for [`SessionManagerBuilder::same_site`].
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
pub use self::adapter::{ErrorPage, Failure, HandlerError, HandlerResponse, HandlerResult, IntoHandlerResult};
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
