//! Starts an example program as a process, and stops it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::NamedTempFile;

use super::{Client, PATIENCE, eventually, unique};

/// The examples that are programs for operators.
pub const PROGRAMS: [&str; 2] = ["serve", "shop"];

/// The flags for a memory store, a plain and an expiring one, the latter two in the Redis at this URL.
pub fn stores(url: &str) -> [Vec<String>; 3] {
    let prefix = unique("program");
    let redis = |kind: &str| ["--redis-url", url, "--prefix", &format!("{prefix}-{kind}")].map(str::to_owned).to_vec();
    [vec![], redis("plain"), [redis("expiring"), vec!["--expiring".to_owned()]].concat()]
}

/// The process of an example that serves. Dropping the value ends the process.
pub struct Program {
    process: Child,
    address: SocketAddr,
    stderr: NamedTempFile,
}

impl Program {
    /// Starts an example on a free port, with these flags and variables, and waits until it listens.
    #[track_caller]
    pub fn start(example: &str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let stderr = NamedTempFile::new().expect("a temporary file");
        let mut command = command(example);
        if flags.contains(&"--redis-url") || variables.iter().any(|(name, _)| *name == "REDIS_URL") {
            // On a busy machine Redis may well take a second. Without Redis, the variable would be an error.
            command.env("SESSION_DEADLINE", "1m");
        }
        let mut process = command
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(stderr.reopen().expect("a second handle"))
            .spawn()
            .expect("the example can be started");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).expect("stdout can be read");
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{example} does not listen: {line}{}", contents(&stderr)));
        Self { process, address, stderr }
    }

    /// The same with the flags of a store.
    #[track_caller]
    pub fn with(example: &str, store: &[String], flags: &[&str]) -> Self {
        let store = store.iter().map(String::as_str);
        Self::start(example, &store.chain(flags.iter().copied()).collect::<Vec<_>>(), &[])
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets it have this many file descriptors from now on.
    pub fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        prlimit(Some(Pid::from_child(&self.process)), Resource::Nofile, limit).expect("it was not waited for yet");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it was not waited for yet");
    }

    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("it can be waited for")
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(PATIENCE, || {
            status = self.try_wait();
            status.is_some()
        });
        assert!(ended, "the process still runs: {}", self.stderr());
        status.unwrap()
    }

    /// Returns the output on stderr so far.
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("it said: {}", self.stderr());
        }
    }
}

/// An example with nothing of this process's environment, built as it is now.
pub fn command(example: &str) -> Command {
    static EXAMPLES: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(build);
    let mut command = Command::new(EXAMPLES.get(example).unwrap_or_else(|| panic!("there is no example {example}")));
    command.env_clear();
    command
}

/// `cargo test --test NAME` builds no examples.
fn build() -> HashMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--examples", "--all-features", "--message-format=json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the examples cannot be built");
    let messages = output.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let examples = messages.filter(|message| message["target"]["kind"][0] == "example");
    let path = |message: serde_json::Value| {
        Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
    };
    examples.filter_map(path).collect()
}

fn contents(file: &NamedTempFile) -> String {
    fs::read_to_string(file).expect("the file can be read")
}
