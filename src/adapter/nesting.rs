//! Notices that a handler opens the session of its request a second time.
//!
//! Every adapter enters a session here while its handler runs. Two sessions of one request would overwrite each other's cookie,
//! and a new visitor's inner session would be lost. Invariant: a thread's list holds the sessions whose handlers run on it.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::{Error, Result, operation};

/// A request, as far as it takes to recognise it.
#[derive(Debug)]
pub(crate) struct RequestIdentity {
    /// Where the request is in memory. No other request is there while its handler runs.
    pub(crate) address: usize,
    /// The traits by which an adapter recognises a copy of the request; `None` if the framework makes no copies.
    pub(crate) copy: Option<CopyIdentity>,
}

/// The traits that a request shares with a copy without the beginning of its URL.
#[derive(Debug)]
pub(crate) struct CopyIdentity {
    /// The hash of everything but the URL.
    pub(crate) hash: u64,
    pub(crate) url: String,
}

impl RequestIdentity {
    /// Returns `true` if the inner request is this one, or this one without the beginning of its URL.
    fn includes(&self, inner: &Self) -> bool {
        let is_shorter_copy = |outer: &CopyIdentity, inner: &CopyIdentity| {
            outer.hash == inner.hash && outer.url.len() > inner.url.len() && outer.url.ends_with(&inner.url)
        };
        self.address == inner.address
            || matches!((&self.copy, &inner.copy), (Some(outer), Some(inner)) if is_shorter_copy(outer, inner))
    }
}

thread_local! {
    /// The managers and requests whose handlers run on this thread, the innermost last.
    static OPEN: RefCell<Vec<(usize, RequestIdentity)>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, the request has its session open.
#[derive(Debug)]
#[must_use]
pub(crate) struct OpenSession(PhantomData<*const ()>);

impl OpenSession {
    /// Notes that the request opens its session of this manager.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the request has it open already.
    pub(crate) fn enter(manager: usize, request: RequestIdentity) -> Result<Self> {
        OPEN.with_borrow_mut(|open| {
            if open.iter().any(|(other, outer)| *other == manager && outer.includes(&request)) {
                let why = "the request has its session open already: pass the session on instead of opening it again";
                return Err(Error::misconfigured(operation::OPEN, why));
            }
            open.push((manager, request));
            Ok(Self(PhantomData))
        })
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(Vec::pop);
    }
}
