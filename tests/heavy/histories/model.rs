//! The model: the expected result of every operation, and the expected state afterwards.
//!
//! `explore.rs` runs it next to a store. The invariant: it knows no command of Redis. Most rules are those of the contract. Two are
//! rules of the Redis store, taken from its scripts: entries of a session that Redis dropped stay in the index and with the owner
//! until an operation meets them, and an expired session loses its owner if an operation tries to end it.

use threaded_sessions::store::Verified;

use crate::operations::{Act, Expect, Operation, Principal, SLOTS, Target};

/// The hours that a session lives after each kind of write; `None`: for ever.
pub(crate) const AFTER: Times =
    Times { create: Some(1), touch: Some(2), bind: Some(2), save: Some(3), blind_save: None, rotate: Some(4) };

pub(crate) struct Times {
    pub(crate) create: Option<u64>,
    pub(crate) touch: Option<u64>,
    pub(crate) bind: Option<u64>,
    pub(crate) save: Option<u64>,
    pub(crate) blind_save: Option<u64>,
    pub(crate) rotate: Option<u64>,
}

/// How many versions of a session a client may still expect.
const REMEMBERED_VERSIONS: usize = 3;

/// The kind of a store, and what its sessions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) expiring: bool,
    pub(crate) companions: bool,
    pub(crate) cap: Cap,
}

/// The effect of a second login of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cap {
    None,
    EndsTheFirst,
    RefusesTheSecond,
}

/// The result of an operation. Payloads are numbers here, TTLs are hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Stored,
    Taken,
    OverCap,
    Missing,
    Conflict {
        payload: u32,
        hours: Option<u64>,
    },
    Live {
        payload: u32,
        hours: Option<u64>,
    },
    Renewed,
    Absent,
    Ended(u64),
    /// The payloads of the sessions that were removed.
    Reaped(Vec<u32>),
    Verified(Verified),
    Failed(threaded_sessions::ErrorKind),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Model {
    pub(crate) kind: Kind,
    slots: [Slot; SLOTS],
    used_slots: usize,
    used_principals: usize,
    /// The number of payloads so far.
    payloads: u32,
    /// The number of times at which a principal got a session.
    times: u32,
}

/// A session under all the ids that it had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    /// The latest is the last.
    pub(crate) ids: Vec<Id>,
    /// Payloads that were stored, the latest last.
    stored: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) session: Option<Record>,
    pub(crate) has_tombstone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) payload: u32,
    pub(crate) hours: Option<u64>,
    pub(crate) stage: Stage,
    /// The principal, and when it got the session.
    pub(crate) owner: Option<(Principal, u32)>,
    /// The payload with which the companion was written.
    pub(crate) companion: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Live,
    /// The data waits for a reaper.
    Expired,
    /// Redis dropped the data. Index and owner still have the session.
    Dropped,
}

/// The effect of a write on the owner.
#[derive(Clone, Copy)]
enum Bind {
    Keep,
    To(Option<Principal>),
}

impl Model {
    pub(crate) fn new(kind: Kind) -> Self {
        let slot = || Slot { ids: vec![Id::default()], stored: Vec::new() };
        let slots = [slot(), slot()];
        Self { kind, slots, used_slots: 0, used_principals: 0, payloads: 0, times: 0 }
    }

    pub(crate) fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    pub(crate) fn used_slots(&self) -> usize {
        self.used_slots
    }

    pub(crate) fn used_principals(&self) -> usize {
        self.used_principals
    }

    /// The number of the next payload.
    pub(crate) fn next_payload(&self) -> u32 {
        self.payloads + 1
    }

    /// The position of an id among those of its slot.
    pub(crate) fn position(&self, target: Target) -> usize {
        self.slots[target.slot].ids.len() - 1 - target.age
    }

    pub(crate) fn id(&self, target: Target) -> &Id {
        &self.slots[target.slot].ids[self.position(target)]
    }

    fn id_mut(&mut self, target: Target) -> &mut Id {
        let position = self.position(target);
        &mut self.slots[target.slot].ids[position]
    }

    /// The payload that a write expects, if there is such a payload.
    pub(crate) fn expected(&self, target: Target, expect: Expect) -> Option<u32> {
        let stored = &self.slots[target.slot].stored;
        let live = self.live(target).map(|record| record.payload);
        match expect {
            Expect::Any => None,
            Expect::Current => live.or(stored.last().copied()),
            Expect::Stale => live.and_then(|live| stored.iter().rev().find(|payload| **payload != live).copied()),
        }
    }

    fn live(&self, target: Target) -> Option<&Record> {
        self.id(target).session.as_ref().filter(|record| record.stage == Stage::Live)
    }

    /// All sessions, with their ids: those that live, and what is left of others.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, usize, &Record)> {
        self.slots.iter().enumerate().flat_map(|(slot, Slot { ids, .. })| {
            let records = ids.iter().enumerate();
            records.filter_map(move |(position, id)| Some((slot, position, id.session.as_ref()?)))
        })
    }

    fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Option<Record>> {
        self.slots.iter_mut().flat_map(|slot| &mut slot.ids).map(|id| &mut id.session)
    }

    /// Carries out an operation.
    pub(crate) fn take(&mut self, operation: Operation) -> Answer {
        match operation {
            Operation::On(target, act) => {
                self.used_slots = self.used_slots.max(target.slot + 1);
                self.act(target, act)
            }
            Operation::EndAll(principal) => {
                self.use_principal(principal);
                self.end_where(|record| record.owner.is_some_and(|(owner, _)| owner == principal))
            }
            Operation::EndEverybody => self.end_where(|_| true),
            Operation::Reap => self.reap(),
            Operation::Verify => self.verify(),
        }
    }

    fn act(&mut self, target: Target, act: Act) -> Answer {
        match act {
            Act::Create => self.create(target),
            Act::Read => self.read(target, None),
            Act::Touch => self.read(target, Some(AFTER.touch)),
            Act::Save(Expect::Any) => self.save(target, Expect::Any, AFTER.blind_save, Bind::Keep),
            Act::Save(expect) => self.save(target, expect, AFTER.save, Bind::Keep),
            Act::Bind(owner) => self.save(target, Expect::Current, AFTER.bind, Bind::To(owner)),
            Act::Rotate(expect) => self.rotate(target, expect, Bind::Keep),
            Act::Login(owner) => self.rotate(target, Expect::Current, Bind::To(Some(owner))),
            Act::Delete => self.delete(target),
            Act::End(principal) => {
                self.use_principal(principal);
                let is_theirs =
                    self.live(target).is_some_and(|record| record.owner.is_some_and(|(o, _)| o == principal));
                if is_theirs {
                    self.id_mut(target).session = None;
                }
                Answer::Ended(is_theirs.into())
            }
            Act::Expire => self.expire(target),
        }
    }

    fn create(&mut self, target: Target) -> Answer {
        self.payloads += 1;
        if self.live(target).is_some() {
            return Answer::Taken;
        }
        let (payload, companions) = (self.payloads, self.kind.companions);
        let companion = companions.then_some(payload);
        let record = Record { payload, hours: AFTER.create, stage: Stage::Live, owner: None, companion };
        self.id_mut(target).session = Some(record);
        self.note(target.slot);
        Answer::Stored
    }

    fn read(&mut self, target: Target, touch: Option<Option<u64>>) -> Answer {
        let is_plain = !self.kind.expiring;
        let id = self.id_mut(target);
        match &mut id.session {
            Some(record) if record.stage == Stage::Live => {
                if let Some(hours) = touch {
                    record.hours = hours;
                }
                // A plain store does not know the time left without another command.
                let hours = if is_plain { touch.unwrap_or_default() } else { record.hours };
                Answer::Live { payload: record.payload, hours }
            }
            _ if id.has_tombstone => Answer::Renewed,
            _ => Answer::Absent,
        }
    }

    /// Why a write stores nothing, if it does not.
    fn obstacle(&self, target: Target, expect: Expect, bind: Bind) -> Option<Answer> {
        let Some(record) = self.live(target) else { return Some(Answer::Missing) };
        if expect == Expect::Stale {
            return Some(Answer::Conflict { payload: record.payload, hours: record.hours });
        }
        let Bind::To(Some(principal)) = bind else { return None };
        let is_theirs = |record: &Record| record.owner.is_some_and(|(owner, _)| owner == principal);
        let has_another = self.records().any(|(_, _, record)| record.stage == Stage::Live && is_theirs(record));
        let is_refused = self.kind.cap == Cap::RefusesTheSecond && has_another && !is_theirs(record);
        is_refused.then_some(Answer::OverCap)
    }

    fn save(&mut self, target: Target, expect: Expect, hours: Option<u64>, bind: Bind) -> Answer {
        self.begin_write(bind);
        if let Some(obstacle) = self.obstacle(target, expect, bind) {
            return obstacle;
        }
        let (payload, companions) = (self.payloads, self.kind.companions && expect == Expect::Current);
        let owner = self.owner_after(target, bind);
        let record = self.id_mut(target).session.as_mut().expect("it lives");
        (record.payload, record.hours, record.owner) = (payload, hours, owner);
        if companions && matches!(bind, Bind::Keep) {
            record.companion = Some(payload);
        }
        if matches!(bind, Bind::To(_)) {
            self.look_at_owned(target);
        }
        self.note(target.slot);
        Answer::Stored
    }

    fn rotate(&mut self, target: Target, expect: Expect, bind: Bind) -> Answer {
        self.begin_write(bind);
        if let Some(obstacle) = self.obstacle(target, expect, bind) {
            return obstacle;
        }
        let (payload, owner) = (self.payloads, self.owner_after(target, bind));
        let old = self.id_mut(target);
        old.has_tombstone = true;
        let mut record = old.session.take().expect("it lives");
        (record.payload, record.hours, record.owner) = (payload, AFTER.rotate, owner);
        self.slots[target.slot].ids.push(Id { session: Some(record), has_tombstone: false });
        self.look_at_owned(Target { age: 0, ..target });
        self.note(target.slot);
        Answer::Stored
    }

    fn begin_write(&mut self, bind: Bind) {
        self.payloads += 1;
        if let Bind::To(Some(principal)) = bind {
            self.use_principal(principal);
        }
    }

    fn use_principal(&mut self, principal: Principal) {
        self.used_principals = self.used_principals.max(principal + 1);
    }

    /// Remembers that the newest payload was stored.
    fn note(&mut self, slot: usize) {
        let stored = &mut self.slots[slot].stored;
        stored.push(self.payloads);
        if stored.len() > REMEMBERED_VERSIONS {
            stored.remove(0);
        }
    }

    /// An owner that has the session already keeps the time at which it got it.
    fn owner_after(&mut self, target: Target, bind: Bind) -> Option<(Principal, u32)> {
        let had = self.live(target).expect("it lives").owner;
        match bind {
            Bind::Keep => had,
            Bind::To(None) => None,
            Bind::To(Some(principal)) if had.is_some_and(|(owner, _)| owner == principal) => had,
            Bind::To(Some(principal)) => {
                self.times += 1;
                Some((principal, self.times))
            }
        }
    }

    /// A binding looks at the other sessions of the owner: it forgets those that Redis dropped, and ends those beyond the cap.
    fn look_at_owned(&mut self, target: Target) {
        let record = self.live(target).expect("it lives").clone();
        let Some((principal, _)) = record.owner else { return };
        let cap = self.kind.cap;
        for session in self.sessions_mut() {
            let is_another = |other: &Record| other.payload != record.payload;
            let is_theirs = |other: &Record| other.owner.is_some_and(|(owner, _)| owner == principal);
            let ends = |other: &Record| match other.stage {
                Stage::Live => cap == Cap::EndsTheFirst,
                Stage::Expired => false,
                Stage::Dropped => true,
            };
            if session.as_ref().is_some_and(|other| is_another(other) && is_theirs(other) && ends(other)) {
                *session = None;
            }
        }
    }

    fn delete(&mut self, target: Target) -> Answer {
        Answer::Ended(end(&mut self.id_mut(target).session).into())
    }

    fn end_where(&mut self, is_meant: impl Fn(&Record) -> bool) -> Answer {
        let meant = self.sessions_mut().filter(|session| session.as_ref().is_some_and(&is_meant));
        Answer::Ended(meant.map(|session| u64::from(end(session))).sum())
    }

    fn expire(&mut self, target: Target) -> Answer {
        let is_plain = !self.kind.expiring;
        let id = self.id_mut(target);
        match &mut id.session {
            Some(_) if is_plain => id.session = None,
            Some(record) if record.stage == Stage::Live => {
                (record.stage, record.hours) = (Stage::Expired, Some(0));
            }
            Some(record) if record.stage == Stage::Expired => {
                (record.stage, record.companion) = (Stage::Dropped, None);
            }
            _ => id.has_tombstone = false,
        }
        Answer::Done
    }

    fn reap(&mut self) -> Answer {
        let mut payloads = Vec::new();
        for session in self.sessions_mut() {
            let Some(record) = session.take_if(|record| record.stage != Stage::Live) else { continue };
            if record.stage == Stage::Expired {
                payloads.push(record.payload);
            }
        }
        payloads.sort_unstable();
        Answer::Reaped(payloads)
    }

    /// Finds what is left of sessions that Redis dropped.
    fn verify(&mut self) -> Answer {
        let mut verified = Verified::default();
        for session in self.sessions_mut() {
            let Some(dropped) = session.take_if(|record| record.stage == Stage::Dropped) else { continue };
            let owned = u64::from(dropped.owner.is_some());
            verified.dropped += 1;
            verified.owners_dropped += owned;
            verified.owned_dropped += owned;
        }
        Answer::Verified(verified)
    }

    /// The model with payloads and times numbered in their order: equal if all later results are the same.
    pub(crate) fn canonical(&self) -> Self {
        let mut model = self.clone();
        let (mut payloads, mut times) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            payloads.extend(&slot.stored);
            for record in slot.ids.iter().filter_map(|id| id.session.as_ref()) {
                payloads.extend([Some(record.payload), record.companion].into_iter().flatten());
                times.extend(record.owner.map(|(_, time)| time));
            }
        }
        payloads.sort_unstable();
        times.sort_unstable();
        payloads.dedup();
        let rank = |all: &[u32], number: u32| all.binary_search(&number).expect("it was collected") as u32;
        for slot in &mut model.slots {
            slot.stored.iter_mut().for_each(|payload| *payload = rank(&payloads, *payload));
            for record in slot.ids.iter_mut().filter_map(|id| id.session.as_mut()) {
                record.payload = rank(&payloads, record.payload);
                record.companion = record.companion.map(|companion| rank(&payloads, companion));
                record.owner = record.owner.map(|(owner, time)| (owner, rank(&times, time)));
            }
        }
        (model.payloads, model.times) = (0, 0);
        model
    }
}

/// Ends a session, and returns whether it was live. The data of an expired one stays for the reaper, without an owner.
fn end(session: &mut Option<Record>) -> bool {
    let was_live = session.as_ref().is_some_and(|record| record.stage == Stage::Live);
    match session {
        Some(record) if record.stage == Stage::Expired => record.owner = None,
        _ => *session = None,
    }
    was_live
}
