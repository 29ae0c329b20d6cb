//! Forking, for tests of what a child process inherits.

use std::io::{Read, Write, pipe};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use fork::{Fork, fork};

use super::PATIENCE;

/// Runs code in a child of this process. Returns its result, or `None` if the child hangs or crashes.
pub fn in_child(code: impl FnOnce() -> String) -> Option<String> {
    let (mut reader, mut writer) = pipe().unwrap();
    match fork().unwrap() {
        Fork::Child => {
            drop(reader);
            let result = catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|_| "it panicked".to_owned());
            let _ = writer.write_all(result.as_bytes());
            std::process::exit(0);
        }
        Fork::Parent(child) => {
            drop(writer);
            let (done, result) = mpsc::channel();
            thread::spawn(move || {
                let mut text = String::new();
                let _ = done.send(reader.read_to_string(&mut text).map(|_| text));
            });
            let result = result.recv_timeout(PATIENCE);
            if result.is_err() {
                let child = rustix::process::Pid::from_raw(child).unwrap();
                rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
            }
            let _ = fork::waitpid(child);
            result.ok()?.ok()
        }
    }
}
