//! Runs a reaper in a second process, which a test can kill.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use threaded_sessions::{ExpiredSession, Handle, RedisSessionStore};

use super::idle_for;
use crate::support::PATIENCE;

/// Another process with reapers on the same sessions: this very test binary, running the same test. It reaps back to back
/// until its stdin is closed, or it is killed.
pub struct Other {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Other {
    /// `test` has to begin with [`Other::is_this`].
    pub fn start(test: &str, url: &str, prefix: &str, partitions: u32, batch: usize) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("REAP", format!("{url} {prefix} {partitions} {batch}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let other = Self { process, stdin, lines };
        while other.lines.recv_timeout(PATIENCE).expect("the other process starts") != "reaping" {}
        other
    }

    /// Runs the reaper if this is the other process, and then returns `true`.
    #[must_use]
    pub fn is_this() -> bool {
        let Ok(orders) = env::var("REAP") else { return false };
        let [url, prefix, partitions, batch] = orders.split(' ').collect::<Vec<_>>()[..] else { panic!("{orders}") };
        let builder = RedisSessionStore::builder().url(url).prefix(prefix).deadline(PATIENCE);
        let store = builder.partitions(partitions.parse().unwrap()).expiring().build().unwrap();
        let sessions = idle_for(store, PATIENCE);
        let (closed, batch) = (AtomicBool::new(false), batch.parse().unwrap());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let callback =
                        |session: ExpiredSession<u64>| println!("\nexpired {} {}", session.handle, session.data);
                    let reaper = sessions.reaper().batch(batch).resolution(Duration::from_millis(1));
                    let reaper = reaper.gentle(false).on_expired(callback).start().unwrap();
                    while !closed.load(Ordering::Relaxed) {
                        reaper.reap_now().unwrap();
                    }
                    // `reap_now` returns only after all callbacks.
                    reaper.reap_now().unwrap();
                });
            }
            println!("\nreaping");
            io::stdin().lines().count();
            closed.store(true, Ordering::Relaxed);
        });
        true
    }

    /// Waits until it has removed something.
    pub fn wait_for_an_event(&self) {
        while !self.lines.recv_timeout(PATIENCE).expect("the other process reaps").starts_with("expired ") {}
    }

    /// Stops the process in order, and returns the sessions that its callbacks got.
    pub fn finish(mut self) -> Vec<(Handle, u64)> {
        drop(self.stdin.take());
        let event = |line: String| {
            let (handle, value) = line.strip_prefix("expired ")?.split_once(' ')?;
            Some((handle.parse().unwrap(), value.parse().unwrap()))
        };
        let events = self.lines.iter().filter_map(event).collect();
        assert!(self.process.wait().unwrap().success());
        events
    }

    /// Ends it by `kill -9`.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
