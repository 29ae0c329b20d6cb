//! [`ObservedStore`], a store that measures the operations of another one.
//!
//! The manager puts it around its store if it has observers, so the reaper and the application use it too. Invariant: results
//! pass unchanged.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, iter};

use super::{EndCause, Ended, Observers, Operation, OperationKind, OperationOutcome, effort};
use crate::store::{
    Belonging, Created, EndFeed, EndedAll, Ending, Entry, Found, Health, KeyPages, OnProgress, OwnedPage, Reaped,
    Saved, SessionIndex, SessionKey, Snapshot, Touch, Verified, VerifyOptions, Version, Write, index_of,
};
use crate::{Handle, Observer, RedisWarning, Result, SessionId, SessionStore, operation};

/// A store with observers.
pub(crate) struct ObservedStore {
    store: Arc<dyn SessionStore>,
    observers: Observers,
}

/// The outcome of an operation, and the size of its payload.
type Seen = (OperationOutcome, Option<usize>);

impl ObservedStore {
    /// Puts the observers around a store, which passes them on to its pool.
    pub(crate) fn new(store: Arc<dyn SessionStore>, observers: Observers) -> Self {
        observers.iter().for_each(|observer| store.observe(observer));
        Self { store, observers }
    }

    /// Runs an operation, and reports it with what `see` finds in its result.
    fn measure<R>(
        &self,
        kind: OperationKind,
        operation: impl FnOnce() -> Result<R>,
        see: impl FnOnce(&R) -> Seen,
    ) -> Result<R> {
        let began = Instant::now();
        let (result, effort) = effort::measure(operation);
        let duration = began.elapsed();
        let (outcome, payload) = match &result {
            Ok(result) => see(result),
            Err(error) => (OperationOutcome::Failed(error.kind()), None),
        };
        let effort::Effort { waited, retries } = effort;
        let operation = Operation { kind, outcome, duration, payload, waited, retries };
        self.observers.tell(|observer| observer.on_operation(&operation));
        result
    }

    /// Reports the end of sessions, unless there were none.
    fn report_ended(&self, sessions: u64, reason: EndCause) {
        if sessions > 0 {
            let ended = Ended::new(reason, sessions, None);
            self.observers.tell(|observer| observer.on_ended(&ended));
        }
    }

    /// Runs an operation of the index. It has no outcome but success and failure.
    fn measure_index<R>(
        &self,
        kind: OperationKind,
        name: &'static str,
        operation: impl FnOnce(&dyn SessionIndex) -> Result<R>,
    ) -> Result<R> {
        let index = index_of(&*self.store, name)?;
        self.measure(kind, || operation(index), |_| (OperationOutcome::Done, None))
    }
}

fn see_found(found: &Found) -> Seen {
    match found {
        Found::Live(stored) => (OperationOutcome::Done, Some(stored.payload.len())),
        Found::Renewed => (OperationOutcome::Renewed, None),
        Found::Ended(_) | Found::Absent => (OperationOutcome::Absent, None),
    }
}

fn see_saved(saved: &Saved, bytes: usize) -> Seen {
    let outcome = match saved {
        Saved::Stored(_) => OperationOutcome::Done,
        Saved::Missing => OperationOutcome::Absent,
        Saved::Conflict(_) => OperationOutcome::Conflict,
        Saved::OverCap => OperationOutcome::OverCap,
    };
    (outcome, Some(bytes))
}

impl SessionStore for ObservedStore {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.store.fresh_id(beside)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        self.store.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let bytes = Some(write.payload.len());
        let see = |created: &Created| match created {
            Created::Stored(_) => (OperationOutcome::Done, bytes),
            Created::Taken => (OperationOutcome::Taken, bytes),
            Created::OverCap => (OperationOutcome::OverCap, bytes),
        };
        self.measure(OperationKind::Create, || self.store.create(id, write), see)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        self.measure(OperationKind::Read, || self.store.read(id, touch), see_found)
    }

    fn read_first(&self, ids: &[SessionId], touch: Touch) -> (usize, Result<Found>) {
        let mut position = 0;
        let read = || {
            let (at, found) = self.store.read_first(ids, touch);
            position = at;
            found
        };
        let found = self.measure(OperationKind::Read, read, see_found);
        (position, found)
    }

    fn forget(&self, ids: &[SessionId]) {
        self.store.forget(ids);
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let bytes = write.payload.len();
        let save = || self.store.save(id, write, expected);
        self.measure(OperationKind::Save, save, |saved| see_saved(saved, bytes))
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let bytes = write.payload.len();
        let rotate = || self.store.rotate(old, new, write, expected);
        self.measure(OperationKind::Rotate, rotate, |saved| see_saved(saved, bytes))
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        self.store.keep_companions(suffixes)
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let see = |companion: &Option<Vec<u8>>| match companion {
            Some(_) => (OperationOutcome::Done, None),
            None => (OperationOutcome::Absent, None),
        };
        self.measure(OperationKind::Companion, || self.store.companion(id, suffix), see)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        let see = |existed: &bool| match existed {
            true => (OperationOutcome::Done, None),
            false => (OperationOutcome::Absent, None),
        };
        self.measure(OperationKind::Delete, || self.store.delete(id), see)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.store.index().map(|_| self as _)
    }

    fn partition_count(&self) -> u32 {
        self.store.partition_count()
    }

    /// Each page is an operation.
    fn walk(&self) -> Result<KeyPages<'_>> {
        let mut pages = self.store.walk()?;
        let see = |_: &Option<_>| (OperationOutcome::Done, None);
        let next = move || self.measure(OperationKind::Walk, || pages.next().transpose(), see).transpose();
        Ok(Box::new(iter::from_fn(next)))
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        let see = |_: &Vec<_>| (OperationOutcome::Done, None);
        self.measure(OperationKind::Snapshots, || self.store.snapshots(keys), see)
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        let see = |_: &u64| (OperationOutcome::Done, None);
        let ended = self.measure(OperationKind::EndKeys, || self.store.end_keys(keys), see)?;
        self.report_ended(ended, EndCause::Operator);
        Ok(ended)
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        let bytes = write.payload.len();
        let save = || self.store.save_key(key, write, expected);
        self.measure(OperationKind::Save, save, |saved| see_saved(saved, bytes))
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        self.store.end_feed()
    }

    fn check(&self) -> Result<Vec<RedisWarning>> {
        self.store.check()
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn observe(&self, observer: &Arc<dyn Observer>) {
        self.store.observe(observer);
    }
}

impl SessionIndex for ObservedStore {
    fn partitions(&self) -> u32 {
        self.store.index().map_or(1, |index| index.partitions())
    }

    fn keep_expired(&self) {
        if let Some(index) = self.store.index() {
            index.keep_expired();
        }
    }

    fn stop_keeping_expired(&self) {
        if let Some(index) = self.store.index() {
            index.stop_keeping_expired();
        }
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        let reap = |index: &dyn SessionIndex| index.reap(partition, limit, payloads);
        let reaped = self.measure_index(OperationKind::Reap, operation::REAP, reap)?;
        self.report_ended(reaped.removed, EndCause::Expired);
        Ok(reaped)
    }

    fn count(&self) -> Result<u64> {
        self.measure_index(OperationKind::Count, operation::COUNT, |index| index.count())
    }

    fn count_by_partition(&self) -> Result<Vec<u64>> {
        self.measure_index(OperationKind::Count, operation::COUNT, |index| index.count_by_partition())
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        self.measure_index(OperationKind::Page, operation::PAGE, |index| index.page(offset, limit))
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let list = |index: &dyn SessionIndex| index.list_by_principal(principal);
        self.measure_index(OperationKind::ListByPrincipal, operation::LIST_BY_PRINCIPAL, list)
    }

    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let page = |index: &dyn SessionIndex| index.owned_after(principal, partition, after);
        self.measure_index(OperationKind::ListByPrincipal, operation::LIST_BY_PRINCIPAL, page)
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        self.measure_index(OperationKind::End, operation::END, |index| index.end(principal, which))
    }

    fn end_everybody(&self) -> Result<u64> {
        let end = |index: &dyn SessionIndex| index.end_everybody();
        let ended = self.measure_index(OperationKind::EndEverybody, operation::END_ALL_SESSIONS, end)?;
        self.report_ended(ended, EndCause::EndEverybody);
        Ok(ended)
    }

    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        let end = |index: &dyn SessionIndex| index.end_everybody_with(on_progress);
        let all = self.measure_index(OperationKind::EndEverybody, operation::END_ALL_SESSIONS, end)?;
        self.report_ended(all.ended, EndCause::EndEverybody);
        Ok(all)
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        self.measure_index(OperationKind::Verify, operation::VERIFY, |index| index.verify(options))
    }
}

/// Shows the store, because the observers hold nothing that could be shown.
impl fmt::Debug for ObservedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, MemorySessionStore, contract};

    struct Idle;

    impl Observer for Idle {}

    #[test]
    fn observed_store_keeps_the_contract() {
        let clock = Clock::manual();
        let mut observers = Observers::default();
        observers.add(Arc::new(Idle));
        let store = MemorySessionStore::new().with_clock(clock.clone());
        let mut store = ObservedStore::new(Arc::new(store), observers);
        contract::all(&store, |time| clock.advance(time));
        contract::companions(&mut store, |time| clock.advance(time));
        contract::everybody(&store, |time| clock.advance(time));
    }
}
