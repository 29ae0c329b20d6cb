//! Forking, for tests of what a child process inherits.

use std::io::{BufRead, BufReader, Write, pipe};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use fork::{Fork, fork};

use super::PATIENCE;

/// Runs code in a child of this process. Returns its result, which is one line, or `None` if the child hangs or crashes.
///
/// The result counts as soon as it is there. The child is killed then, because a child of a process with threads may hang while
/// it exits.
pub fn in_child(code: impl FnOnce() -> String) -> Option<String> {
    let (reader, mut writer) = pipe().unwrap();
    match fork().unwrap() {
        Fork::Child => {
            drop(reader);
            let result = catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|_| "it panicked".to_owned());
            let _ = writeln!(writer, "{result}");
            std::process::exit(0);
        }
        Fork::Parent(child) => {
            drop(writer);
            let (done, result) = mpsc::channel();
            thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(reader).read_line(&mut line);
                let _ = done.send(line);
            });
            let result = result.recv_timeout(PATIENCE);
            let pid = rustix::process::Pid::from_raw(child).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = fork::waitpid(child);
            result.ok()?.strip_suffix('\n').map(str::to_owned)
        }
    }
}
