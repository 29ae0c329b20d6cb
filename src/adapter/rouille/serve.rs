//! Serving requests with rouille until the host stops, whatever happens to its accepting thread.
//!
//! Programs call [`serve`] instead of a loop of their own. Invariant: while the host does not stop, connections are accepted, or
//! the function retries to accept them, or it returns an error.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use ::rouille::{Request, Response, Server};

use crate::adapter::accept::{self, LOOK_INTERVAL, MAX_OLD_SERVERS, Pace};
use crate::args::Host;
use crate::{BoxError, Result, fence};

/// The time between two looks whether the address is in use. rouille does not report that it accepts no more.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a server that accepts no more must be idle before it may end.
const RETIRES_AFTER: Duration = Duration::from_secs(60);

/// Serves requests at this address with this many threads, until the host stops.
///
/// `listening` gets the address, with the port that the system chose for port 0. Once the host stops, requests that run are
/// finished, and later ones get status 503 with `Retry-After`.
///
/// rouille itself stops to accept connections for good if the process has no file descriptor left for a moment. This function
/// notices within a second, and listens at the address again. In between, the system refuses connections. Connections that
/// were accepted before keep their own threads. To notice, it binds the address for a moment. So a program that begins as root must
/// keep the right to bind a port below 1024.
///
/// # Examples
///
/// ```no_run
/// use clap::Parser;
/// use rouille::Response;
/// use threaded_sessions::rouille::{serve, session};
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
/// let host = cli.sessions.host(sessions.reaper())?;
/// let listening = |address| println!("listening on http://{address}");
/// serve(&host, "127.0.0.1:8000", 16, listening, move |request| {
///     session(&sessions, request, |visits| {
///         **visits += 1;
///         Response::text(visits.to_string())
///     })
/// })?;
/// host.stop();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns [`ErrorKind::Other`](crate::ErrorKind::Other), and asks the host to stop, if the server cannot be started, or started
/// again for another reason than a shortage, or if a thread ended, and
/// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if `threads` is 0. The program should then exit with a failure.
pub fn serve(
    host: &Host,
    address: impl ToSocketAddrs,
    threads: usize,
    listening: impl FnOnce(SocketAddr),
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Result<()> {
    accept::require_threads(host, threads)?;
    let site = Site { host, threads, handler: Arc::new(handler) };
    let mut servers = Vec::new();
    let served = site.supervise(address, listening, &mut servers);
    host.request_stop();
    servers.iter().for_each(|server| server.join());
    served.map_err(|cause| {
        fence::log!(Error, "the server stops: {cause}");
        accept::failure(cause)
    })
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

struct Site<'h> {
    host: &'h Host,
    threads: usize,
    handler: Arc<Handler>,
}

/// A server of rouille, with the connections that it accepted.
struct Accepting {
    address: SocketAddr,
    retired: Arc<AtomicBool>,
    /// Hands requests to the threads of the server.
    dispatcher: JoinHandle<()>,
    join: Box<dyn Fn()>,
}

impl Site<'_> {
    /// Starts a server, and another one each time that the last one does not accept any more, until the host stops.
    fn supervise(
        &self,
        address: impl ToSocketAddrs,
        listening: impl FnOnce(SocketAddr),
        servers: &mut Vec<Accepting>,
    ) -> Result<(), BoxError> {
        let rule = |error| format!("the address must be HOST:PORT, with a host that can be resolved: {error}");
        let wanted: Vec<SocketAddr> = address.to_socket_addrs().map_err(rule)?.collect();
        let address = self.start(&*wanted, servers).map_err(|error| format!("cannot serve at {wanted:?}: {error}"))?;
        listening(address);
        let mut pace = Pace::new(Instant::now());
        let mut probe_due = Instant::now() + PROBE_INTERVAL;
        let mut accepts = true;
        while !self.host.is_stopping() {
            thread::sleep(LOOK_INTERVAL);
            if servers.iter().any(Accepting::is_broken) {
                return Err(accept::thread_ended());
            }
            if accepts && Instant::now() < probe_due {
                continue;
            }
            probe_due = Instant::now() + PROBE_INTERVAL;
            accepts = accepts && is_in_use(address);
            if !accepts && pace.is_due(Instant::now(), None)? {
                let outcome = self.start(address, servers).map(drop);
                accepts = outcome.is_ok();
                pace.restarted(Instant::now(), outcome)?;
            }
        }
        Ok(())
    }

    /// Starts a server with new threads. The older servers keep their threads.
    fn start(&self, address: impl ToSocketAddrs, servers: &mut Vec<Accepting>) -> Result<SocketAddr, BoxError> {
        let accepting = Accepting::new(address, self.threads, self.host.stopping(), self.handler.clone())?;
        let address = accepting.address;
        servers.retain(|old| !old.dispatcher.is_finished());
        servers.push(accepting);
        servers.iter().rev().skip(MAX_OLD_SERVERS).for_each(|old| old.retired.store(true, Ordering::Relaxed));
        Ok(address)
    }
}

impl Accepting {
    fn new(
        address: impl ToSocketAddrs,
        threads: usize,
        stopping: Arc<AtomicBool>,
        handler: Arc<Handler>,
    ) -> Result<Self, BoxError> {
        let handler = move |request: &Request| match stopping.load(Ordering::Relaxed) {
            true => Response::text("stopping").with_status_code(503).with_unique_header("Retry-After", "1"),
            false => handler(request),
        };
        let server = accept::start_threads(|| Ok::<_, BoxError>(Server::new(address, handler)?.pool_size(threads)))?;
        let server = Arc::new(server?);
        let retired = Arc::new(AtomicBool::new(false));
        let dispatcher = Builder::new().spawn({
            let (server, retired) = (server.clone(), retired.clone());
            move || {
                while !retired.load(Ordering::Relaxed) {
                    server.poll_timeout(RETIRES_AFTER);
                }
            }
        })?;
        let address = server.server_addr();
        Ok(Self { address, retired, dispatcher, join: Box::new(move || server.join()) })
    }

    /// Returns `true` if the thread that hands out requests has ended by itself.
    fn is_broken(&self) -> bool {
        self.dispatcher.is_finished() && !self.retired.load(Ordering::Relaxed)
    }

    /// Waits until no request runs.
    fn join(&self) {
        (self.join)();
    }
}

/// Returns `false` if no socket listens at this address.
fn is_in_use(address: SocketAddr) -> bool {
    // An error other than that of an address in use leaves it open, for example during a shortage.
    TcpListener::bind(address).is_err()
}
