//! The servers of the HTTP level, each a separate process that ends when its standard input does.
//!
//! All have the same pages: `/start` stores the payload in a new session, `/count` adds one to its counter, `/value` shows the
//! counter, and `/plain` needs no session.

mod actix;
mod axum;
mod own;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, io, process, thread};

use super::measure::{Place, go};
use super::stores::keys;
use super::support::{PATIENCE, RedisServer, eventually};

/// The argument with which this program is started again as one of the servers.
pub(crate) const SERVE: &str = "--serve";

/// A server and how it is started.
pub(crate) struct Kind {
    /// As it stands in the chart.
    pub(crate) library: &'static str,
    command: fn() -> Command,
    /// A file that is there if the server is installed.
    needs: Option<&'static str>,
}

/// The first one is the one that the ratios refer to.
pub(crate) const KINDS: [Kind; 6] = [
    Kind { library: "this crate, rouille", command: || own("rouille"), needs: None },
    Kind { library: "this crate, tiny_http", command: || own("tiny_http"), needs: None },
    Kind { library: "actix-session", command: || own("actix"), needs: None },
    Kind { library: "tower-sessions, axum", command: || own("axum"), needs: None },
    Kind { library: "connect-redis, express", command: node, needs: Some("node/node_modules/connect-redis") },
    Kind { library: "Flask-Session, gunicorn", command: python, needs: Some("python/venv/bin/gunicorn") },
];

/// Serves, as one of the servers in Rust.
pub(crate) fn serve(name: &str, port: u16, url: &str) {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0)
    });
    match name {
        "rouille" => own::rouille(port, url),
        "tiny_http" => own::tiny_http(port, url),
        "actix" => actix::serve(port, url),
        "axum" => axum::serve(port, url),
        _ => panic!("there is no server {name}"),
    }
}

fn own(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.args([SERVE, name]);
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(folder().join("node/server.js")).env("NODE_ENV", "production");
    command
}

fn python() -> Command {
    let mut command = Command::new(folder().join("python/venv/bin/gunicorn"));
    command.current_dir(folder().join("python")).args(["--config", "gunicorn.conf.py", "server:app"]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A server that runs. It ends with this value, and with this process at the latest.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts the server on the cores that Redis does not have. `None` if it is not installed.
    pub(crate) fn start(kind: &Kind, redis: &RedisServer) -> Option<Self> {
        if kind.needs.is_some_and(|file| !folder().join(file).exists()) {
            return None;
        }
        go(Place::Apart, redis);
        let address = free();
        let (port, url) = (address.port().to_string(), redis.url());
        let mut command = (kind.command)();
        if kind.needs.is_none() {
            command.args([&port, &url]);
        }
        command.env("PORT", port).env("REDIS_URL", url).env("PAYLOAD", serde_json::Value::from(keys()).to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it can be started");
        let started = eventually(PATIENCE, || {
            let ended = process.try_wait().expect("it is a child");
            assert_eq!(ended, None, "{} ended", kind.library);
            TcpStream::connect(address).is_ok()
        });
        assert!(started, "{} does not listen", kind.library);
        Some(Self { process, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if !eventually(PATIENCE, || !matches!(self.process.try_wait(), Ok(None))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// An address that is free.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}
