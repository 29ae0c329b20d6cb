//! [`Walk`], the iterator over all live sessions of a store, and the pages without duplicates under it.
//!
//! [`AllSessions`] makes them. The invariant: no session comes twice, although a store may return a name on several pages.

use std::collections::HashSet;
use std::fmt;
use std::vec;

use super::{AllSessions, SessionInfo};
use crate::store::{KeyPage, KeyPages, Progress};
use crate::{Handle, Result, SessionStore};

/// An iterator over all live sessions; from [`AllSessions::iter`].
pub struct Walk<'a> {
    all: &'a AllSessions<'a>,
    pages: DistinctPages<'a>,
    /// The sessions of the last page that are still to come.
    ready: vec::IntoIter<SessionInfo>,
    progress: Progress,
}

impl<'a> Walk<'a> {
    pub(super) fn new(all: &'a AllSessions<'a>) -> Self {
        let pages = DistinctPages::new(all.store);
        Self { all, pages, ready: Vec::new().into_iter(), progress: Progress::default() }
    }

    /// Returns how far the walk is, with the page that it read last.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Reads the next page. Returns `None` after the last one.
    fn turn(&mut self) -> Option<Result<()>> {
        let read = self.pages.next()?.and_then(|page| {
            self.progress = page.progress;
            self.all.infos(&page.keys)
        });
        Some(match read {
            Ok(sessions) => {
                self.ready = sessions.into_iter();
                Ok(())
            }
            Err(error) => {
                self.pages.stop();
                Err(error)
            }
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<SessionInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(session) = self.ready.next() {
                return Some(Ok(session));
            }
            if let Err(error) = self.turn()? {
                return Some(Err(error));
            }
        }
    }
}

impl fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// The pages of a walk, without the names that were on a page before.
pub(super) struct DistinctPages<'a> {
    store: &'a dyn SessionStore,
    state: State<'a>,
    seen: HashSet<[u8; SEEN_BYTES]>,
}

enum State<'a> {
    Before,
    Walking(KeyPages<'a>),
    Over,
}

/// The number of bytes of a handle that distinguish two sessions.
const SEEN_BYTES: usize = 16;

impl<'a> DistinctPages<'a> {
    pub(super) fn new(store: &'a dyn SessionStore) -> Self {
        Self { store, state: State::Before, seen: HashSet::new() }
    }

    fn stop(&mut self) {
        self.state = State::Over;
    }

    fn next_page(&mut self) -> Option<Result<KeyPage>> {
        if let State::Before = self.state {
            match self.store.walk() {
                Ok(pages) => self.state = State::Walking(pages),
                Err(error) => return Some(Err(error)),
            }
        }
        match &mut self.state {
            State::Walking(pages) => pages.next(),
            State::Before | State::Over => None,
        }
    }
}

impl Iterator for DistinctPages<'_> {
    type Item = Result<KeyPage>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_page() {
            Some(Ok(mut page)) => {
                page.keys.retain(|key| self.seen.insert(beginning(key.handle())));
                Some(Ok(page))
            }
            end => {
                self.stop();
                end
            }
        }
    }
}

fn beginning(handle: Handle) -> [u8; SEEN_BYTES] {
    let mut beginning = [0; SEEN_BYTES];
    beginning.copy_from_slice(&handle.as_bytes()[..SEEN_BYTES]);
    beginning
}
