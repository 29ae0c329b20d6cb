//! The clients of the HTTP level: keep-alive connections on one thread, each with one request under way at a time.
//!
//! One thread with `poll` takes less of the core that it shares with Redis than a thread for each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::support::PATIENCE;

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) cookie: Option<String>,
    pub(crate) body: String,
}

/// One keep-alive connection.
struct Browser {
    connection: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Browser {
    fn new(address: SocketAddr, path: &str, cookie: Option<&str>) -> Self {
        let connection = TcpStream::connect(address).expect("the server listens");
        connection.set_nodelay(true).expect("it is TCP");
        connection.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let cookie = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{cookie}\r\n").into_bytes();
        Self { connection, request, received: Vec::new() }
    }

    fn send(&mut self) {
        self.received.clear();
        self.connection.write_all(&self.request).expect("the server reads");
    }

    /// Reads what has arrived, and returns the response if it is complete.
    fn receive(&mut self) -> Option<Response> {
        let mut buffer = [0; 4096];
        let length = self.connection.read(&mut buffer).expect("the server responds in time");
        assert!(length > 0, "the server closed a connection: {}", String::from_utf8_lossy(&self.received));
        self.received.extend_from_slice(&buffer[..length]);
        parse(&self.received)
    }

    fn visit(&mut self) -> Response {
        self.send();
        loop {
            if let Some(response) = self.receive() {
                return response;
            }
        }
    }
}

fn parse(received: &[u8]) -> Option<Response> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&received[..end]).expect("headers are ASCII");
    let (mut length, mut cookie) = (0, None);
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        } else if name.eq_ignore_ascii_case("set-cookie") {
            cookie = value.trim().split(';').next().map(str::to_owned);
        }
    }
    let body = received.get(end..end + length)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some(Response { status, cookie, body: String::from_utf8_lossy(body).into_owned() })
}

/// One page, over a separate connection.
pub(crate) fn get(address: SocketAddr, path: &str, cookie: Option<&str>) -> Response {
    Browser::new(address, path, cookie).visit()
}

/// Browsers that are connected and have opened the page once.
pub(crate) struct Browsers(Vec<Browser>);

impl Browsers {
    /// One browser for each cookie. The browsers connect one after the other: of connections that come at once, tiny_http
    /// leaves some without a thread.
    pub(crate) fn new(address: SocketAddr, path: &str, cookies: &[Option<String>]) -> Self {
        let browser = |cookie: &Option<String>| {
            let mut browser = Browser::new(address, path, cookie.as_deref());
            let response = browser.visit();
            assert_eq!(response.status, 200, "{path}: {}", response.body);
            browser
        };
        Self(cookies.iter().map(browser).collect())
    }

    /// Opens pages for so long, and returns how many had status 200, and how long it took until the last one.
    pub(crate) fn open_pages(&mut self, time: Duration) -> (u64, f64) {
        let (began, mut done) = (Instant::now(), 0);
        let mut busy = vec![true; self.0.len()];
        self.0.iter_mut().for_each(Browser::send);
        while busy.contains(&true) {
            for number in self.ready(&busy) {
                let Some(response) = self.0[number].receive() else { continue };
                done += u64::from(response.status == 200);
                busy[number] = began.elapsed() < time;
                if busy[number] {
                    self.0[number].send();
                }
            }
        }
        (done, began.elapsed().as_secs_f64())
    }

    /// The busy browsers whose connection has something to read.
    fn ready(&self, busy: &[bool]) -> Vec<usize> {
        let waiting: Vec<usize> = (0..busy.len()).filter(|number| busy[*number]).collect();
        let entry = |number: &usize| PollFd::new(&self.0[*number].connection, PollFlags::IN);
        let mut entries: Vec<PollFd<'_>> = waiting.iter().map(entry).collect();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let count = poll(&mut entries, Some(&patience)).expect("connections can be polled");
        assert!(count > 0, "the server does not respond");
        let ready = waiting.iter().zip(&entries).filter(|(_, entry)| !entry.revents().is_empty());
        ready.map(|(number, _)| *number).collect()
    }
}
