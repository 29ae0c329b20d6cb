//! Stores that break one promise each. The suite must name the broken promise and the result that breaks it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use threaded_sessions::store::{
    Belonging, Bind, Companion, Created, EndedAll, Ending, Entry, Expired, Found, KeyPage, KeyPages, OnProgress,
    OwnedPage, Reaped, Saved, SessionIndex, SessionKey, Snapshot, Stored, Touch, Verified, VerifyOptions, Version,
    Write,
};
use threaded_sessions::{
    Clock, Error, ErrorKind, Handle, MemorySessionStore, Result, SessionId, SessionStore, contract,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,

    CountsWhatIsGone,
    CountsWhatWasRenewed,
    ListsWhatIsGone,
    ListsOnlyWhatExpires,
    ListsBackwards,
    HasPagesOverlap,
    HasPagesTooLarge,

    ReadsWhatWaitsForAReaper,
    ReapsByTheFirstDeadline,
    ReapsBeyondTheLimit,
    ReapsTheNewestFirst,
    HidesTheBacklog,
    HasABacklogWithoutEnd,
    TellsNobody,
    TellsUnasked,
    TellsTwice,
    TellsTheFirstPayload,
    TellsWhatWasDeleted,

    MendsInVain,
    VerifiesAndEnds,
    VerifiesAndReaps,

    KeepsNoCompanionsAndDoesNotSay,
    DropsUndeclaredCompanions,
    GivesASuffixTwice,
    ForgetsCompanionsAtASave,
    ForgetsCompanionsAtARotation,
    KeepsCompanionsForEver,
    KeepsCompanionsForTheId,
    LetsCompanionsExpireAlone,
    WritesCompanionsOfARefusedSave,

    EndsNobody,
    EndsNobodyWhoWasRenewed,
    EndsThemUncounted,
    EndsWhatIsOverdue,
    EndsThemByLettingThemExpire,

    ComparesBeginningsOnly,
    LeavesTheOwnerOfAReusedId,
    InheritsCompanionsOfAReusedId,
    EndsEverythingWithItsReaper,

    EndsTheOldestWhenFull,
    KeepsExpiredUncounted,
    CleansUpWhileReading,

    WalksPastOne,
    WalksIntoTheDead,
    TouchesWhileWalking,
    TouchesWhilePeeking,
    TouchesBeforeItIsDue,
    TouchesTooFar,
    HidesTheTimeLeft,
    EndsKeysInVain,
    EndsAllKeysButOne,

    AdmitsBeyondTheCap,
    StoresWhatIsBeyondTheCap,
    EndsAllForACapOfZero,
    ChangesTheDeadline,
    ChangesWhatIsRenewed,
}

/// The number of sessions in a bounded store.
const BOUND: usize = 5;

/// A store in memory with a fault.
#[derive(Debug)]
struct Broken {
    store: MemorySessionStore,
    clock: Clock,
    fault: Fault,
    /// The number of live sessions that it takes.
    bound: u64,
    known: Mutex<Known>,
}

/// The state that a fault needs.
#[derive(Debug, Default)]
struct Known {
    /// Every session that was created, in order, with what it was created with.
    created: Vec<(SessionId, Vec<u8>, Option<SystemTime>)>,
    renewed: u64,
    most: u64,
    keeps_expired: bool,
    expired: Vec<Expired>,
    companions: HashMap<SessionId, Vec<Companion>>,
    owners: HashMap<SessionId, String>,
    refuses_writes: bool,
}

impl Broken {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn read_only(&self, id: &SessionId) -> Option<Stored> {
        match self.store.read(id, Touch::No).unwrap() {
            Found::Live(stored) => Some(stored),
            _ => None,
        }
    }

    /// Writes a session anew without the companions that it had under this id, or another.
    fn forget(&self, had: &SessionId, id: &SessionId, write: Write<'_>) -> Result<()> {
        if self.known().companions.contains_key(had) {
            assert!(self.store.delete(id)?);
            let _ = self.store.create(id, write)?;
        }
        Ok(())
    }

    /// Fails if writes are refused.
    fn write_allowed(&self) -> Result<()> {
        match self.known().refuses_writes {
            true => Err(Error::new(ErrorKind::ReadOnly, "writing")),
            false => Ok(()),
        }
    }

    /// Ends the oldest live session and creates another one.
    fn end_oldest_and_create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let created: Vec<SessionId> = self.known().created.iter().map(|(id, ..)| *id).collect();
        let mut oldest = created.iter().filter(|id| self.read_only(id).is_some());
        self.store.delete(oldest.next().expect("the store is full"))?;
        self.store.create(id, write)
    }

    fn note(&self, id: &SessionId, write: Write<'_>) {
        if !write.companions.is_empty() {
            self.known().companions.insert(*id, write.companions.to_vec());
        }
    }
}

impl SessionStore for Broken {
    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let kept = self.known().companions.get(id).cloned().unwrap_or_default();
        let write = match self.fault {
            Fault::DropsUndeclaredCompanions => write.with_companions(&[]),
            Fault::KeepsCompanionsForTheId if write.companions.is_empty() => write.with_companions(&kept),
            _ => write,
        };
        self.write_allowed()?;
        if self.store.count()? >= self.bound {
            return Err(Error::new(ErrorKind::OutOfMemory, "creating a session"));
        }
        let write = match (self.fault, write.bind) {
            (Fault::AdmitsBeyondTheCap, Bind::WithinCap { principal, .. }) => {
                write.with_bind(Bind::To { principal, cap: None })
            }
            (Fault::EndsAllForACapOfZero, Bind::WithinCap { principal, cap: 0 }) => {
                write.with_bind(Bind::To { principal, cap: Some(0) })
            }
            _ => write,
        };
        let created = match self.store.create(id, write) {
            Ok(Created::OverCap) if self.is(Fault::StoresWhatIsBeyondTheCap) => {
                let _ = self.store.create(id, write.with_bind(Bind::Keep))?;
                Created::OverCap
            }
            Err(error) if self.is(Fault::EndsTheOldestWhenFull) && error.kind() == ErrorKind::OutOfMemory => {
                self.end_oldest_and_create(id, write)?
            }
            created => created?,
        };
        if let Bind::To { principal, .. } = write.bind {
            self.known().owners.insert(*id, principal.to_owned());
        }
        if matches!(created, Created::Stored(_)) {
            let until = write.ttl.map(|ttl| self.clock.now() + ttl.min(Duration::from_secs(1_000_000)));
            self.known().created.push((*id, write.payload.to_vec(), until));
            self.note(id, write);
        }
        Ok(created)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        let found = match (self.fault, touch, self.store.read(id, touch)?) {
            (Fault::TouchesWhilePeeking, Touch::Peek, _) => {
                self.store.read(id, Touch::Extend(Duration::from_secs(3600)))?
            }
            (Fault::TouchesBeforeItIsDue, Touch::SetIfDue { ttl, .. }, _) => self.store.read(id, Touch::Set(ttl))?,
            (Fault::TouchesTooFar, Touch::Set(ttl), Found::Live(stored)) => {
                let _ = self.store.read(id, Touch::Set(ttl.saturating_add(ttl / 64)))?;
                Found::Live(stored)
            }
            (Fault::HidesTheTimeLeft, Touch::Peek, Found::Live(stored)) => {
                Found::Live(Stored::new(stored.payload, stored.version, None))
            }
            (_, _, found) => found,
        };
        if self.is(Fault::CleansUpWhileReading) && matches!(found, Found::Absent) {
            self.delete(id)?;
        }
        let known = self.known();
        let waits = || known.created.iter().find(|(created, _, until)| created == id && until.is_some());
        Ok(match found {
            Found::Absent if self.is(Fault::ReadsWhatWaitsForAReaper) && known.keeps_expired => match waits() {
                Some((_, payload, _)) => Found::Live(Stored::new(payload.clone(), Version::new(payload), None)),
                None => Found::Absent,
            },
            found => found,
        })
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let write = if self.is(Fault::DropsUndeclaredCompanions) { write.with_companions(&[]) } else { write };
        self.write_allowed()?;
        let same_beginning = |version: &Version| {
            let payload = self.read_only(id).map(|stored| stored.payload).unwrap_or_default();
            let [one, other] = [&payload, version.as_bytes()].map(|bytes| &bytes[..bytes.len().min(16)]);
            one == other
        };
        let expected = expected.filter(|version| !(self.is(Fault::ComparesBeginningsOnly) && same_beginning(version)));
        let saved = self.store.save(id, write, expected)?;
        match &saved {
            Saved::Stored(_) if self.is(Fault::ForgetsCompanionsAtASave) => self.forget(id, id, write)?,
            Saved::Conflict(there) if self.is(Fault::WritesCompanionsOfARefusedSave) => {
                let as_it_was = Write::new(&there.payload, there.expires_in).with_companions(write.companions);
                let _ = self.store.save(id, as_it_was, None)?;
            }
            Saved::Stored(_) => self.note(id, write),
            _ => {}
        }
        Ok(saved)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let write = if self.is(Fault::DropsUndeclaredCompanions) { write.with_companions(&[]) } else { write };
        self.write_allowed()?;
        let inherited = self.known().companions.get(new).cloned().unwrap_or_default();
        let write = match self.fault {
            Fault::InheritsCompanionsOfAReusedId if write.companions.is_empty() => write.with_companions(&inherited),
            _ => write,
        };
        let saved = self.store.rotate(old, new, write, expected)?;
        if matches!(saved, Saved::Stored(_)) {
            self.known().renewed += 1;
            if self.is(Fault::ForgetsCompanionsAtARotation) {
                self.forget(old, new, write)?;
            }
        }
        Ok(saved)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        self.write_allowed()?;
        let stored = self.read_only(id);
        if let Some(stored) = stored
            && self.is(Fault::TellsWhatWasDeleted)
        {
            self.known().expired.push(Expired::new(self.handle(id), stored.payload));
        }
        self.known().created.retain(|(created, ..)| created != id || !self.is(Fault::ReadsWhatWaitsForAReaper));
        self.store.delete(id)
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        match self.fault {
            Fault::KeepsNoCompanionsAndDoesNotSay => Err(Error::new(ErrorKind::Unsupported, "preparing companions")),
            Fault::GivesASuffixTwice => self.store.keep_companions(suffixes).or(Ok(())),
            _ => self.store.keep_companions(suffixes),
        }
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let found = self.store.companion(id, suffix)?;
        let known = self.known();
        Ok(match self.fault {
            Fault::KeepsCompanionsForEver => found.or_else(|| {
                let noted = known.companions.get(id)?.iter().find(|companion| companion.suffix == suffix)?;
                Some(noted.value.clone())
            }),
            Fault::LetsCompanionsExpireAlone => found.filter(|_| {
                let until = known.created.iter().find(|(created, ..)| created == id).and_then(|(.., until)| *until);
                until.is_none_or(|until| until > self.clock.now())
            }),
            _ => found,
        })
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        Some(self)
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        let mut pages: Vec<KeyPage> = self.store.walk()?.collect::<Result<_>>()?;
        for page in pages.iter_mut().filter(|_| self.is(Fault::WalksPastOne)) {
            let last = self.known().created.iter().map(|(id, ..)| self.handle(id)).next_back();
            page.keys.retain(|key| Some(key.handle()) != last);
        }
        if let (Fault::WalksIntoTheDead, Some(page)) = (self.fault, pages.first_mut()) {
            let created = self.known().created.iter().map(|(id, ..)| *id).collect::<Vec<_>>();
            let dead = created.iter().filter(|id| self.read_only(id).is_none());
            page.keys.extend(dead.map(|id| SessionKey::new(self.handle(id), 0, id.expose())));
        }
        Ok(Box::new(pages.into_iter().map(Ok)))
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        match self.fault {
            Fault::WalksIntoTheDead => Ok(keys.iter().map(|key| Snapshot::new(key.clone(), "", None)).collect()),
            Fault::TouchesWhileWalking => {
                for key in keys {
                    let id = str::from_utf8(key.name()).unwrap().parse().unwrap();
                    let _ = self.store.read(&id, Touch::Set(Duration::from_secs(36_000)))?;
                }
                self.store.snapshots(keys)
            }
            _ => self.store.snapshots(keys),
        }
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        match self.fault {
            Fault::EndsKeysInVain => Ok(keys.len() as u64),
            _ => self.store.end_keys(keys),
        }
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        let saved = self.store.save_key(key, write, expected)?;
        match (self.fault, &saved) {
            (Fault::ChangesTheDeadline, Saved::Stored(_)) => {
                let created = self.known().created.clone();
                let id = created.iter().find(|(id, ..)| self.store.handle(id) == key.handle());
                let _ = self.store.read(&id.unwrap().0, Touch::Set(write.ttl.unwrap()))?;
                Ok(saved)
            }
            (Fault::ChangesWhatIsRenewed, Saved::Missing) => Ok(Saved::Stored(expected.clone())),
            _ => Ok(saved),
        }
    }
}

impl SessionIndex for Broken {
    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        self.store.owned_after(principal, partition, after)
    }

    fn keep_expired(&self) {
        self.known().keeps_expired = true;
        self.store.keep_expired();
    }

    fn stop_keeping_expired(&self) {
        if self.is(Fault::EndsEverythingWithItsReaper) {
            self.store.end_everybody().unwrap();
        }
        self.store.stop_keeping_expired();
    }

    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        if self.is(Fault::ReapsByTheFirstDeadline) {
            let now = self.clock.now();
            for (id, ..) in self.known().created.iter().filter(|(.., until)| until.is_some_and(|until| until <= now)) {
                self.store.delete(id)?;
            }
        }
        let mut reaped = match self.fault {
            Fault::ReapsBeyondTheLimit => self.store.reap(partition, usize::MAX, payloads)?,
            Fault::TellsUnasked => self.store.reap(partition, limit, true)?,
            _ => self.store.reap(partition, limit, payloads)?,
        };
        let mut known = self.known();
        match self.fault {
            Fault::HidesTheBacklog => reaped.backlog = 0,
            Fault::HasABacklogWithoutEnd => reaped.backlog += 1,
            Fault::TellsNobody => reaped.sessions.clear(),
            Fault::ReapsTheNewestFirst => {
                known.expired.extend(reaped.sessions);
                known.expired.extend(self.store.reap(partition, usize::MAX, payloads)?.sessions);
                let kept = known.expired.len().saturating_sub(limit);
                reaped.sessions = known.expired.split_off(kept);
                (reaped.removed, reaped.backlog) = (reaped.sessions.len() as u64, kept as u64);
            }
            Fault::TellsTwice if payloads => {
                let before = std::mem::replace(&mut known.expired, reaped.sessions.clone());
                reaped.removed += before.len() as u64;
                reaped.sessions.extend(before);
            }
            Fault::TellsWhatWasDeleted | Fault::EndsThemByLettingThemExpire
                if payloads && reaped.removed < limit as u64 =>
            {
                reaped.sessions.extend(known.expired.pop());
                reaped.removed = reaped.sessions.len() as u64;
                reaped.backlog += known.expired.len() as u64;
            }
            Fault::TellsTheFirstPayload => {
                for expired in &mut reaped.sessions {
                    let first = known.created.iter().find(|(id, ..)| self.handle(id) == expired.handle);
                    if let Some((_, payload, _)) = first {
                        expired.payload = payload.clone().into();
                    }
                }
            }
            _ => {}
        }
        Ok(reaped)
    }

    fn count(&self) -> Result<u64> {
        let (count, mut known) = (self.store.count()?, self.known());
        known.most = known.most.max(count);
        Ok(match self.fault {
            Fault::CountsWhatIsGone => known.most,
            Fault::CountsWhatWasRenewed => count + known.renewed,
            _ => count,
        })
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        let piece = |all: Vec<Entry>| all.into_iter().skip(offset).take(limit).collect();
        let all = || self.store.page(0, usize::MAX);
        match self.fault {
            Fault::ListsWhatIsGone => {
                let mut all = all()?;
                let created = self.known().created.iter().map(|(id, ..)| self.handle(id)).collect::<Vec<Handle>>();
                let gone = created.iter().filter(|handle| all.iter().all(|entry| entry.handle != **handle));
                let gone: Vec<Entry> = gone.map(|handle| Entry::new(*handle, Some(Duration::ZERO))).collect();
                all.extend(gone);
                Ok(piece(all))
            }
            Fault::ListsOnlyWhatExpires => {
                Ok(piece(all()?.into_iter().filter(|entry| entry.expires_in.is_some()).collect()))
            }
            Fault::ListsBackwards => Ok(piece(all()?.into_iter().rev().collect())),
            Fault::HasPagesOverlap => self.store.page(offset.saturating_sub(1), limit),
            Fault::HasPagesTooLarge => self.store.page(offset, limit.saturating_add(1)),
            _ => self.store.page(offset, limit),
        }
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let mut listed = self.store.list_by_principal(principal)?;
        if self.is(Fault::LeavesTheOwnerOfAReusedId) {
            let owned = self.known().owners.clone().into_iter().filter(|(_, owner)| owner == principal);
            let live = owned.filter_map(|(id, _)| Some((self.handle(&id), self.read_only(&id)?)));
            let missing: Vec<_> = live.filter(|(handle, _)| listed.iter().all(|one| one.handle != *handle)).collect();
            listed.extend(missing.into_iter().map(|(handle, stored)| Belonging::new(handle, stored.payload, None, 0)));
        }
        Ok(listed)
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        self.store.end(principal, which)
    }

    fn end_everybody(&self) -> Result<u64> {
        match self.fault {
            Fault::EndsNobody => self.store.count(),
            Fault::EndsNobodyWhoWasRenewed => {
                let created: Vec<SessionId> = self.known().created.iter().map(|(id, ..)| *id).collect();
                created.iter().try_fold(0, |ended, id| self.store.delete(id).map(|lived| ended + u64::from(lived)))
            }
            Fault::EndsThemUncounted => self.store.end_everybody().map(|_| 0),
            Fault::EndsWhatIsOverdue => {
                self.store.reap(0, usize::MAX, true)?;
                self.store.end_everybody()
            }
            Fault::EndsThemByLettingThemExpire => {
                for Entry { handle, .. } in self.store.page(0, usize::MAX)? {
                    self.known().expired.push(Expired::new(handle, "ended"));
                }
                self.store.end_everybody()
            }
            _ => self.store.end_everybody(),
        }
    }

    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        let kept = self.known().created.iter().map(|(id, ..)| *id).rfind(|id| self.read_only(id).is_some());
        let kept = kept.and_then(|id| Some((id, self.read_only(&id)?)));
        let ended = self.store.end_everybody_with(on_progress)?;
        if let (Fault::EndsAllKeysButOne, Some((id, stored))) = (self.fault, kept) {
            let _ = self.store.create(&id, Write::new(&stored.payload, stored.expires_in))?;
        }
        Ok(ended)
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        let mut verified = self.store.verify(options)?;
        match self.fault {
            Fault::MendsInVain => verified.corrected += 1,
            Fault::VerifiesAndEnds => {
                for (id, ..) in &self.known().created {
                    self.store.delete(id)?;
                }
            }
            Fault::VerifiesAndReaps => drop(self.store.reap(0, usize::MAX, true)?),
            _ => {}
        }
        Ok(verified)
    }
}

/// Returns the text with which the suite rejects a store with this fault.
fn complaint(fault: Fault) -> Option<String> {
    let clock = Clock::manual();
    let wait = |time| clock.advance(time);
    let broken = |store: MemorySessionStore| {
        let store = store.with_clock(clock.clone());
        Broken { store, clock: clock.clone(), fault, bound: u64::MAX, known: Mutex::default() }
    };
    let run = AssertUnwindSafe(|| {
        let mut store = broken(MemorySessionStore::new());
        contract::all(&store, wait);
        contract::companions(&mut store, wait);
        contract::everybody(&store, wait);
        let store = match fault {
            Fault::KeepsExpiredUncounted => Broken { bound: BOUND as u64, ..broken(MemorySessionStore::new()) },
            _ => broken(MemorySessionStore::new().with_max_sessions(BOUND)),
        };
        contract::bounded(&store, BOUND, wait);
        let store = broken(MemorySessionStore::new());
        contract::read_only(&store, || store.known().refuses_writes = true, wait);
    });
    let panic = catch_unwind(run).err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Some(text.expect("a text").to_owned())
}

#[test]
fn no_broken_promise_goes_unnoticed() {
    assert_eq!(complaint(Fault::None), None);
    for (fault, promise, says) in [
        (Fault::CountsWhatIsGone, "the_index_counts_what_lives", "is not counted"),
        (Fault::CountsWhatWasRenewed, "the_index_counts_what_lives", "is one session"),
        (Fault::ListsWhatIsGone, "the_index_lists_what_lives", "sessions are listed"),
        (Fault::ListsOnlyWhatExpires, "the_index_lists_what_lives", "sessions are listed"),
        (Fault::ListsBackwards, "the_index_lists_what_lives", "sessions are listed"),
        (Fault::HasPagesOverlap, "pages_are_pieces_of_one_list", "make up the whole list"),
        (Fault::HasPagesTooLarge, "pages_are_pieces_of_one_list", "on a page of"),
        (Fault::ReadsWhatWaitsForAReaper, "what_waits_for_a_reaper_is_absent", "should be absent"),
        (Fault::ReapsByTheFirstDeadline, "reaping_spares_what_was_used", "should live"),
        (Fault::ReapsBeyondTheLimit, "reaping_keeps_its_limit", "were removed, and 2 might be"),
        (Fault::ReapsTheNewestFirst, "reaping_keeps_its_limit", "the longest overdue first"),
        (Fault::HidesTheBacklog, "reaping_keeps_its_limit", "all are reported"),
        (Fault::HasABacklogWithoutEnd, "reaping_tells_what_expired_once", "the backlog never ends"),
        (Fault::TellsNobody, "reaping_tells_what_expired_once", "each expired session is reported"),
        (Fault::TellsUnasked, "reaping_tells_who_asks", "without a request for them"),
        (Fault::TellsTwice, "reaping_tells_what_expired_once", "is reported once"),
        (Fault::TellsTheFirstPayload, "reaping_tells_what_expired_once", "each expired session is reported"),
        (Fault::TellsWhatWasDeleted, "reaping_tells_what_expired_once", "each expired session is reported"),
        (Fault::MendsInVain, "verifying_leaves_a_healthy_index_alone", "nothing to correct"),
        (Fault::VerifiesAndEnds, "verifying_leaves_a_healthy_index_alone", "left == right"),
        (Fault::VerifiesAndReaps, "verifying_leaves_a_healthy_index_alone", "still waits"),
        (Fault::KeepsNoCompanionsAndDoesNotSay, "companions_are_unsupported", "the call should be rejected"),
        (Fault::DropsUndeclaredCompanions, "undeclared_companions_are_refused", "the call should be rejected"),
        (Fault::GivesASuffixTwice, "suffixes_are_not_shared", "accepted twice"),
        (Fault::ForgetsCompanionsAtASave, "companions_are_written_with_their_session", "outlast a save"),
        (Fault::ForgetsCompanionsAtARotation, "companions_move_with_their_session", "under the new id"),
        (Fault::KeepsCompanionsForEver, "companions_move_with_their_session", "under the old id"),
        (
            Fault::KeepsCompanionsForTheId,
            "companions_end_with_their_session",
            "under the id of a session that was deleted",
        ),
        (Fault::LetsCompanionsExpireAlone, "companions_live_as_long_as_their_session", "live on with their session"),
        (Fault::WritesCompanionsOfARefusedSave, "refused_writes_leave_companions_alone", "nothing was written"),
        (Fault::EndsNobody, "ending_all_ends_what_lives", "should be absent"),
        (Fault::EndsNobodyWhoWasRenewed, "ending_all_ends_what_lives", "should be absent"),
        (Fault::EndsThemUncounted, "ending_all_ends_what_lives", "sessions ended"),
        (Fault::EndsWhatIsOverdue, "ending_all_ends_what_lives", "left to the reaper"),
        (Fault::EndsThemByLettingThemExpire, "ending_all_ends_what_lives", "ended ones are not"),
        (Fault::ComparesBeginningsOnly, "a_version_names_one_write", "it should be a conflict"),
        (Fault::LeavesTheOwnerOfAReusedId, "a_reused_id_keeps_no_owner", "the sessions of ada have expired"),
        (Fault::InheritsCompanionsOfAReusedId, "a_reused_id_keeps_no_companions", "its own companions"),
        (Fault::EndsEverythingWithItsReaper, "keeping_can_be_taken_back", "should live"),
        (Fault::EndsTheOldestWhenFull, "a_full_store_ends_no_session", "it should fail"),
        (Fault::KeepsExpiredUncounted, "a_bound_counts_what_waits_for_a_reaper", "in a store of 5 in which one lives"),
        (Fault::CleansUpWhileReading, "reads_need_no_write", "the store failed"),
        (Fault::WalksPastOne, "a_walk_finds_what_lives_once", "listed once"),
        (Fault::WalksIntoTheDead, "a_walk_finds_what_lives_once", "listed once"),
        (Fault::TouchesWhilePeeking, "peeks_tell_the_time_left", "a peek moved the deadline"),
        (Fault::TouchesBeforeItIsDue, "touches_that_are_due_move_the_deadline", "left of"),
        (Fault::TouchesTooFar, "the_first_live_session_is_read", "left of"),
        (Fault::HidesTheTimeLeft, "peeks_tell_the_time_left", "the session has no deadline"),
        (Fault::TouchesWhileWalking, "a_walk_finds_what_lives_once", "listed once"),
        (Fault::EndsKeysInVain, "a_handle_ends_its_session", "AlreadyGone"),
        (Fault::EndsAllKeysButOne, "ending_all_reports_its_progress", "should be absent"),
        (Fault::AdmitsBeyondTheCap, "a_full_principal_gets_no_session", "the cap holds"),
        (Fault::StoresWhatIsBeyondTheCap, "a_full_principal_gets_no_session", "should be absent"),
        (Fault::EndsAllForACapOfZero, "a_cap_of_zero_admits_no_session", "a login should be rejected"),
        (Fault::ChangesTheDeadline, "principals_sessions_change_from_outside", "the deadline stays"),
        (Fault::ChangesWhatIsRenewed, "principals_sessions_change_from_outside", "there should be no session"),
    ] {
        let complaint = complaint(fault).unwrap_or_else(|| panic!("{fault:?} goes unnoticed"));
        assert!(complaint.contains(&format!("promise `{promise}`: ")), "{fault:?}: {complaint}");
        assert!(complaint.contains(says), "{fault:?}: {complaint}");
    }
}
