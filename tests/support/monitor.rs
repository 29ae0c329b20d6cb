//! Records the commands that a server runs, without those of connection setup.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use super::{PATIENCE, RedisServer, SETUP, unique};

/// The commands that a server runs for its clients, as `MONITOR` shows them.
pub struct Monitor {
    stream: TcpStream,
    marking: TcpStream,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Monitor {
    pub fn start(server: &RedisServer) -> Self {
        let connect = || TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let (stream, marking) = (connect(), connect());
        (&stream).write_all(b"MONITOR\r\n").unwrap();
        let mut input = BufReader::new(stream.try_clone().unwrap()).lines();
        assert_eq!(input.next().unwrap().unwrap(), "+OK");
        // Drained all the time: what the server had to buffer would count
        // towards its `maxmemory`.
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            input.map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        Self { stream, marking, lines, reader: Some(reader) }
    }

    /// The commands that clients ran since the start or the last call, each as
    /// its upper-case name and its arguments. Left out are what scripts call,
    /// connection set-up, `PING` and `ECHO`.
    pub fn commands(&self) -> Vec<Vec<String>> {
        // All commands before this call are in the stream before the marker.
        let marker = unique("marker");
        (&self.marking).write_all(format!("ECHO {marker}\r\n").as_bytes()).unwrap();
        let line = || self.lines.recv_timeout(PATIENCE).expect("the server is still monitored");
        std::iter::repeat_with(line)
            .filter_map(|line| parse(&line))
            .take_while(|command| command[..] != ["ECHO", &marker])
            .filter(|command| command[0] != "ECHO" && !SETUP.contains(&&*command[0]))
            .collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.reader.take().unwrap().join();
    }
}

/// Parses `+1339518083.107412 [0 127.0.0.1:60866] "get" "key"`; `None` if a
/// script, not a client, called the command.
fn parse(line: &str) -> Option<Vec<String>> {
    let (source, command) = line.split_once("] ").expect(line);
    if source.ends_with(" lua") {
        return None;
    }
    let mut bytes = command.bytes();
    let mut arguments = Vec::new();
    while bytes.any(|byte| byte == b'"') {
        arguments.push(unquote(&mut bytes).expect(line));
    }
    arguments[0].make_ascii_uppercase();
    Some(arguments)
}

/// Reads up to and including the closing quote.
fn unquote(bytes: &mut impl Iterator<Item = u8>) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let byte = match bytes.next()? {
            b'"' => return Some(String::from_utf8_lossy(&text).into_owned()),
            b'\\' => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 0x07,
                b'b' => 0x08,
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
            other => other,
        };
        text.push(byte);
    }
}
