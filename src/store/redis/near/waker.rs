//! Wakes the thread of the cache while it waits for the server.
//!
//! Reads that ask for an entry use it. Invariant: after [`Waker::wake`] the thread looks at its requests once more. A wake costs a
//! system call only if the thread may sleep.
//!
//! Only Unix can wait for a pipe and a socket at a time. Elsewhere the thread looks at its requests at intervals.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags};

use super::super::net::push::{self, PushConnection};

/// How long the thread waits at most where no request can wake it.
#[cfg(not(unix))]
const REQUEST_POLL: Duration = Duration::from_millis(5);

pub(super) struct Waker {
    is_woken: AtomicBool,
    #[cfg(unix)]
    pipe: (io::PipeReader, io::PipeWriter),
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            is_woken: AtomicBool::new(false),
            #[cfg(unix)]
            pipe: io::pipe()?,
        })
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            #[cfg(unix)]
            {
                use std::io::Write;
                // A failure costs time only, because the thread also looks at its requests at intervals.
                let _ = (&self.pipe.1).write(&[0]);
            }
        }
    }

    /// Waits for the server, for a wake, or for this time. Returns `true` if the server has sent something.
    pub(super) fn wait(&self, connection: Option<&PushConnection>, time: Duration) -> io::Result<bool> {
        let is_ready = self.wait_for_any(connection, time)?;
        self.is_woken.store(false, Ordering::Release);
        Ok(is_ready)
    }

    #[cfg(unix)]
    fn wait_for_any(&self, connection: Option<&PushConnection>, time: Duration) -> io::Result<bool> {
        use std::io::Read;
        let mut watched = vec![PollFd::new(&self.pipe.0, PollFlags::IN)];
        watched.extend(connection.map(PushConnection::watch));
        let ready = push::wait(watched, time)?;
        if ready[0] {
            let _ = (&self.pipe.0).read(&mut [0; 8]);
        }
        Ok(ready.get(1) == Some(&true))
    }

    #[cfg(not(unix))]
    fn wait_for_any(&self, connection: Option<&PushConnection>, time: Duration) -> io::Result<bool> {
        let time = time.min(REQUEST_POLL);
        let Some(connection) = connection else {
            std::thread::sleep(time);
            return Ok(false);
        };
        Ok(push::wait(vec![connection.watch()], time)?[0])
    }
}
