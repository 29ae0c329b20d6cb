//! The threads in which connections are opened.
//!
//! A pool to one server has three, and all nodes of a cluster share one set. r2d2 runs its work in them.
//!
//! Invariant: the threads start when the pool is built, so that no request fails or panics because there is none to start.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;
use scheduled_thread_pool::ScheduledThreadPool;

use crate::{Error, ErrorKind, Result, fence, operation};

/// The number of threads of a pool to one server, as r2d2 has it. One may wait for a server that hangs while another one
/// finds out that the server is back.
const FOR_SERVER: usize = 3;

/// The number of threads that all nodes of a cluster share. A node that hangs holds at most two of them once it counts as
/// unreachable. Before that, attempts to connect to it may hold more, each for one deadline.
const FOR_CLUSTER: usize = 12;

/// Starts the threads for one server.
///
/// # Errors
///
/// Returns [`ErrorKind::Other`] if the system cannot start them.
pub(crate) fn for_server() -> Result<Arc<ScheduledThreadPool>> {
    start(FOR_SERVER)
}

/// Starts the threads for all nodes of a cluster.
///
/// # Errors
///
/// Returns [`ErrorKind::Other`] if the system cannot start them.
pub(crate) fn for_cluster() -> Result<Arc<ScheduledThreadPool>> {
    start(FOR_CLUSTER)
}

/// Returns the error for a thread that the system cannot start.
pub(crate) fn none(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, operation::BUILD_POOL).with_source(error)
}

fn start(count: usize) -> Result<Arc<ScheduledThreadPool>> {
    rehearse(count).map_err(none)?;
    let build = || ScheduledThreadPool::builder().num_threads(count).thread_name_pattern("redis-{}").build();
    // The library panics without a thread. It can still happen after the rehearsal, if other threads took the places.
    fence::call(build).map(Arc::new).ok_or_else(|| none(io::Error::other("no thread can be started")))
}

/// Starts as many threads at a time, because the library panics if one cannot start, and a program may not survive a panic.
fn rehearse(count: usize) -> io::Result<()> {
    let (release, released) = bounded::<()>(0);
    let spawn = |_| {
        let released = released.clone();
        thread::Builder::new().name("redis-rehearsal".to_owned()).spawn(move || {
            // Nothing is sent: it waits for the end of the rehearsal.
            let _ = released.recv();
        })
    };
    let started: io::Result<Vec<_>> = (0..count).map(spawn).collect();
    drop(release);
    for thread in started? {
        // It ends now, and cannot panic.
        let _ = thread.join();
    }
    Ok(())
}
