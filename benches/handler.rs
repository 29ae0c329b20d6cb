//! Measures the time that a session adds to a handler, on the memory store. Fails if an ordinary session adds more than 5 µs to a
//! request. The cost of a larger session depends on its codec.
//!
//! ```text
//! cargo bench --all-features --bench handler
//! ```

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use threaded_sessions::{MemorySessionStore, Session, SessionManager};

const LIMIT: Duration = Duration::from_micros(5);

/// A round runs each of a pair in turn, so that whatever disturbs the machine disturbs both. Most rounds are short enough to
/// escape other programs, and the median is one of these.
const ROUNDS: usize = 5000;
const REQUESTS: u32 = 20;

#[derive(Clone, Default, Deserialize, Serialize)]
struct Visit {
    user: Option<String>,
    count: u64,
    cart: Vec<Item>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Item {
    name: String,
    price: u32,
    tags: Vec<String>,
}

fn main() -> ExitCode {
    let sessions = SessionManager::<Visit>::new(MemorySessionStore::new());
    println!("{:<40} {:>10} {:>10} {:>10} {:>7}", "µs a request", "bare", "session", "added", "ratio");
    let mut slowest = Duration::ZERO;
    for (items, visitor) in [(0, "no"), (3, "ordinary"), (16, "1 KiB")] {
        let cookie = if items == 0 { String::new() } else { visit(&sessions, items) };
        for (change, does) in [(false, "read"), (true, "changed")] {
            if change && items == 0 {
                continue;
            }
            let handle = move |visit: &mut Session<Visit>| {
                if change {
                    visit.count += 1;
                }
                visit.count.min(1) as u16 + 200
            };
            for (adapter, times) in
                [("rouille", rouille(&sessions, &cookie, handle)), ("tiny_http", tiny_http(&sessions, &cookie, handle))]
            {
                let added = report(&format!("{adapter}, {visitor} session {does}"), times);
                if items <= 3 {
                    slowest = slowest.max(added);
                }
            }
        }
    }
    if slowest <= LIMIT { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The cookie of a visitor with this many items in his cart.
fn visit(sessions: &SessionManager<Visit>, items: u32) -> String {
    let item = |n| Item { name: format!("Item number {n}"), price: 100 * n, tags: vec!["blue".into(), "wool".into()] };
    let mut session = sessions.fresh();
    *session = Visit { user: Some("ada".into()), count: 1, cart: (0..items).map(item).collect() };
    let committed = sessions.commit(session).expect("memory serves");
    format!("__Host-session={}", committed.id().expect("it is stored").expose())
}

fn rouille(
    sessions: &SessionManager<Visit>,
    cookie: &str,
    handle: impl Fn(&mut Session<Visit>) -> u16,
) -> [Duration; 2] {
    use rouille::{Request, Response};

    let headers = vec![("Host".into(), "localhost".into()), ("Cookie".into(), cookie.into())];
    let request = Request::fake_http("GET", "/", headers, Vec::new());
    let respond = |status| Response::text("hello").with_status_code(status);
    compare(
        || drop(black_box(respond(black_box(200)))),
        || drop(black_box(threaded_sessions::rouille::session(sessions, &request, |visit| respond(handle(visit))))),
    )
}

fn tiny_http(
    sessions: &SessionManager<Visit>,
    cookie: &str,
    handle: impl Fn(&mut Session<Visit>) -> u16,
) -> [Duration; 2] {
    use tiny_http::{Header, Request, Response, TestRequest};

    let header = |name: &str, value: &str| Header::from_bytes(name, value).expect("ASCII");
    let headers = [header("Host", "localhost"), header("Cookie", cookie)];
    let mut request = Request::from(headers.into_iter().fold(TestRequest::new(), TestRequest::with_header));
    let respond = |status: u16| Response::from_string("hello").with_status_code(status);
    compare(
        || drop(black_box(respond(black_box(200)).boxed())),
        || {
            let handler = |visit: &mut Session<Visit>, _: &mut Request| respond(handle(visit));
            drop(black_box(threaded_sessions::tiny_http::session(sessions, &mut request, handler)));
        },
    )
}

/// The median time of one call of each.
fn compare(mut bare: impl FnMut(), mut session: impl FnMut()) -> [Duration; 2] {
    let time = |run: &mut dyn FnMut()| {
        let began = Instant::now();
        (0..REQUESTS).for_each(|_| run());
        began.elapsed() / REQUESTS
    };
    let (mut times, mut others): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| (time(&mut bare), time(&mut session))).unzip();
    [&mut times, &mut others].map(|times| *times.select_nth_unstable(ROUNDS / 2).1)
}

fn report(what: &str, [bare, session]: [Duration; 2]) -> Duration {
    let added = session.saturating_sub(bare);
    let [b, s, a] = [bare, session, added].map(|time| time.as_secs_f64() * 1e6);
    println!("{what:<40} {b:>10.2} {s:>10.2} {a:>10.2} {:>7.1}", s / b);
    added
}
