//! The tables of the memory store: entries, deadlines, owners and expired sessions.
//!
//! Only [`MemorySessionStore`](crate::MemorySessionStore) uses them. `deadlines`, `owned` and `tombstones` always follow from
//! `entries`; all changes go through `put` and `take`, which keep them so.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{handle, stored};
use crate::store::{Bind, Bytes, Companion, DATA_GRACE_PERIOD, Expired, Reaped, Saved, Version, Write};
use crate::{EndReason, Ended, SessionId, codec};

/// Sessions and tombstones, each with its deadline in milliseconds since 1970.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) entries: HashMap<SessionId, (Option<u64>, Entry)>,
    /// The entries that have a deadline, the next to expire first.
    deadlines: BTreeSet<(u64, SessionId)>,
    /// The tombstones among them: those of renewals last, and then the next to expire first. Of a renewal, a late request must
    /// learn that the session lives under another id.
    tombstones: BTreeSet<(bool, u64, SessionId)>,
    /// The sessions of each principal, each with the time of its binding.
    pub(super) owned: HashMap<Arc<str>, BTreeSet<(u64, SessionId)>>,
    /// The number of reapers that run.
    reapers: usize,
    /// `true` after a call for payloads, if no reaper was announced.
    is_asked: bool,
    /// Expired sessions that wait for a reaper, the longest overdue first, each with its deadline.
    expired: VecDeque<(u64, Expired)>,
    /// The largest number of tombstones.
    pub(super) capacity: Option<usize>,
    /// For how many milliseconds the reason of an end is remembered.
    pub(super) remember: Option<u64>,
    /// The feeds that receive each end.
    feeds: Vec<Sender<Ended>>,
}

pub(super) enum Entry {
    Session {
        payload: Bytes,
        extras: Extras,
    },
    /// A tombstone: the reason why the session is over.
    Over(EndReason),
}

/// The owner and the companions of a session, which a write without them keeps.
#[derive(Clone, Default)]
pub(super) struct Extras {
    owner: Option<Owner>,
    pub(super) companions: Vec<Companion>,
}

/// The principal of a session, and the time of the binding.
#[derive(Clone)]
struct Owner {
    principal: Arc<str>,
    since: u64,
}

impl Extras {
    /// Replaces companions, and keeps those with other suffixes.
    fn add_companions(&mut self, written: &[Companion]) {
        self.companions.retain(|kept| written.iter().all(|new| new.suffix != kept.suffix));
        self.companions.extend_from_slice(written);
    }
}

/// Returns the place of a tombstone in the order in which a full store drops them.
fn tombstone(reason: EndReason, deadline: u64, id: SessionId) -> (bool, u64, SessionId) {
    (reason == EndReason::Renewed, deadline, id)
}

impl Sessions {
    pub(super) fn count(&self) -> usize {
        self.entries.len() - self.tombstones.len()
    }

    /// Returns the ids of the sessions, in no order.
    pub(super) fn live(&self) -> Vec<SessionId> {
        let live = self.entries.iter().filter(|(_, (_, entry))| matches!(entry, Entry::Session { .. }));
        live.map(|(id, _)| *id).collect()
    }

    /// Announces a reaper: from now on, expired sessions wait for it.
    pub(super) fn keep_expired(&mut self) {
        self.reapers += 1;
    }

    /// Takes back one [`keep_expired`](Self::keep_expired). After the last one, no expired session waits.
    pub(super) fn stop_keeping_expired(&mut self) {
        self.reapers = self.reapers.saturating_sub(1);
        if self.reapers == 0 {
            self.is_asked = false;
            self.expired.clear();
        }
    }

    fn keeps_expired(&self) -> bool {
        self.reapers > 0 || self.is_asked
    }

    /// Hands over expired sessions, the longest overdue first. Without `payloads` they are only removed.
    pub(super) fn reap(&mut self, now: u64, limit: usize, payloads: bool) -> Reaped {
        self.is_asked |= payloads;
        let evicted = self.evict(now);
        if !self.keeps_expired() {
            return Reaped { removed: evicted, ..Reaped::default() };
        }
        let count = limit.min(self.expired.len());
        let expired = self.expired.drain(..count).map(|(_, expired)| expired);
        let sessions = expired.filter(|_| payloads).collect();
        Reaped { removed: count as u64, backlog: self.expired.len() as u64, sessions }
    }

    /// Makes room for one more session by dropping expired ones that wait for a reaper. Returns `false` if live sessions fill the
    /// store.
    pub(super) fn make_room(&mut self, capacity: Option<usize>) -> bool {
        let Some(capacity) = capacity else { return true };
        let Some(kept) = capacity.checked_sub(self.count() + 1) else { return false };
        let excess = self.expired.len().saturating_sub(kept);
        self.expired.drain(..excess);
        true
    }

    /// Leaves a tombstone under the id of a session that is over. A bounded store keeps as many tombstones as sessions.
    pub(super) fn bury(&mut self, id: SessionId, reason: EndReason, deadline: u64) {
        self.put(id, Some(deadline), Entry::Over(reason));
        while self.capacity.is_some_and(|capacity| self.tombstones.len() > capacity)
            && let Some((_, _, first)) = self.tombstones.first().copied()
        {
            self.take(&first);
        }
    }

    /// Removes expired entries and returns how many of them were sessions.
    pub(super) fn evict(&mut self, now: u64) -> u64 {
        let mut evicted = 0;
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            if let Some(Entry::Session { payload, .. }) = self.take(&id) {
                evicted += 1;
                self.note_end(id, EndReason::Expired, deadline);
                if self.keeps_expired() {
                    self.expired.push_back((deadline, Expired::new(handle(&id), payload)));
                }
            }
        }
        let forgotten = now.saturating_sub(DATA_GRACE_PERIOD.as_millis() as u64);
        while self.expired.front().is_some_and(|&(deadline, _)| deadline < forgotten) {
            self.expired.pop_front();
        }
        evicted
    }

    /// Opens a feed of the sessions that end from now on. It ends when the receiver is dropped.
    pub(super) fn feed(&mut self) -> Receiver<Ended> {
        let (feed, ends) = unbounded();
        self.feeds.push(feed);
        ends
    }

    fn announce(&mut self, ended: Ended) {
        self.feeds.retain(|feed| feed.send(ended).is_ok());
    }

    /// Ends a session.
    pub(super) fn end(&mut self, id: &SessionId, reason: EndReason, now: u64) {
        if let Some(Entry::Session { .. }) = self.take(id) {
            self.note_end(*id, reason, now);
        }
    }

    /// Announces the end of a session, and leaves its reason if the store remembers ends.
    fn note_end(&mut self, id: SessionId, reason: EndReason, at: u64) {
        self.announce(Ended::new(handle(&id), reason));
        if let Some(remember) = self.remember {
            self.bury(id, reason, at + remember);
        }
    }

    /// Announces that a session moved to a new id.
    pub(super) fn announce_renewal(&mut self, old: &SessionId, new: &SessionId) {
        self.announce(Ended::new(handle(old), EndReason::Renewed).with_successor(handle(new)));
    }

    pub(super) fn take(&mut self, id: &SessionId) -> Option<Entry> {
        let (deadline, entry) = self.entries.remove(id)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, *id));
            if let Entry::Over(reason) = &entry {
                self.tombstones.remove(&tombstone(*reason, deadline, *id));
            }
        }
        if let Entry::Session { extras: Extras { owner: Some(owner), .. }, .. } = &entry
            && let Some(sessions) = self.owned.get_mut(&owner.principal)
        {
            sessions.remove(&(owner.since, *id));
            if sessions.is_empty() {
                self.owned.remove(&owner.principal);
            }
        }
        Some(entry)
    }

    pub(super) fn touch(&mut self, id: &SessionId, deadline: Option<u64>) {
        if let Some(entry) = self.take(id) {
            self.put(*id, deadline, entry);
        }
    }

    pub(super) fn extras_of(&self, id: &SessionId) -> Extras {
        match self.entries.get(id) {
            Some((_, Entry::Session { extras, .. })) => extras.clone(),
            _ => Extras::default(),
        }
    }

    pub(super) fn put(&mut self, id: SessionId, deadline: Option<u64>, entry: Entry) {
        self.take(&id);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        if let (Some(deadline), Entry::Over(reason)) = (deadline, &entry) {
            self.tombstones.insert(tombstone(*reason, deadline, id));
        }
        if let Entry::Session { extras: Extras { owner: Some(owner), .. }, .. } = &entry {
            self.owned.entry(owner.principal.clone()).or_default().insert((owner.since, id));
        }
        self.entries.insert(id, (deadline, entry));
    }

    /// Stores a session. `extras` are those that it had before this write.
    pub(super) fn put_session(&mut self, id: SessionId, write: Write<'_>, mut extras: Extras, now: u64) -> Version {
        let payload = Bytes::copy_from_slice(write.payload);
        let deadline = write.ttl_millis().map(|ttl| now + ttl);
        extras.add_companions(write.companions);
        extras.owner = match write.bind {
            Bind::Keep => extras.owner,
            Bind::Unbind => None,
            Bind::To { principal, .. } | Bind::WithinCap { principal, .. } => match extras.owner {
                Some(owner) if *owner.principal == *principal => Some(owner),
                _ => Some(Owner { principal: principal.into(), since: self.since(principal, now) }),
            },
        };
        self.put(id, deadline, Entry::Session { payload: payload.clone(), extras });
        if let Bind::To { principal, cap: Some(cap) } = write.bind {
            self.enforce_cap(principal, cap as usize, &id, now);
        }
        Version(payload)
    }

    /// Stores another payload, and other companions, of a live session. Deadline and owner stay.
    pub(super) fn replace_payload(&mut self, id: SessionId, write: Write<'_>) -> Version {
        let payload = Bytes::copy_from_slice(write.payload);
        let deadline = self.entries.get(&id).and_then(|(deadline, _)| *deadline);
        let mut extras = self.extras_of(&id);
        extras.add_companions(write.companions);
        self.put(id, deadline, Entry::Session { payload: payload.clone(), extras });
        Version(payload)
    }

    /// Returns the time at which a principal gets a session: later than that of their other sessions, even if the clock was set
    /// back.
    fn since(&self, principal: &str, now: u64) -> u64 {
        let newest = self.owned.get(principal).and_then(BTreeSet::last);
        newest.map_or(now, |(newest, _)| now.max(newest + 1))
    }

    /// Returns `true` if a write must not bind a session, because the principal has as many others as the write allows.
    pub(super) fn is_over_cap(&self, id: &SessionId, bind: Bind<'_>) -> bool {
        let Bind::WithinCap { principal, cap } = bind else { return false };
        let is_theirs = self.extras_of(id).owner.is_some_and(|owner| *owner.principal == *principal);
        !is_theirs && self.owned.get(principal).map_or(0, BTreeSet::len) >= cap as usize
    }

    /// Ends the oldest sessions of a principal until `cap` are left. Never ends `kept`.
    fn enforce_cap(&mut self, principal: &str, cap: usize, kept: &SessionId, now: u64) {
        let Some(sessions) = self.owned.get(principal) else { return };
        let excess = sessions.len().saturating_sub(cap);
        let oldest = sessions.iter().map(|(_, id)| *id).filter(|id| id != kept);
        for id in oldest.take(excess).collect::<Vec<_>>() {
            self.end(&id, EndReason::Cap, now);
        }
    }

    /// Returns the outcome of a `save` or `rotate` that must store nothing: the session is missing, or has another version,
    /// perhaps this payload already. `None` allows the write.
    pub(super) fn outcome_without_write(
        &self,
        id: &SessionId,
        write: Write<'_>,
        expected: Option<&Version>,
        now: u64,
    ) -> Option<Saved> {
        let Some((deadline, Entry::Session { payload, .. })) = self.entries.get(id) else {
            return Some(Saved::Missing);
        };
        if is_version(payload, expected?) {
            return None;
        }
        Some(match **payload == *write.payload {
            true => Saved::Stored(Version(payload.clone())),
            false => Saved::Conflict(stored(payload.clone(), *deadline, now)),
        })
    }
}

/// Returns `true` if a payload has a version. Like Redis, it compares only the beginning up to the revision, if there is one.
fn is_version(payload: &[u8], version: &Version) -> bool {
    match codec::revision_prefix(version.as_bytes()) {
        Some(prefix) => payload.starts_with(prefix),
        None => *payload == *version.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::store::{Ending, SessionIndex, SessionStore, Touch};
    use crate::{Clock, ErrorKind, MemorySessionStore};

    impl Sessions {
        /// Asserts that the derived tables follow from the entries.
        fn assert_exact(&self) {
            let mut exact = Self::default();
            for (id, (deadline, entry)) in &self.entries {
                exact.deadlines.extend(deadline.map(|deadline| (deadline, *id)));
                match entry {
                    Entry::Over(reason) => {
                        exact.tombstones.extend(deadline.map(|deadline| tombstone(*reason, deadline, *id)));
                    }
                    Entry::Session { extras: Extras { owner: Some(Owner { principal, since }), .. }, .. } => {
                        exact.owned.entry(principal.clone()).or_default().insert((*since, *id));
                    }
                    Entry::Session { .. } => {}
                }
            }
            assert_eq!(self.deadlines, exact.deadlines);
            assert_eq!(self.owned, exact.owned);
            assert_eq!(self.tombstones, exact.tombstones);
        }
    }

    /// A step: its action, its id, its owner, and a time in seconds.
    type Step = (u8, usize, u8, u64);

    /// The steps of a run. They are random, and the same each time for the same run.
    fn steps(run: u32) -> impl Iterator<Item = Step> {
        let numbers = (0..60u32).map(move |step| Sha256::digest([run.to_le_bytes(), step.to_le_bytes()].concat()));
        let steps = numbers.map(|n| (n[0] % 9, usize::from(n[1] % 6), n[2] % 4, u64::from(n[3] % 60)));
        steps.take(1 + run as usize % 60)
    }

    #[test]
    fn derived_tables_follow_from_entries() {
        for run in 0..256 {
            let clock = Clock::manual();
            let store = MemorySessionStore::new().with_clock(clock.clone());
            let ids: [SessionId; 6] = std::array::from_fn(|_| SessionId::random());
            for (number, step) in steps(run).enumerate() {
                println!("run {run}, step {number}: {step:?}");
                take(&store, &clock, &ids, number, step);
                store.lock().0.assert_exact();
            }
        }
    }

    fn take(store: &MemorySessionStore, clock: &Clock, ids: &[SessionId; 6], number: usize, step: Step) {
        let (what, n, bind, seconds) = step;
        let (id, other, time) = (&ids[n], &ids[(n + 1) % 6], Duration::from_secs(seconds));
        let payload = number.to_string();
        let bind = match bind {
            0 => Bind::Keep,
            1 => Bind::Unbind,
            2 => Bind::To { principal: "ada", cap: Some(2) },
            _ => Bind::To { principal: "bob", cap: None },
        };
        let write = Write::new(payload.as_bytes(), (seconds > 5).then_some(time)).with_bind(bind);
        match what {
            0 | 1 => drop(store.create(id, write).unwrap()),
            2 => drop(store.save(id, write, None).unwrap()),
            3 => match store.rotate(id, other, write, None) {
                Ok(_) => (),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Misconfigured, "the other id is taken"),
            },
            4 => drop(store.delete(id).unwrap()),
            5 => drop(store.read(id, Touch::Set(time)).unwrap()),
            6 => drop(store.end("ada", Ending::Only(handle(id))).unwrap()),
            7 => drop(store.reap(0, 3, n == 0).unwrap()),
            8 if seconds % 8 == 0 => {
                store.end_everybody().unwrap();
                assert_eq!(store.count().unwrap(), 0);
            }
            _ => clock.advance(time),
        }
    }
}
