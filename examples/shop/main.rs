//! A demo shop on rouille. It shows the promises of sessions with a cart, a counter, signing in and out, here or
//! everywhere, and a panel with what each click did. The JSON API of `serve` is there as well.
//!
//! ```text
//! cargo run --features rouille,clap --example shop -- --insecure-cookies --own-redis
//! ```
//!
//! Then open http://127.0.0.1:8000/ in a browser. `handlers` connects the routes with the visitor's session, `goods` and
//! `account` are the pages in the frame of `page`, `panel` shows the events of `story`, `live` reports the end of a session, and
//! `redis` is the server that visitors can take away. Invariant: only a browser on this machine can take Redis away, and only
//! a Redis that the shop started.

mod account;
#[path = "../common/mod.rs"]
mod common;
mod goods;
mod handlers;
mod html;
mod live;
mod page;
mod panel;
mod redis;
mod story;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use common::{Cli, Sessions};
use page::Body;
use redis::OwnRedis;
use rouille::{Request, Response};
use story::{Recorder, Stories};
use threaded_sessions::rouille::{discard_unreadable, serve};
use threaded_sessions::{BoxError, RedisSessionStore, SessionManager};

/// A shop to click through, with sessions, and a JSON API to them under /api
#[derive(Parser)]
#[command(version)]
struct ShopCli {
    #[command(flatten)]
    cli: Cli,

    /// Start a Redis for the sessions, which visitors can take away and bring back
    #[arg(long, conflicts_with = "redis_url")]
    own_redis: bool,
}

/// Where the sessions are.
pub(crate) enum Place {
    Memory {
        has_redis: bool,
    },
    /// A Redis that the shop did not start.
    Redis,
    OwnRedis(OwnRedis),
}

impl Place {
    fn start(args: &ShopCli) -> Result<Self, BoxError> {
        if args.cli.sessions.redis().is_some() {
            return Ok(Self::Redis);
        }
        if !args.own_redis {
            return Ok(Self::Memory { has_redis: redis::is_installed() });
        }
        if !args.cli.listen.ip().is_loopback() {
            return Err(
                "--own-redis needs a loopback address to listen at, because visitors can take Redis away".into()
            );
        }
        match OwnRedis::start()? {
            Some(redis) => Ok(Self::OwnRedis(redis)),
            None => {
                eprintln!(
                    "warning: this machine has no redis-server, so sessions live in memory; get it: {}",
                    redis::INSTALL
                );
                Ok(Self::Memory { has_redis: false })
            }
        }
    }

    fn name(&self, has_index: bool) -> &'static str {
        match (self, has_index) {
            (Self::Memory { .. }, _) => "memory",
            (Self::OwnRedis(_), _) => "a Redis of the shop’s own",
            (Self::Redis, true) => "Redis, with an index",
            (Self::Redis, false) => "Redis, without an index",
        }
    }

    fn has_lost_redis(&self) -> bool {
        matches!(self, Self::OwnRedis(redis) if redis.is_away())
    }
}

/// The state that all requests share.
pub(crate) struct Shop {
    sessions: Sessions,
    stories: Stories,
    /// `None` if the store does not announce the ends of sessions.
    streams: Option<live::Streams>,
    place: Arc<Place>,
}

fn main() -> ExitCode {
    common::run(host)
}

fn host(args: ShopCli) -> Result<(), BoxError> {
    let flags = &args.cli.sessions;
    let place = Arc::new(Place::start(&args)?);
    let builder = match &*place {
        Place::OwnRedis(redis) => {
            let store = RedisSessionStore::builder().url(redis.url()).expiring().announce_ends().build()?;
            flags.apply(SessionManager::builder(store))
        }
        Place::Redis | Place::Memory { .. } => flags.manager()?,
    };
    let (pages, closing) = (place.clone(), place.clone());
    let builder = builder.observer(Arc::new(Recorder));
    let sessions = builder.error_page(move |failure| handlers::error_page(failure, &pages)).build()?;
    let shop = Shop { streams: live::start(&sessions)?, sessions, stories: Stories::default(), place };
    let host = flags.host(shop.sessions.reaper())?;
    let listening = |address| println!("listening on http://{address} (open it in a browser)");
    let served = serve(&host, args.cli.listen, args.cli.threads.into(), listening, move |request| shop.route(request));
    host.stop();
    if let Place::OwnRedis(redis) = &*closing {
        redis.close();
    }
    Ok(served?)
}

impl Shop {
    fn route(&self, request: &Request) -> Response {
        let method = if request.method() == "HEAD" { "GET" } else { request.method() };
        let path = request.url();
        match (method, &*path) {
            // These have nothing to do with sessions, and cost no command.
            ("GET", "/style.css") => file("text/css; charset=utf-8", include_str!("style.css")),
            ("GET", "/script.js") => file("text/javascript; charset=utf-8", include_str!("script.js")),
            ("GET", "/icon.svg") => file("image/svg+xml", include_str!("icon.svg")),
            ("GET", "/about") => handlers::html(page::about()).with_public_cache(300),

            ("GET", "/pause") => {
                thread::sleep(Duration::from_millis(250)); // so that the script needs a connection for each request
                Response::empty_204()
            }

            // These are not part of the story in the panel.
            ("GET", "/panel") => self.panel(request),
            ("GET", "/ended") => self.ended(request),
            // From the page of a visitor whose session cannot be read.
            ("POST", "/start-over") => discard_unreadable(&self.sessions, request, Response::redirect_303("/")),
            (_, path) if path.starts_with("/api/") => self.api(request),

            (method, path) => self.stories.record(&self.sessions, request, || {
                let response = if method == "GET" { self.get(path, request) } else { self.post(path, request) };
                response.unwrap_or_else(|| handlers::html(page::not_found()).with_status_code(404))
            }),
        }
    }

    /// The pages.
    fn get(&self, path: &str, request: &Request) -> Option<Response> {
        Some(match path {
            "/" => self.show(request, |_| Ok(Body::Shop)),
            "/cart" => self.show(request, |_| Ok(Body::Cart)),
            "/sign-in" => self.show(request, |_| Ok(Body::SignIn(request.get_param("user").unwrap_or_default()))),
            "/account" => self.show(request, |shopper| {
                Ok(match shopper.user {
                    Some(_) => Body::Account(self.devices(shopper)?),
                    None => Body::SignIn(String::new()),
                })
            }),
            "/sign-out-everywhere" => {
                self.show(request, |shopper| Ok(Body::ConfirmSignOut(self.devices(shopper)?.unwrap_or_default().len())))
            }
            _ => return None,
        })
    }

    /// The forms, which all lead to a page.
    fn post(&self, path: &str, request: &Request) -> Option<Response> {
        Some(match path {
            "/cart/add" => self.act(request, |shopper, form| self.add(shopper, form)),
            "/cart/remove" => self.act(request, |shopper, form| self.remove(shopper, form)),
            "/stitch" => self.act(request, |shopper, _| self.stitch(shopper)),
            "/sign-in" => self.act(request, |shopper, form| self.sign_in(shopper, form, request)),
            "/sign-out" => self.act(request, |shopper, _| self.sign_out(shopper)),
            "/sign-out-there" => self.act(request, |shopper, form| self.sign_out_there(shopper, form)),
            "/sign-out-everywhere" => self.act(request, |shopper, _| self.sign_out_everywhere(shopper)),
            "/redis/take-away" | "/redis/bring-back" => return self.switch_redis(path, request),
            _ => return None,
        })
    }
}

fn file(kind: &'static str, content: &'static str) -> Response {
    Response::from_data(kind, content).with_public_cache(300)
}
