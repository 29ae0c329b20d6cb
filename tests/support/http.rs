//! An HTTP client with one keep-alive connection and a cookie jar.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// A browser of sorts: one keep-alive connection, and a jar for the cookies it is given.
pub struct Client {
    address: SocketAddr,
    connection: BufReader<TcpStream>,
    pub cookies: BTreeMap<String, String>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: connect(address), cookies: BTreeMap::new() }
    }

    /// A further connection with the same cookies, which is served from now on: of several that come at once, tiny_http
    /// leaves some without a thread until others close.
    #[track_caller]
    pub fn beside(&self) -> Self {
        let mut client = Self::new(self.address);
        client.get("/");
        Self { cookies: self.cookies.clone(), ..client }
    }

    /// Does not mind a connection that was closed.
    pub fn reconnect(&mut self) {
        self.connection = connect(self.address);
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[])
    }

    #[track_caller]
    pub fn post(&mut self, path: &str) -> Response {
        self.send("POST", path, &[])
    }

    /// Sends what the browser makes of a form.
    #[track_caller]
    pub fn post_form(&mut self, path: &str, form: &str) -> Response {
        let length = form.len().to_string();
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", &length)];
        let sent = self.write("POST", path, &headers).and_then(|()| self.write_raw(form.as_bytes()));
        sent.and_then(|()| self.read("POST")).expect("a whole response")
    }

    /// Sends a request with the jar's cookies and these headers, and puts the cookies of the response into the jar.
    #[track_caller]
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_send(method, path, headers).expect("a whole response")
    }

    /// The same; an error if the connection ends before the response, and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof)
    /// if it ends within.
    pub fn try_send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        self.write(method, path, headers)?;
        self.read(method)
    }

    /// Sends a request without waiting for its response.
    pub fn write(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !jar.is_empty() {
            request += &format!("Cookie: {}\r\n", jar.join("; "));
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        self.write_raw(format!("{request}\r\n").as_bytes())
    }

    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.get_mut().write_all(bytes)
    }

    /// Reads the next response, to a request with this method.
    pub fn read(&mut self, method: &str) -> io::Result<Response> {
        let response = Response::read(&mut self.connection, method == "HEAD")?;
        for cookie in response.all("Set-Cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie has a name and a value");
            if cookie.contains("; Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    fn read(input: &mut impl BufRead, is_head: bool) -> io::Result<Self> {
        if input.fill_buf()?.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Self::read_rest(input, is_head).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        })
    }

    fn read_rest(input: &mut impl BufRead, is_head: bool) -> io::Result<Self> {
        let status_line = line(input)?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut response = Self {
            status: status.unwrap_or_else(|| panic!("a status line: {status_line:?}")),
            headers: Vec::new(),
            body: String::new(),
        };
        loop {
            let line = line(input)?;
            let Some((name, value)) = line.split_once(": ") else { break };
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        if !is_head && ![204, 304].contains(&response.status) {
            let body = match response.header("Content-Length") {
                Some(length) => take(input, length.parse().expect("a length"))?,
                None => chunks(input)?,
            };
            response.body = String::from_utf8(body).expect("text");
        }
        Ok(response)
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(set, _)| set.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The value of a header that may be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name);
        let first = all.next();
        assert_eq!(all.next(), None, "{name} is there more than once");
        first
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let whole = line.strip_suffix("\r\n").map(str::to_owned);
    whole.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn take(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn chunks(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let length = usize::from_str_radix(&line(input)?, 16).expect("the length of a chunk");
        body.extend(take(input, length)?);
        line(input)?;
        if length == 0 {
            return Ok(body);
        }
    }
}
