//! What is measured: sessions without HTTP, and pages.

use std::time::Duration;

use super::Options;
use super::browsers::{Browsers, get};
use super::measure::{Load, Place, go};
use super::report::{Report, Section};
use super::rounds::{Turn, run};
use super::servers::{KINDS, Server};
use super::stores::{Actix, Library, Operation, Own, Tower};
use super::support::RedisServer;

/// Clients of the sessions without HTTP: the length of the path, and what libraries gain from commands that share a connection.
const CLIENTS: [(Place, usize); 2] = [(Place::Together, 1), (Place::Apart, 16)];

/// Keep-alive connections of the pages.
const CONNECTIONS: usize = 32;

/// Sessions without HTTP.
pub(crate) fn stores(report: &mut Report, options: &Options, redis: &RedisServer) {
    for (place, clients) in CLIENTS {
        go(place, redis);
        let url = redis.url();
        let libraries: [(_, Box<dyn Library>); 3] = [
            ("this crate", Box::new(Own::new(&url))),
            ("actix-session", Box::new(Actix::new(&url))),
            ("tower-sessions", Box::new(Tower::new(&url))),
        ];
        let each = if options.short { 2 } else { 1000_usize.div_ceil(clients) };
        let load = Load { threads: clients, each };
        for operation in Operation::ALL {
            let turn = |library: &dyn Library| {
                redis.cmd(&["FLUSHALL"]);
                let seconds = library.turn(operation, load).as_secs_f64();
                Turn { done: (load.threads * load.each) as u64, seconds, kept: 0 }
            };
            let turn = &turn;
            let mut turns: Vec<Box<dyn FnMut() -> Turn>> = Vec::new();
            for (_, library) in &libraries {
                turns.push(Box::new(move || turn(&**library)));
            }
            let names = libraries.iter().map(|(name, _)| *name);
            let summaries = run(options.rounds, &mut turns);
            let section = Section::new(operation.name(), clients, false, names.zip(summaries));
            report.add(section);
        }
    }
}

/// A server with the cookies of its visitors.
struct Site {
    library: &'static str,
    server: Server,
    cookies: Vec<Option<String>>,
}

impl Site {
    fn new(library: &'static str, server: Server) -> Self {
        let cookie = |_| Some(get(server.address, "/start", None).cookie.expect("the visitor has a session"));
        let cookies = (0..CONNECTIONS).map(cookie).collect();
        Self { library, server, cookies }
    }

    /// The counter of the first visitor.
    fn count(&self) -> u64 {
        let response = get(self.server.address, "/value", self.cookies[0].as_deref());
        response.body.parse().expect("the page is a number")
    }

    fn turn(&self, page: Page, time: Duration) -> Turn {
        let (path, cookies) = match page {
            Page::Plain => ("/plain", vec![None; CONNECTIONS]),
            Page::Count => ("/count", self.cookies.clone()),
            Page::CountTogether => ("/count", vec![self.cookies[0].clone(); CONNECTIONS]),
        };
        let mut browsers = Browsers::new(self.server.address, path, &cookies);
        let before = self.count();
        let (done, seconds) = browsers.open_pages(time);
        Turn { done, seconds, kept: self.count() - before }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    /// Without a session.
    Plain,
    /// A counter, with a session for each connection.
    Count,
    /// A counter, with one session for all connections.
    CountTogether,
}

impl Page {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "page without a session",
            Self::Count => "counter page, a session each",
            Self::CountTogether => "counter page, one session",
        }
    }
}

/// Pages over HTTP: the servers have all cores but one, on which Redis and the browsers are.
pub(crate) fn pages(report: &mut Report, options: &Options, redis: &RedisServer) {
    redis.cmd(&["FLUSHALL"]);
    let mut sites = Vec::new();
    for kind in &KINDS {
        match Server::start(kind, redis) {
            Some(server) => sites.push(Site::new(kind.library, server)),
            None => println!("{} is not installed, and not measured", kind.library),
        }
    }
    go(Place::Together, redis);
    let time = Duration::from_millis(if options.short { 20 } else { 200 });
    for page in [Page::Plain, Page::Count, Page::CountTogether] {
        let mut turns: Vec<Box<dyn FnMut() -> Turn + '_>> = Vec::new();
        for site in &sites {
            turns.push(Box::new(move || site.turn(page, time)));
        }
        let names = sites.iter().map(|site| site.library);
        let summaries = run(options.rounds, &mut turns);
        let contended = page == Page::CountTogether;
        report.add(Section::new(page.name(), CONNECTIONS, contended, names.zip(summaries)));
    }
}
