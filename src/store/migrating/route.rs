//! The partitions and the names of two stores as those of one.
//!
//! [`MigratingStore`] uses it for walks and for the names that a walk returned. The invariant: the partitions of the old store come
//! before those of the new one, so a walk over all partitions finds a session that moves during the walk.

use super::MigratingStore;
use super::mark;
use crate::Result;
use crate::store::{KeyPage, KeyPages, Progress, SessionKey, SessionStore, Snapshot};

/// The store of a partition, and the partition in that store.
pub(super) enum Route {
    Old(u32),
    New(u32),
}

pub(super) fn of(store: &MigratingStore, partition: u32) -> Route {
    let first_of_new = store.old.partition_count();
    match partition.checked_sub(first_of_new) {
        None => Route::Old(partition),
        Some(partition) => Route::New(partition),
    }
}

/// Returns the store that has a name, and the name there.
pub(super) fn inner<'s>(store: &'s MigratingStore, key: &SessionKey) -> (&'s dyn SessionStore, SessionKey) {
    match of(store, key.partition()) {
        Route::Old(_) => (&*store.old, key.clone()),
        Route::New(partition) => (&*store.new, key.with_partition(partition)),
    }
}

/// Splits names into those of the old store and those of the new one, as the two stores know them.
pub(super) fn split(store: &MigratingStore, keys: &[SessionKey]) -> [Vec<SessionKey>; 2] {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for key in keys {
        match of(store, key.partition()) {
            Route::Old(_) => old.push(key.clone()),
            Route::New(partition) => new.push(key.with_partition(partition)),
        }
    }
    [old, new]
}

/// Returns the name of a session in the new store as the name of both stores.
pub(super) fn outer(store: &MigratingStore, key: SessionKey) -> SessionKey {
    key.with_partition(key.partition() + store.old.partition_count())
}

/// Walks the old store, and then the new one.
pub(super) fn pages(store: &MigratingStore) -> Result<KeyPages<'_>> {
    let pages = store.old.walk()?;
    Ok(Box::new(Pages { store, pages, is_new: false, before: Progress::default(), progress: Progress::default() }))
}

/// The pages of a walk.
struct Pages<'a> {
    store: &'a MigratingStore,
    /// The pages of the store that the walk is in.
    pages: KeyPages<'a>,
    is_new: bool,
    /// The progress at the end of the old store.
    before: Progress,
    progress: Progress,
}

impl Iterator for Pages<'_> {
    type Item = Result<KeyPage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pages.next() {
                Some(Ok(page)) => return Some(Ok(self.page(page))),
                Some(Err(error)) => {
                    (self.pages, self.is_new) = (Box::new(std::iter::empty()), true);
                    return Some(Err(error));
                }
                None if self.is_new => return None,
                None => {
                    (self.before, self.is_new) = (self.progress, true);
                    match self.store.new.walk() {
                        Ok(pages) => self.pages = pages,
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }
}

impl Pages<'_> {
    fn page(&mut self, page: KeyPage) -> KeyPage {
        let Progress { done, total } = page.progress;
        self.progress = Progress::new(self.before.done + done, self.before.total + total);
        let keys = match self.is_new {
            true => page.keys.into_iter().map(|key| outer(self.store, key)).collect(),
            false => page.keys,
        };
        KeyPage::new(keys, self.progress)
    }
}

/// Reads sessions in both stores. It leaves out claims.
pub(super) fn snapshots(store: &MigratingStore, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
    let [old, new] = split(store, keys);
    let read = |from: &dyn SessionStore, keys: Vec<SessionKey>| match keys.is_empty() {
        true => Ok(Vec::new()),
        false => from.snapshots(&keys),
    };
    let (old, new) = (read(&*store.old, old)?, read(&*store.new, new)?);
    let new = new.into_iter().map(|snapshot| Snapshot { key: outer(store, snapshot.key), ..snapshot });
    // Each store returns its sessions in the order of their names.
    let (mut old, mut new) = (old.into_iter().peekable(), new.peekable());
    let next = |key: &SessionKey| {
        let is_next = |snapshot: &Snapshot| snapshot.key == *key;
        old.next_if(is_next).or_else(|| new.next_if(is_next))
    };
    Ok(keys.iter().filter_map(next).filter_map(bare).collect())
}

/// Returns a snapshot with its bare payload, or `None` for a claim.
fn bare(snapshot: Snapshot) -> Option<Snapshot> {
    let payload = mark::unmarked_if_read(snapshot.payload)?;
    Some(Snapshot { payload, ..snapshot })
}
