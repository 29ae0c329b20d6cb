//! Code that the programs `serve` and `shop` share: the command line, the value of a session, and the JSON API.

pub(crate) mod api;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use log::{LevelFilter, Log, Metadata, Record};
use serde::{Deserialize, Serialize};
use threaded_sessions::args::Args;
use threaded_sessions::{BoxError, Flash, Session, SessionManager};

pub(crate) type Sessions = SessionManager<Shopper>;

/// A small site with sessions, and a JSON API to them under /api
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Listen at this address, IP:PORT; port 0 is any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,

    /// How many requests to serve at once
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) threads: u8,

    #[command(flatten)]
    pub(crate) sessions: Args,
}

/// The value of a visitor's session.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Shopper {
    pub(crate) user: Option<String>,
    pub(crate) hits: u64,
    pub(crate) cart: Vec<Item>,
    /// A message for the next page.
    pub(crate) notice: Flash<String>,
}

#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) cut: Cut,
}

#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Cut {
    pub(crate) metres: u32,
    pub(crate) gift: bool,
}

impl Default for Cut {
    fn default() -> Self {
        Self { metres: 100, gift: false }
    }
}

/// Signs the visitor in under a new id, so that the old id, which an attacker may know, is not signed in.
pub(crate) fn sign_in(sessions: &Sessions, shopper: &mut Session<Shopper>, user: &str, device: &str) {
    shopper.renew();
    shopper.user = Some(user.to_owned());
    // A plain Redis store does not know whose a session is.
    if sessions.store().index().is_some() {
        shopper.bind(user, device);
    }
}

/// Runs a program. If it fails, prints the reason to stderr.
pub(crate) fn run<C: Parser>(program: impl FnOnce(C) -> Result<(), BoxError>) -> ExitCode {
    log::set_logger(&Stderr).expect("no other code sets a logger");
    log::set_max_level(LevelFilter::Info);
    let Err(error) = program(threaded_sessions::args::parse::<C>()) else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("threaded_sessions")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}
