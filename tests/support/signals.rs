//! Signals that interrupt the system calls of threads, as a timer or a child process that ends does.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::gettid;

/// Which threads get the signals.
#[derive(Clone, Copy, PartialEq)]
pub enum Victims {
    /// The one that started them.
    ThisThread,
    /// All of the process.
    AllThreads,
}

/// Interrupts threads every 10 ms, until it is dropped. The handler has `SA_RESTART`, and does nothing.
pub struct Signals {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Signals {
    pub fn start(victims: Victims) -> Self {
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::default()).unwrap();
        let (stop, victim) = (Arc::new(AtomicBool::new(false)), gettid());
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    match victims {
                        Victims::ThisThread => signal(victim),
                        Victims::AllThreads => signal_all(round),
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let signals = Self { stop, sender: Some(sender) };
        signals.assert_interrupt_this_thread();
        signals
    }

    /// A bare socket with a timeout returns from a read, which shows that the signals arrive.
    fn assert_interrupt_this_thread(&self) {
        let (mut near, _far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::Interrupted);
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.sender.take().unwrap().join();
    }
}

/// The kernel prefers the thread whose id is given in place of that of the process.
fn signal(thread: Pid) {
    // A thread may have ended by now.
    let _ = kill_process(thread, Signal::USR1);
}

/// Signals all threads but this one. The process has one pending signal at most, so a signal can get lost that follows another one
/// at once. Each round begins with another thread, so each thread gets signals.
fn signal_all(round: usize) {
    let mut victims: Vec<Pid> = threads().into_iter().filter(|tid| *tid != gettid()).collect();
    let first = round % victims.len().max(1);
    victims.rotate_left(first);
    victims.into_iter().for_each(signal);
}

fn threads() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::from_raw).collect()
}
