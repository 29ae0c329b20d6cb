//! The model of a store, next to the store itself: every step runs on both, and their results must agree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::time::UNIX_EPOCH;

use threaded_sessions::store::{Found, Touch};
use threaded_sessions::{ErrorKind, Handle, OnConflict, Outcome, Session, SessionId, SessionManager};

use crate::ground::Ground;
use crate::steps::{FIELDS, HANDS, PRINCIPALS, Step};

const CAP: usize = 2;

type Fields = BTreeMap<String, u64>;

/// The stored state of a session, as an application sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    fields: Fields,
    /// Principal and label.
    bound: Option<(&'static str, String)>,
}

impl State {
    fn who(&self) -> Option<&'static str> {
        self.bound.as_ref().map(|(who, _)| *who)
    }

    fn bound(&self) -> Option<(&str, &str)> {
        self.bound.as_ref().map(|(who, label)| (*who, &**label))
    }

    fn add(mut self, field: u8) -> Self {
        increment(&mut self.fields, field);
        self
    }

    /// Applies the changes from `base` to `self` to `there`.
    fn merged(&self, base: &Self, there: &Self) -> Self {
        let mut merged = there.clone();
        for field in FIELDS {
            if self.fields.get(field) != base.fields.get(field) {
                match self.fields.get(field) {
                    Some(value) => merged.fields.insert(field.to_owned(), *value),
                    None => merged.fields.remove(field),
                };
            }
        }
        // Another label does not give the session back to a principal who no longer owns it.
        let is_relabelled = self.who().is_some() && self.who() == base.who();
        if self.bound != base.bound && !(is_relabelled && there.who() != self.who()) {
            merged.bound = self.bound.clone();
        }
        merged
    }
}

/// The fate of an id.
#[derive(Debug)]
enum Fate {
    Lives(Record),
    Renewed,
    Gone,
}

#[derive(Clone, Debug)]
struct Record {
    state: State,
    version: u64,
    created: u128,
    /// Since when it belongs to its principal.
    since: u64,
}

/// A session that a request holds.
struct Held {
    session: Session<Fields>,
    id: Option<SessionId>,
    version: u64,
    /// As it was stored when this request last saw it.
    base: State,
    mine: State,
    change: Change,
    policy: OnConflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    None,
    Value,
    Renew,
    Discard,
    Destroy,
}

impl Held {
    fn mark(&mut self, change: Change) {
        self.change = self.change.max(change);
    }

    fn is_modified(&self) -> bool {
        self.change != Change::None && self.mine != self.base
    }
}

/// The state that a write stores, and the owner that the writer knew.
struct Written {
    state: State,
    owner: Option<&'static str>,
}

pub(crate) struct World {
    ground: Box<dyn Ground>,
    sessions: SessionManager<Fields>,
    /// `true` if the store has an index of principals.
    indexed: bool,
    ids: Vec<(SessionId, Fate)>,
    hands: [Option<Held>; HANDS as usize],
    expired: HashSet<Handle>,
    versions: u64,
}

impl World {
    pub(crate) fn new(ground: Box<dyn Ground>) -> Self {
        let store = ground.store();
        let indexed = store.index().is_some();
        let builder = SessionManager::builder(store).cookie_name("id").secure(false);
        let builder = if indexed { builder.max_per_principal(CAP as u32) } else { builder };
        let sessions = builder.build().unwrap();
        if let Some(index) = sessions.store().index() {
            // From now on the memory store keeps what expires for the reaper.
            index.reap(0, 1, true).unwrap();
        }
        let (ids, hands, expired) = (Vec::new(), [const { None }; HANDS as usize], HashSet::new());
        Self { ground, sessions, indexed, ids, hands, expired, versions: 0 }
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::Open { hand, id } => {
                let held = self.open(id);
                self.hands[usize::from(hand)] = Some(held);
            }
            Step::Fresh { hand } => self.hands[usize::from(hand)] = Some(self.fresh()),
            Step::Put { hand, field, value } => self.on(hand, Change::Value, |held| {
                held.session.insert(FIELDS[usize::from(field)].to_owned(), value);
                held.mine.fields.insert(FIELDS[usize::from(field)].to_owned(), value);
            }),
            Step::Remove { hand, field } => self.on(hand, Change::Value, |held| {
                held.session.remove(FIELDS[usize::from(field)]);
                held.mine.fields.remove(FIELDS[usize::from(field)]);
            }),
            Step::Bind { hand, who, label } => self.on(hand, Change::Value, |held| {
                let (who, label) = (PRINCIPALS[usize::from(who)], label.to_string());
                held.session.bind(who, &label);
                held.mine.bound = Some((who, label));
            }),
            Step::Unbind { hand } => self.on(hand, Change::Value, |held| {
                held.session.unbind();
                held.mine.bound = None;
            }),
            Step::Renew { hand } => self.on(hand, Change::Renew, |held| held.session.renew()),
            Step::Discard { hand } => self.on(hand, Change::Discard, |held| held.session.discard()),
            Step::Destroy { hand } => self.on(hand, Change::Destroy, |held| held.session.destroy()),
            Step::OnConflict { hand, policy } => self.on(hand, Change::None, |held| {
                held.session.on_conflict(policy);
                held.policy = policy;
            }),
            Step::Commit { hand } => self.commit(hand),
            Step::UpdateIn { hand, field } => self.update_in(hand, field),
            Step::Update { id, field } => self.update(id, field),
            Step::EndAll { who } => self.end_all(PRINCIPALS[usize::from(who)]),
            Step::EndEverybody => self.end_everybody(),
            Step::EndOthers { hand } => self.end_others(hand),
            Step::End { who, id } => self.end_one(PRINCIPALS[usize::from(who)], id),
            Step::Expire { id } => self.expire(id),
            Step::Reap => self.reap(),
        }
    }

    /// Compares all that can be seen.
    pub(crate) fn check(&self) {
        let store = self.sessions.store();
        for (id, fate) in &self.ids {
            let found = self.sessions.open_id(id).unwrap();
            match (fate, found) {
                (Fate::Lives(record), Some(session)) => {
                    assert_eq!((&*session, bound(&session)), (&record.state.fields, record.state.bound()));
                }
                (Fate::Lives(record), None) => panic!("it should live: {record:?}"),
                (fate, Some(_)) => panic!("it should not live: {fate:?}"),
                (fate, None) => {
                    let renewed = matches!(store.read(id, Touch::No).unwrap(), Found::Renewed);
                    assert_eq!(renewed, matches!(fate, Fate::Renewed));
                }
            }
        }
        for held in self.hands.iter().flatten() {
            assert_eq!((&*held.session, bound(&held.session)), (&held.mine.fields, held.mine.bound()));
        }
        let Some(index) = store.index() else { return };
        for who in PRINCIPALS {
            let his: Vec<_> =
                self.of(who).into_iter().map(|id| (store.handle(&id), self.record(&id).unwrap())).collect();
            let shown = self.sessions.list(who).unwrap();
            let shown = shown.into_iter().map(|shown| {
                (shown.handle, (who, shown.label), shown.created.duration_since(UNIX_EPOCH).unwrap().as_millis())
            });
            let expected =
                his.iter().map(|(handle, record)| (*handle, record.state.bound.clone().unwrap(), record.created));
            assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "sessions of {who}");
            let since: Vec<u64> =
                index.list_by_principal(who).unwrap().iter().map(|belonging| belonging.since).collect();
            assert_eq!(
                since,
                his.iter().map(|(_, record)| record.since).collect::<Vec<_>>(),
                "since when {who} has them"
            );
        }
    }

    /// When all sessions have ended nothing is left of them.
    pub(crate) fn end(mut self) {
        for (id, fate) in &self.ids {
            if matches!(fate, Fate::Lives(_)) {
                self.sessions.store().delete(id).unwrap();
            }
        }
        self.reap();
        assert_eq!(self.ground.leftovers(), [""; 0]);
    }

    fn open(&mut self, id: u8) -> Held {
        let Some(id) = self.id(id) else { return self.fresh() };
        let cookie = format!("id={}", id.expose());
        let session = self.sessions.open([&*cookie]).unwrap();
        let (id, record) = match &self.fate(&id) {
            Fate::Lives(record) => (Some(id), record.clone()),
            Fate::Renewed => {
                assert!(session.is_detached());
                return Self::held(session, None, 0, State::default());
            }
            Fate::Gone => (None, Record { state: State::default(), version: 0, created: 0, since: 0 }),
        };
        assert_eq!((session.id().copied(), session.is_new()), (id, id.is_none()));
        Self::held(session, id, record.version, record.state)
    }

    fn fresh(&self) -> Held {
        Self::held(self.sessions.fresh(), None, 0, State::default())
    }

    fn held(session: Session<Fields>, id: Option<SessionId>, version: u64, state: State) -> Held {
        let (change, policy) = (Change::None, OnConflict::Merge);
        Held { session, id, version, base: state.clone(), mine: state, change, policy }
    }

    fn on(&mut self, hand: u8, change: Change, act: impl FnOnce(&mut Held)) {
        let mut held = self.from(hand);
        act(&mut held);
        held.mark(change);
        self.hands[usize::from(hand)] = Some(held);
    }

    fn from(&mut self, hand: u8) -> Held {
        self.hands[usize::from(hand)].take().unwrap_or_else(|| self.open(0))
    }

    fn commit(&mut self, hand: u8) {
        let held = self.from(hand);
        let expected = self.committed(&held);
        let stored = match &expected {
            Ok((Outcome::Stored, _)) => self.written(&held, false).unwrap().map(|written| (written, held.id)),
            _ => None,
        };
        let created = held.session.created().duration_since(UNIX_EPOCH).unwrap().as_millis();
        self.ground.tick();
        let result = self.sessions.commit(held.session);
        let got = result.as_ref().map(|committed| (committed.outcome(), committed.id().copied())).map_err(|e| e.kind());
        match expected {
            Ok((outcome, Some(at))) => assert_eq!(got, Ok((outcome, at))),
            Ok((outcome, None)) => assert_eq!(got.map(|(outcome, _)| outcome), Ok(outcome)),
            Err(kind) => assert_eq!(got, Err(kind)),
        }
        if let (Some((written, from)), Ok(committed)) = (stored, &result) {
            self.put(*committed.id().expect("it is stored"), from, written, created);
        } else if let (Ok((Outcome::Destroyed, _)), Some(id)) = (got, held.id) {
            self.bury(&id);
        }
    }

    /// The expected result of a commit, with the id unless it is a new one.
    fn committed(&self, held: &Held) -> Result<(Outcome, Option<Option<SessionId>>), ErrorKind> {
        let (detached, renewed) = (held.session.is_detached(), self.is_renewed(held));
        Ok(match held.change {
            Change::None | Change::Discard => (Outcome::Unchanged, Some(held.id)),
            Change::Value if !held.is_modified() => (Outcome::Unchanged, Some(held.id)),
            Change::Value | Change::Destroy if detached => (Outcome::Detached, Some(None)),
            Change::Destroy if renewed => (Outcome::Detached, Some(None)),
            Change::Destroy if held.id.is_none() => (Outcome::Unchanged, Some(None)),
            Change::Destroy => (Outcome::Destroyed, Some(None)),
            Change::Value | Change::Renew => match self.written(held, false)? {
                Some(_) if held.change == Change::Renew || held.id.is_none() => (Outcome::Stored, None),
                Some(_) => (Outcome::Stored, Some(held.id)),
                None if renewed => (Outcome::Detached, Some(None)),
                None => (Outcome::Dropped, Some(None)),
            },
        })
    }

    /// The expected result of storing a session now; `None` if the session has ended. An `exact` write compares versions under
    /// every policy.
    fn written(&self, held: &Held, exact: bool) -> Result<Option<Written>, ErrorKind> {
        if !self.indexed && held.mine.bound.is_some() {
            return Err(ErrorKind::Unsupported);
        }
        let mine =
            || Written { state: held.mine.clone(), owner: if held.id.is_some() { held.base.who() } else { None } };
        let Some(id) = held.id else { return Ok(Some(mine())) };
        let Some(there) = self.record(&id) else { return Ok(None) };
        let theirs = |state| Written { state, owner: there.state.who() };
        Ok(Some(match held.policy {
            _ if there.version == held.version => mine(),
            _ if !held.is_modified() => theirs(there.state.clone()),
            // No policy is about a change that leaves the value alone.
            _ if held.mine.fields == held.base.fields => theirs(held.mine.merged(&held.base, &there.state)),
            OnConflict::LastWriteWins if !exact => mine(),
            OnConflict::Fail if there.state != held.base => return Err(ErrorKind::Conflict),
            _ => theirs(held.mine.merged(&held.base, &there.state)),
        }))
    }

    fn update_in(&mut self, hand: u8, field: u8) {
        let mut held = self.from(hand);
        let refused = held.change >= Change::Discard || (held.session.is_detached() && held.change != Change::Renew);
        let expected = if refused { Ok(None) } else { self.written(&held, true) };
        self.ground.tick();
        let updated = self.sessions.update_in(&mut held.session, |fields| increment(fields, field));
        let updated = updated.map_err(|error| error.kind());
        match expected {
            Ok(None) => assert_eq!(updated, Ok(None)),
            Err(kind) => assert_eq!(updated, Err(kind)),
            Ok(Some(Written { state, owner })) => {
                let state = state.add(field);
                assert_eq!(updated, Ok(Some(state.fields[FIELDS[usize::from(field)]])));
                let (id, from) = (*held.session.id().expect("it is stored"), held.id);
                let created = held.session.created().duration_since(UNIX_EPOCH).unwrap().as_millis();
                self.put(id, from, Written { state: state.clone(), owner }, created);
                (held.id, held.version, held.base, held.mine) = (Some(id), self.versions, state.clone(), state);
                held.change = Change::None;
            }
        }
        self.hands[usize::from(hand)] = Some(held);
    }

    fn update(&mut self, id: u8, field: u8) {
        let Some(id) = self.id(id) else { return };
        let updated = self.sessions.update(&id, |fields| increment(fields, field)).unwrap();
        let Some(record) = self.record(&id).cloned() else { return assert_eq!(updated, None) };
        let written = Written { owner: record.state.who(), state: record.state.add(field) };
        assert_eq!(updated, Some(written.state.fields[FIELDS[usize::from(field)]]));
        self.put(id, Some(id), written, record.created);
    }

    fn end_all(&mut self, who: &'static str) {
        let ended = self.sessions.end_all(who).map_err(|error| error.kind());
        if !self.indexed {
            return assert_eq!(ended, Err(ErrorKind::Unsupported));
        }
        let his = self.of(who);
        assert_eq!(ended, Ok(his.len() as u64));
        his.iter().for_each(|id| self.bury(id));
    }

    fn end_everybody(&mut self) {
        let ended = self.sessions.end_everybody().map_err(|error| error.kind());
        let live: Vec<SessionId> = self.ids.iter().map(|(id, _)| *id).filter(|id| self.record(id).is_some()).collect();
        assert_eq!(ended, Ok(live.len() as u64));
        live.iter().for_each(|id| self.bury(id));
        assert_eq!(self.sessions.all().count().unwrap(), 0);
        if let Some(index) = self.sessions.store().index() {
            assert_eq!((index.count().unwrap(), index.page(0, 100).unwrap()), (0, vec![]));
        }
    }

    fn end_others(&mut self, hand: u8) {
        let held = self.from(hand);
        let ended = self.sessions.end_others(&held.session).map_err(|error| error.kind());
        let kept = held.id.filter(|_| held.base.who() == held.mine.who());
        match held.mine.who() {
            None => assert_eq!(ended, Ok(0)),
            Some(_) if !self.indexed => assert_eq!(ended, Err(ErrorKind::Unsupported)),
            Some(who) => {
                let mut his = self.of(who);
                if kept.is_some_and(|kept| !his.contains(&kept)) {
                    assert_eq!(ended, Err(ErrorKind::Conflict));
                } else {
                    his.retain(|id| Some(*id) != kept);
                    assert_eq!(ended, Ok(his.len() as u64));
                    his.iter().for_each(|id| self.bury(id));
                }
            }
        }
        self.hands[usize::from(hand)] = Some(held);
    }

    fn end_one(&mut self, who: &'static str, id: u8) {
        let Some(id) = self.id(id) else { return };
        let ended = self.sessions.end(who, self.sessions.store().handle(&id)).map_err(|error| error.kind());
        if !self.indexed {
            return assert_eq!(ended, Err(ErrorKind::Unsupported));
        }
        let his = self.of(who).contains(&id);
        assert_eq!(ended, Ok(his));
        if his {
            self.bury(&id);
        }
    }

    fn expire(&mut self, id: u8) {
        let Some(id) = self.id(id) else { return };
        if self.record(&id).is_some() {
            self.ground.expire(&id);
            self.bury(&id);
            self.expired.insert(self.sessions.store().handle(&id));
        }
    }

    /// The reaper gets what expired, once, and nothing that lives.
    fn reap(&mut self) {
        let Some(index) = self.sessions.store().index() else { return };
        for partition in 0..index.partitions() {
            for expired in index.reap(partition, 1000, true).unwrap().sessions {
                assert!(self.expired.remove(&expired.handle), "{expired:?} did not expire");
            }
        }
        self.expired.clear();
    }

    /// Notes that a session was stored, at another id than it comes `from` if it was renewed.
    fn put(&mut self, at: SessionId, from: Option<SessionId>, written: Written, created: u128) {
        let before = from.and_then(|from| self.record(&from)).cloned();
        let (who, owner) = (written.state.who(), written.owner);
        self.versions += 1;
        let created = before.as_ref().map_or(created, |before| before.created);
        let since = match (who, before) {
            (None, _) => 0,
            (Some(_), Some(before)) if before.state.who() == who => before.since,
            (Some(who), _) => self.since(who, &at),
        };
        let record = Record { state: written.state, version: self.versions, created, since };
        if let Some(from) = from.filter(|from| *from != at) {
            self.ground.keep_mark(&from);
            *self.fate_mut(&from) = Fate::Renewed;
        }
        match from {
            Some(from) if from == at => *self.fate_mut(&at) = Fate::Lives(record),
            _ => self.ids.push((at, Fate::Lives(record))),
        }
        if let Some(who) = who.filter(|_| who != owner) {
            self.enforce_cap(who, &at);
        }
    }

    /// The one thing the model takes from the store: what time it was.
    fn since(&self, who: &str, id: &SessionId) -> u64 {
        let store = self.sessions.store();
        let his = store.index().expect("it knows principals").list_by_principal(who).unwrap();
        his.iter().find(|belonging| belonging.handle == store.handle(id)).expect("it was bound").since
    }

    fn enforce_cap(&mut self, who: &'static str, newest: &SessionId) {
        let his = self.of(who);
        let excess = his.len().saturating_sub(CAP);
        let spared = |id: &&SessionId| *id != newest || self.ground.partition(newest).is_some();
        let oldest: Vec<SessionId> = his.iter().rev().filter(spared).take(excess).copied().collect();
        oldest.iter().for_each(|id| self.bury(id));
    }

    /// The sessions of a principal, the newest first.
    fn of(&self, who: &'static str) -> Vec<SessionId> {
        let his = self.ids.iter().filter_map(|(id, fate)| match fate {
            Fate::Lives(record) if record.state.who() == Some(who) => {
                Some((Reverse(record.since), self.ground.partition(id), Reverse(*id)))
            }
            _ => None,
        });
        let mut his: Vec<_> = his.collect();
        his.sort();
        his.into_iter().map(|(_, _, Reverse(id))| id).collect()
    }

    fn id(&self, number: u8) -> Option<SessionId> {
        self.ids.iter().rev().nth(usize::from(number) % self.ids.len().max(1)).map(|(id, _)| *id)
    }

    fn fate(&self, id: &SessionId) -> &Fate {
        &self.ids.iter().find(|(other, _)| other == id).expect("it was stored").1
    }

    fn fate_mut(&mut self, id: &SessionId) -> &mut Fate {
        &mut self.ids.iter_mut().find(|(other, _)| other == id).expect("it was stored").1
    }

    fn record(&self, id: &SessionId) -> Option<&Record> {
        match self.fate(id) {
            Fate::Lives(record) => Some(record),
            Fate::Renewed | Fate::Gone => None,
        }
    }

    fn is_renewed(&self, held: &Held) -> bool {
        held.id.is_some_and(|id| matches!(self.fate(&id), Fate::Renewed))
    }

    fn bury(&mut self, id: &SessionId) {
        let fate = self.fate_mut(id);
        if matches!(fate, Fate::Lives(_)) {
            *fate = Fate::Gone;
        }
    }
}

/// The owner and the label of a session.
fn bound(session: &Session<Fields>) -> Option<(&str, &str)> {
    assert_eq!(session.principal().is_some(), session.label().is_some());
    session.principal().zip(session.label())
}

fn increment(fields: &mut Fields, field: u8) -> u64 {
    let count = fields.entry(FIELDS[usize::from(field)].to_owned()).or_default();
    *count += 1;
    *count
}
