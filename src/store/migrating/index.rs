//! The index of a [`MigratingStore`]: the indexes of both stores as one.
//!
//! Managers and reapers use it through [`SessionIndex`]. The invariants: sessions end in the old store before they end in the new
//! one, so no session escapes by moving; and lists read the old store first, so they miss no session that moves.

use std::ops::ControlFlow;

use super::route::{self, Route};
use super::{MigratingStore, mark};
use crate::store::{
    Belonging, Bind, Bytes, CAP_NOT_ENFORCED, EndedAll, Ending, Entry, Expired, Found, OnProgress, Owned, OwnedPage,
    Progress, Reaped, SessionIndex, SessionStore, Verified, VerifyOptions, Write, index_of,
};
use crate::{AllSessions, Handle, Result, SessionId, fence, operation};

impl SessionIndex for MigratingStore {
    fn partitions(&self) -> u32 {
        self.partition_count()
    }

    fn keep_expired(&self) {
        self.indexes().for_each(SessionIndex::keep_expired);
    }

    fn stop_keeping_expired(&self) {
        self.indexes().for_each(SessionIndex::stop_keeping_expired);
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        let reaped = match route::of(self, partition) {
            Route::Old(partition) => match self.old.index() {
                Some(index) => index.reap(partition, limit, payloads)?,
                None => Reaped::default(),
            },
            Route::New(partition) => self.new_index(operation::REAP)?.reap(partition, limit, payloads)?,
        };
        let bare = |expired: Expired| Some(Expired::new(expired.handle, mark::unmarked(expired.payload)?));
        Ok(Reaped { sessions: reaped.sessions.into_iter().filter_map(bare).collect(), ..reaped })
    }

    fn count(&self) -> Result<u64> {
        Ok(self.count_by_partition()?.iter().sum())
    }

    fn count_by_partition(&self) -> Result<Vec<u64>> {
        let mut counts = match self.old.index() {
            Some(index) => index.count_by_partition()?,
            None => vec![0; self.old.partition_count() as usize],
        };
        counts.extend(self.new_index(operation::COUNT)?.count_by_partition()?);
        Ok(counts)
    }

    /// Merges the lists of both stores.
    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        let end = offset.saturating_add(limit);
        let mut entries = Vec::new();
        for index in self.indexes() {
            entries.extend(index.page(0, end)?);
        }
        // Of two equal deadlines, the order of the two stores decides.
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.expires_in.is_none(), entry.expires_in)));
        Ok(entries.into_iter().skip(offset).take(limit).collect())
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let old = self.old_belongings(principal)?;
        let mut all = self.new_belongings(principal)?;
        // A session that is in both lists is about to move.
        let unmoved: Vec<Belonging> =
            old.into_iter().filter(|one| all.iter().all(|other| other.payload != one.payload)).collect();
        all.extend(unmoved);
        all.sort_by_key(|belonging| std::cmp::Reverse(belonging.since));
        Ok(all)
    }

    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let (page, is_new) = match route::of(self, partition) {
            Route::Old(partition) => match self.old.index() {
                Some(index) => (index.owned_after(principal, partition, after)?, false),
                None => return Ok(OwnedPage::default()),
            },
            Route::New(partition) => {
                (self.new_index(operation::UPDATE_ALL)?.owned_after(principal, partition, after)?, true)
            }
        };
        let bare = |owned: Owned| {
            let payload = mark::unmarked_if_read(owned.payload)?;
            let key = if is_new { route::outer(self, owned.key) } else { owned.key };
            Some(Owned { key, payload, ..owned })
        };
        Ok(OwnedPage { sessions: page.sessions.into_iter().filter_map(bare).collect(), ..page })
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        let new = self.new_index(operation::END)?;
        match which {
            Ending::All => {
                let (in_old, in_new) = (self.end_all_in_old(principal), new.end(principal, which));
                Ok(in_old? + in_new? + self.end_all_in_old(principal)?)
            }
            Ending::AllExcept(kept) => {
                let _ = self.settle(kept)?;
                // The first call checks the owner of the session to keep. The second one ends sessions that moved since.
                let first = new.end(principal, which)?;
                Ok(first + self.end_all_in_old(principal)? + new.end(principal, which)?)
            }
            // The two stores may give a session the same handle, so it can be under this handle in either of them.
            Ending::Only(handle) => {
                let (in_old, in_new) = (self.end_unmoved(principal, handle), new.end(principal, which));
                Ok(in_new?.max(in_old?))
            }
        }
    }

    fn end_everybody(&self) -> Result<u64> {
        Ok(self.end_everybody_with(&mut |_| ControlFlow::Continue(()))?.ended)
    }

    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        let mut before = Progress::default();
        let old = AllSessions::new(&*self.old).end_everybody(|progress| {
            before = progress;
            on_progress(progress)
        })?;
        if old.interrupted {
            return Ok(old);
        }
        let mut shifted =
            |progress: Progress| on_progress(Progress::new(before.done + progress.done, before.total + progress.total));
        let new = self.new_index(operation::END_ALL_SESSIONS)?.end_everybody_with(&mut shifted)?;
        if new.interrupted {
            return Ok(EndedAll::new(old.ended + new.ended, true));
        }
        // Another process may have moved sessions back.
        let back = AllSessions::new(&*self.old).end_everybody(|_| ControlFlow::Continue(()))?;
        Ok(EndedAll::new(old.ended + new.ended + back.ended, false))
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        let first = match self.old.index() {
            Some(index) => index.verify(options)?,
            None => Verified::default(),
        };
        if first.interrupted {
            return Ok(first);
        }
        let progress = options.progress;
        let sum = move |so_far: &Verified, step| {
            progress.map_or(ControlFlow::Continue(()), |call| call(&(first + *so_far), step))
        };
        let options = VerifyOptions { progress: progress.map(|_| &sum as _), ..options };
        Ok(first + self.new_index(operation::VERIFY)?.verify(options)?)
    }
}

impl MigratingStore {
    fn new_index(&self, operation: &'static str) -> Result<&dyn SessionIndex> {
        index_of(&*self.new, operation)
    }

    /// Returns the indexes of both stores, that of the old one first.
    fn indexes(&self) -> impl Iterator<Item = &dyn SessionIndex> {
        self.old.index().into_iter().chain(self.new.index())
    }

    fn old_belongings(&self, principal: &str) -> Result<Vec<Belonging>> {
        self.old.index().map_or(Ok(Vec::new()), |index| Ok(bare(index.list_by_principal(principal)?)))
    }

    fn new_belongings(&self, principal: &str) -> Result<Vec<Belonging>> {
        Ok(bare(self.new_index(operation::LIST_BY_PRINCIPAL)?.list_by_principal(principal)?))
    }

    fn end_all_in_old(&self, principal: &str) -> Result<u64> {
        self.old.index().map_or(Ok(0), |index| index.end(principal, Ending::All))
    }

    /// Ends a session of the old store by its handle, and the copy that a process may be making of it.
    fn end_unmoved(&self, principal: &str, handle: Handle) -> Result<u64> {
        let Some(old) = self.old.index() else { return Ok(0) };
        let theirs = old.list_by_principal(principal)?.into_iter().find(|theirs| theirs.handle == handle);
        let ended = old.end(principal, Ending::Only(handle))?;
        let Some(payload) = theirs.and_then(|theirs| mark::unmarked(theirs.payload)) else { return Ok(ended) };
        let new = self.new_index(operation::END)?;
        let mut ended_copies = 0;
        for belonging in new.list_by_principal(principal)? {
            if is_copy_of(&belonging.payload, &payload) {
                ended_copies += new.end(principal, Ending::Only(belonging.handle))?;
            }
        }
        Ok(ended.max(ended_copies.min(1)))
    }

    /// Returns a write that keeps the cap in the new store, of which the sessions in the old store are a part. Returns `None` if
    /// the write is beyond a cap that rejects.
    pub(super) fn within_cap<'w>(&self, id: &SessionId, write: Write<'w>) -> Result<Option<Write<'w>>> {
        let Bind::WithinCap { principal, cap } = write.bind else { return Ok(Some(write)) };
        if self.old_belongings(principal)?.is_empty() {
            return Ok(Some(write));
        }
        // The session itself may be one of those in the old store.
        let is_live = matches!(self.settle(id)?, Found::Live(_));
        let unmoved = u32::try_from(self.old_belongings(principal)?.len()).unwrap_or(u32::MAX);
        let cap = cap.saturating_sub(unmoved);
        if cap > 0 {
            return Ok(Some(write.with_bind(Bind::WithinCap { principal, cap })));
        }
        let handle = self.new.handle(id);
        let is_theirs = is_live && self.new_belongings(principal)?.iter().any(|theirs| theirs.handle == handle);
        Ok(is_theirs.then(|| write.with_bind(Bind::Keep)))
    }

    /// Ends the oldest sessions of a principal in the old store, after a binding that may have put the principal beyond a cap. A
    /// failure does not undo the binding; the next binding enforces the cap.
    pub(super) fn enforce_cap_in_old(&self, bind: Bind<'_>) {
        if let Bind::To { principal, cap: Some(cap) } = bind
            && let Err(error) = self.end_oldest_in_old(principal, cap as usize)
        {
            fence::log!(Warn, error = error.kind().name(); "{CAP_NOT_ENFORCED}: {error:#}");
        }
    }

    fn end_oldest_in_old(&self, principal: &str, cap: usize) -> Result<()> {
        let unmoved = self.old_belongings(principal)?;
        if unmoved.is_empty() {
            return Ok(());
        }
        let excess = (unmoved.len() + self.new_belongings(principal)?.len()).saturating_sub(cap);
        for oldest in unmoved.iter().rev().take(excess) {
            self.end_unmoved(principal, oldest.handle)?;
        }
        Ok(())
    }
}

/// Leaves out claims, and returns the others with their bare payloads.
fn bare(belongings: Vec<Belonging>) -> Vec<Belonging> {
    let bare = |belonging: Belonging| {
        let payload = mark::unmarked(belonging.payload)?;
        Some(Belonging { payload, ..belonging })
    };
    belongings.into_iter().filter_map(bare).collect()
}

/// Returns `true` if a session in the new store is moving, or has just moved, from one with this payload.
fn is_copy_of(moved: &Bytes, payload: &Bytes) -> bool {
    match mark::Mark::of(moved) {
        Some(mark::Mark::Claim(digest)) => digest == mark::digest(payload),
        Some(mark::Mark::Copy(copied)) => copied == *payload,
        None => moved == payload,
    }
}
