//! Serving requests with tiny_http until the host stops, whatever happens to its accepting thread.
//!
//! Programs call [`serve`] instead of a loop of their own. Invariant: while the host does not stop, connections are accepted, or
//! the function retries to accept them, or it returns an error.

use std::fs;
use std::io;
use std::net::TcpListener;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder, Scope};
use std::time::Instant;

use ::tiny_http::{Request, Server};

use crate::adapter::accept::{self, LOOK_INTERVAL, MAX_OLD_SERVERS, Pace};
use crate::args::Host;
use crate::{BoxError, Result, fence, sync};

/// How many file descriptors must be free before connections are accepted again. A connection takes two.
const SPARE_DESCRIPTORS: usize = 8;

/// Serves requests on this listener with this many threads, until the host stops.
///
/// Call [`respond`](super::respond) or [`answer`](super::answer) in the handler. Requests that were received before the host
/// stopped are still served. A handler that panics, or a response that cannot be sent, ends no thread.
///
/// tiny_http itself stops to accept connections for good if the process has no file descriptor left for a moment. This function
/// then accepts again on the same listener, as soon as descriptors are free. Connections that wait in the backlog are
/// kept. Connections that were accepted before keep their own threads.
///
/// # Examples
///
/// ```no_run
/// use clap::Parser;
/// use threaded_sessions::tiny_http::{respond, serve};
///
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     sessions: threaded_sessions::args::Args,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cli = Cli::parse();
/// let sessions = cli.sessions.manager::<u32>()?.build()?;
/// let listener = std::net::TcpListener::bind("127.0.0.1:8000")?;
/// let host = cli.sessions.host(sessions.reaper())?;
/// serve(&host, listener, 16, |request| {
///     respond(&sessions, request, |visits, _| {
///         **visits += 1;
///         tiny_http::Response::from_string(visits.to_string())
///     })
/// })?;
/// host.stop();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns [`ErrorKind::Other`](crate::ErrorKind::Other), and asks the host to stop, if the threads cannot be started, if
/// connections cannot be accepted for another reason than a shortage, or if a thread ended, and
/// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if `threads` is 0. The program should then exit with a failure.
pub fn serve(
    host: &Host,
    listener: TcpListener,
    threads: usize,
    handler: impl Fn(Request) -> io::Result<()> + Sync,
) -> Result<()> {
    accept::require_threads(host, threads)?;
    // Otherwise each look for a connection would count as a failure.
    listener.set_nonblocking(false).map_err(|error| accept::failure(error.into()))?;
    let site = Site { host, listener, threads, handler, is_broken: AtomicBool::new(false) };
    let mut servers = Vec::new();
    let served = thread::scope(|scope| {
        let served = site.supervise(scope, &mut servers);
        host.request_stop();
        servers.iter().for_each(|server| server.unblock(threads));
        served
    });
    served.map_err(|cause| {
        fence::log!(Error, "the server stops: {cause}");
        accept::failure(cause)
    })
}

/// The state that all threads of the server share.
struct Site<'h, H> {
    host: &'h Host,
    listener: TcpListener,
    threads: usize,
    handler: H,
    /// True once a thread ended by itself.
    is_broken: AtomicBool,
}

/// A server of tiny_http, with the connections that it accepted.
struct Accepting {
    server: Server,
    descriptor: Option<Descriptor>,
    /// True once tiny_http has reported that it accepts no more. `why` has the reason until it is logged.
    failed: AtomicBool,
    why: Mutex<Option<io::Error>>,
    retired: AtomicBool,
}

impl<H: Fn(Request) -> io::Result<()> + Sync> Site<'_, H> {
    /// Starts a server, and another one each time that the last one does not accept any more, until the host stops.
    fn supervise<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        servers: &mut Vec<Arc<Accepting>>,
    ) -> Result<(), BoxError> {
        self.start(scope, servers)?;
        let mut pace = Pace::new(Instant::now());
        while !self.host.is_stopping() {
            thread::sleep(LOOK_INTERVAL);
            if self.is_broken.load(Ordering::Relaxed) {
                return Err(accept::thread_ended());
            }
            let Some(last) = servers.last().filter(|last| !last.accepts()) else { continue };
            if pace.is_due(Instant::now(), sync::lock(&last.why).take())? {
                let outcome = self.start(scope, servers);
                pace.restarted(Instant::now(), outcome)?;
            }
        }
        Ok(())
    }

    /// Starts a server with new threads. The older servers keep their threads.
    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        servers: &mut Vec<Arc<Accepting>>,
    ) -> Result<(), BoxError> {
        let accepting = Arc::new(Accepting::new(&self.listener)?);
        for started in 0..self.threads {
            let worker = accepting.clone();
            match Builder::new().spawn_scoped(scope, move || self.work(&worker)) {
                Ok(_) => (),
                Err(error) if started == 0 => return Err(error.into()),
                Err(error) => {
                    fence::log!(Warn, "only {started} of {} threads could be started: {error}", self.threads);
                    break;
                }
            }
        }
        servers.push(accepting);
        if servers.len() > MAX_OLD_SERVERS {
            servers.remove(0).retire(self.threads);
        }
        Ok(())
    }

    fn work(&self, accepting: &Accepting) {
        let unless_it_returns = OnDrop(|| self.is_broken.store(true, Ordering::Relaxed));
        loop {
            match accepting.server.recv() {
                Ok(request) => self.handle(request),
                Err(_) if self.host.is_stopping() || accepting.retired.load(Ordering::Relaxed) => break,
                Err(error) => accepting.fail(error),
            }
        }
        std::mem::forget(unless_it_returns);
    }

    fn handle(&self, request: Request) {
        // Unwind safe: whatever the handler shares with others must survive a panic anyway.
        match catch_unwind(AssertUnwindSafe(|| (self.handler)(request))) {
            Ok(Ok(())) => (),
            Ok(Err(error)) => fence::log!(Debug, "a response was not sent: {error}"),
            Err(_) => fence::log!(Error, "a handler panicked outside of `answer`"),
        }
    }
}

impl Accepting {
    fn new(listener: &TcpListener) -> Result<Self, BoxError> {
        let mut spare = (0..SPARE_DESCRIPTORS).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let listener = spare.swap_remove(0);
        drop(spare);
        let descriptor = Descriptor::of(&listener);
        let server = accept::start_threads(|| Server::from_listener(listener, None))??;
        Ok(Self {
            server,
            descriptor,
            failed: AtomicBool::new(false),
            why: Mutex::new(None),
            retired: AtomicBool::new(false),
        })
    }

    /// Returns `true` unless the accepting thread of tiny_http has ended.
    fn accepts(&self) -> bool {
        !self.failed.load(Ordering::Relaxed) && self.descriptor.as_ref().is_none_or(Descriptor::is_open)
    }

    fn fail(&self, why: io::Error) {
        *sync::lock(&self.why) = Some(why);
        self.failed.store(true, Ordering::Relaxed);
    }

    fn retire(&self, threads: usize) {
        self.retired.store(true, Ordering::Relaxed);
        self.unblock(threads);
    }

    /// Lets the threads of this server end, after the requests that it has received.
    fn unblock(&self, threads: usize) {
        (0..threads).for_each(|_| self.server.unblock());
    }
}

/// The file descriptor of a listener that the accepting thread of tiny_http owns.
///
/// The thread panics, without a report, if the last descriptor went to a connection, because a connection takes two. The end of
/// the thread closes the descriptor, which Linux shows.
struct Descriptor {
    link: PathBuf,
    socket: PathBuf,
}

impl Descriptor {
    #[cfg(target_os = "linux")]
    fn of(listener: &TcpListener) -> Option<Self> {
        let link = PathBuf::from(format!("/proc/self/fd/{}", listener.as_raw_fd()));
        let socket = fs::read_link(&link).ok()?;
        Some(Self { link, socket })
    }

    #[cfg(not(target_os = "linux"))]
    fn of(_: &TcpListener) -> Option<Self> {
        None
    }

    fn is_open(&self) -> bool {
        fs::read_link(&self.link).is_ok_and(|socket| socket == self.socket)
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
