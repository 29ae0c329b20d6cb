//! Moves that other processes interrupt: before each operation of a move another process acts, or the moving process stops.
//!
//! The stores are in memory, and count and stop the operations of one process. The tests run every interleaving, so none depends
//! on timing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{MigratingStore, mark};
use crate::codec::{Binding, Envelope, Format, JsonFormat};
use crate::store::{
    Belonging, Bind, Created, Ending, Entry, Found, Reaped, Saved, SessionIndex, SessionStore, Stored, Touch, Verified,
    VerifyOptions, Version, Write,
};
use crate::{
    Clock, Error, ErrorKind, Handle, MemorySessionStore, Result, SessionId, SessionManager, contract, operation, sync,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The action of another process.
type Act = Box<dyn FnOnce() + Send>;

/// The operations of one process on both stores.
struct Schedule {
    operations: AtomicUsize,
    acts_at: usize,
    act: Mutex<Option<Act>>,
    /// From this operation on, all fail.
    stops_at: usize,
    /// `true` if the new store accepts no writes.
    is_read_only: bool,
    /// The turns of two processes, and the number of this one.
    turns: Option<(Arc<Turns>, usize)>,
}

impl Schedule {
    fn new() -> Self {
        let (acts_at, stops_at) = (usize::MAX, usize::MAX);
        Self {
            operations: AtomicUsize::new(0),
            acts_at,
            act: Mutex::new(None),
            stops_at,
            is_read_only: false,
            turns: None,
        }
    }

    /// Lets another process act before an operation.
    fn acting(acts_at: usize, act: impl FnOnce() + Send + 'static) -> Self {
        Self { acts_at, act: Mutex::new(Some(Box::new(act))), ..Self::new() }
    }

    fn stopping(self, stops_at: usize) -> Self {
        Self { stops_at, ..self }
    }

    fn operations(&self) -> usize {
        self.operations.load(Ordering::Relaxed)
    }

    fn step(&self) -> Result<()> {
        if let Some((turns, process)) = &self.turns {
            turns.wait(*process);
        }
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        if number >= self.stops_at {
            return Err(Error::new(ErrorKind::Unavailable, operation::READ));
        }
        let act = (number == self.acts_at).then(|| sync::lock(&self.act).take()).flatten();
        act.into_iter().for_each(|act| act());
        Ok(())
    }
}

/// An order of the operations of two processes, each in its thread. Each operation waits for its turn.
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

struct TurnState {
    /// The process of each operation, the last one first.
    order: Vec<usize>,
    /// The process whose operation runs.
    running: Option<usize>,
    finished: [bool; 2],
}

impl Turns {
    fn new(order: Vec<usize>) -> Self {
        let state = TurnState { order, running: None, finished: [false; 2] };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Ends the last turn of a process, and waits for its next one. After the end of the order, the first to come is next.
    fn wait(&self, process: usize) {
        let mut state = self.end_turn(process);
        let other = 1 - process;
        while state.running.is_some() || (state.order.last() == Some(&other) && !state.finished[other]) {
            state = self.changed.wait(state).unwrap();
        }
        if state.order.last() == Some(&process) {
            state.order.pop();
        }
        state.running = Some(process);
    }

    fn finish(&self, process: usize) {
        self.end_turn(process).finished[process] = true;
        self.changed.notify_all();
    }

    fn end_turn(&self, process: usize) -> MutexGuard<'_, TurnState> {
        let mut state = sync::lock(&self.state);
        if state.running == Some(process) {
            state.running = None;
            self.changed.notify_all();
        }
        state
    }
}

/// Ends the turns of a process, also if it panics, so that the other one does not wait for ever.
struct Finish<'t>(&'t Turns, usize);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish(self.1);
    }
}

/// Returns every order of this many operations of process 0 and of process 1.
fn orders(zeros: usize, ones: usize) -> Vec<Vec<usize>> {
    if zeros == 0 || ones == 0 {
        return vec![[vec![0; zeros], vec![1; ones]].concat()];
    }
    let with = |next: usize, orders: Vec<Vec<usize>>| orders.into_iter().map(move |order| [order, vec![next]].concat());
    with(0, orders(zeros - 1, ones)).chain(with(1, orders(zeros, ones - 1))).collect()
}

/// A store whose operations follow a schedule.
struct Scheduled {
    inner: MemorySessionStore,
    schedule: Arc<Schedule>,
    is_new: bool,
    /// `true` if the store gives a session another handle than the stores in memory do, because it has other keys.
    has_other_handles: bool,
}

fn other_handle(handle: Handle) -> Handle {
    Handle::of_key(handle.as_bytes())
}

impl Scheduled {
    fn step(&self) -> Result<&MemorySessionStore> {
        self.schedule.step().map(|()| &self.inner)
    }

    /// Returns the handle under which the store shows a session.
    fn shown(&self, handle: Handle) -> Handle {
        if self.has_other_handles { other_handle(handle) } else { handle }
    }

    fn write(&self) -> Result<&MemorySessionStore> {
        if self.is_new && self.schedule.is_read_only {
            return Err(Error::new(ErrorKind::ReadOnly, operation::SAVE));
        }
        self.step()
    }
}

impl std::fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl SessionStore for Scheduled {
    fn handle(&self, id: &SessionId) -> Handle {
        self.inner.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        self.write()?.create(id, write)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        self.step()?.read(id, touch)
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        self.write()?.save(id, write, expected)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        self.write()?.rotate(old, new, write, expected)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        self.write()?.delete(id)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        Some(self)
    }
}

impl SessionIndex for Scheduled {
    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped> {
        self.write()?.reap(partition, limit, payloads)
    }

    fn count(&self) -> Result<u64> {
        self.step()?.count()
    }

    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>> {
        self.step()?.page(offset, limit)
    }

    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>> {
        let theirs = self.step()?.list_by_principal(principal)?.into_iter();
        Ok(theirs.map(|one| Belonging { handle: self.shown(one.handle), ..one }).collect())
    }

    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64> {
        let inner = self.write()?;
        let Ending::Only(handle) = which else { return inner.end(principal, which) };
        let theirs = inner.list_by_principal(principal)?;
        let meant = theirs.into_iter().find(|one| self.shown(one.handle) == handle);
        meant.map_or(Ok(0), |one| inner.end(principal, Ending::Only(one.handle)))
    }

    fn end_everybody(&self) -> Result<u64> {
        self.write()?.end_everybody()
    }

    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified> {
        self.step()?.verify(options)
    }
}

/// Two stores, and the processes that use them.
#[derive(Clone)]
struct World {
    clock: Clock,
    old: MemorySessionStore,
    new: MemorySessionStore,
}

impl World {
    fn new(clock: Clock) -> Self {
        let store = || MemorySessionStore::new().with_clock(clock.clone());
        Self { old: store(), new: store(), clock: clock.clone() }
    }

    fn process(&self) -> MigratingStore {
        MigratingStore::new(self.new.clone(), self.old.clone())
    }

    /// A process that moves sessions back.
    fn reversed(&self) -> MigratingStore {
        MigratingStore::new(self.old.clone(), self.new.clone())
    }

    fn scheduled(&self, schedule: &Arc<Schedule>) -> MigratingStore {
        let [new, old] = self.scheduled_stores(schedule);
        MigratingStore::new(new, old)
    }

    fn scheduled_stores(&self, schedule: &Arc<Schedule>) -> [Scheduled; 2] {
        [(&self.new, true), (&self.old, false)].map(|(inner, is_new)| Scheduled {
            inner: inner.clone(),
            schedule: schedule.clone(),
            is_new,
            has_other_handles: false,
        })
    }

    /// Signs ada in, in the old store.
    fn log_in(&self) -> SessionId {
        create(&self.old, HOUR)
    }

    /// Asserts that the session has ended for all processes, now and later.
    fn assert_over(&self, id: &SessionId, when: &str) {
        for store in [self.process(), self.reversed()] {
            let found = store.read(id, Touch::Set(HOUR)).unwrap();
            assert!(!matches!(found, Found::Live(_)), "{when}: {found:?}");
            assert!(list(&store).is_empty(), "{when}: the session is listed");
        }
        assert_eq!(self.old.count().unwrap(), 0, "{when}: a session is in the old store");
        self.clock.advance(Duration::from_secs(31));
        assert_eq!(self.new.count().unwrap(), 0, "{when}: a session, or its mark, is in the new store");
    }

    /// Asserts that exactly one session lives, with this payload.
    fn assert_lives(&self, id: &SessionId, payload: &[u8], when: &str) {
        let store = self.process();
        assert_eq!(&*live(&store, id, when).payload, payload, "{when}");
        assert_eq!((self.old.count().unwrap(), self.new.count().unwrap()), (0, 1), "{when}");
        assert_eq!(list(&store), [store.handle(id)], "{when}");
    }
}

fn payload(value: u32) -> Vec<u8> {
    let mut envelope = Envelope::new(value);
    envelope.bound = Some(Binding::new("ada", "phone"));
    JsonFormat::to_vec(&envelope).unwrap()
}

fn hers(payload: &[u8], ttl: Duration) -> Write<'_> {
    Write::new(payload, ttl).with_bind(Bind::To { principal: "ada", cap: None })
}

fn create(store: &dyn SessionStore, ttl: Duration) -> SessionId {
    let id = store.fresh_id(None);
    let created = store.create(&id, hers(&payload(0), ttl)).unwrap();
    assert!(matches!(created, Created::Stored(_)), "{created:?}");
    id
}

#[track_caller]
fn live(store: &dyn SessionStore, id: &SessionId, when: &str) -> Stored {
    match store.read(id, Touch::No).unwrap() {
        Found::Live(stored) => stored,
        found => panic!("{when}: the session should live: {found:?}"),
    }
}

fn index(store: &MigratingStore) -> &dyn SessionIndex {
    store.index().expect("the new store has an index")
}

fn list(store: &MigratingStore) -> Vec<Handle> {
    index(store).list_by_principal("ada").unwrap().iter().map(|theirs| theirs.handle).collect()
}

/// Runs a move again and again, interrupted before its first operation, its second one and so on, until it is over before. `run`
/// returns how many operations there were.
fn at_each_operation(run: impl Fn(usize) -> usize) {
    let mut at = 0;
    while run(at) > at {
        at += 1;
    }
    assert!(at >= 7, "a move has at least 7 operations, not {at}");
}

/// Moves a session while another process acts before operation `at`.
fn move_while(
    world: &World,
    id: &SessionId,
    at: usize,
    act: impl FnOnce(&World, &SessionId) + Send + 'static,
) -> usize {
    let (other, moved) = (world.clone(), *id);
    let schedule = Arc::new(Schedule::acting(at, move || act(&other, &moved)));
    let _ = world.scheduled(&schedule).read(id, Touch::Set(HOUR)).unwrap();
    schedule.operations()
}

/// A way to end a session.
type End = fn(&World, &SessionId);

/// The ways to end the session of ada.
const ENDS: [(&str, End); 7] = [
    ("delete", |world, id| assert!(world.process().delete(id).unwrap())),
    ("delete in a process that moves back", |world, id| assert!(world.reversed().delete(id).unwrap())),
    ("end all of hers", |world, _| assert!(index(&world.process()).end("ada", Ending::All).unwrap() > 0)),
    ("end all of hers, moving back", |world, _| assert!(index(&world.reversed()).end("ada", Ending::All).unwrap() > 0)),
    ("end by handle", |world, id| {
        let store = world.process();
        assert_eq!(index(&store).end("ada", Ending::Only(store.handle(id))).unwrap(), 1);
    }),
    ("end all others", |world, _| {
        let (store, kept) = (world.process(), create(&world.new, HOUR));
        assert!(index(&store).end("ada", Ending::AllExcept(&kept)).unwrap() > 0);
        assert!(world.new.delete(&kept).unwrap());
    }),
    ("end all sessions", |world, _| assert!(index(&world.process()).end_everybody().unwrap() > 0)),
];

#[test]
fn logout_during_move_stays_logged_out() {
    for (name, end) in ENDS {
        at_each_operation(|at| {
            let world = World::new(Clock::manual());
            let id = world.log_in();
            let operations = move_while(&world, &id, at, end);
            if operations <= at {
                end(&world, &id);
            }
            world.assert_over(&id, &format!("{name} before operation {at}"));
            operations
        });
    }
}

/// A way to end a session in a process whose operations take turns with those of a move.
struct InterleavedEnd {
    name: &'static str,
    /// The number of its operations.
    operations: usize,
    /// `true` if the process moves sessions back.
    is_reversed: bool,
    end: fn(&MigratingStore, &SessionId),
}

fn interleaved_ends() -> Vec<InterleavedEnd> {
    let delete = |store: &MigratingStore, id: &SessionId| _ = store.delete(id).unwrap();
    let all = |store: &MigratingStore, _: &SessionId| _ = index(store).end("ada", Ending::All).unwrap();
    let every = |store: &MigratingStore, _: &SessionId| _ = index(store).end_everybody().unwrap();
    let only = |store: &MigratingStore, id: &SessionId| {
        let handle = store.handle(id);
        let _ = index(store).end("ada", Ending::Only(handle)).unwrap();
    };
    vec![
        InterleavedEnd { name: "delete", operations: 3, is_reversed: false, end: delete },
        InterleavedEnd { name: "delete, moving back", operations: 3, is_reversed: true, end: delete },
        InterleavedEnd { name: "end all of hers", operations: 3, is_reversed: false, end: all },
        InterleavedEnd { name: "end all of hers, moving back", operations: 3, is_reversed: true, end: all },
        InterleavedEnd { name: "end all sessions", operations: 3, is_reversed: false, end: every },
        InterleavedEnd { name: "end by handle", operations: 4, is_reversed: false, end: only },
    ]
}

#[test]
fn every_interleaving_of_logout_ends_session() {
    const MOVE: usize = 8;
    for InterleavedEnd { name, operations, is_reversed, end } in interleaved_ends() {
        for order in orders(MOVE, operations) {
            let world = World::new(Clock::manual());
            let id = world.log_in();
            let turns = Arc::new(Turns::new(order.clone()));
            let stores = |process| {
                let schedule = Schedule { turns: Some((turns.clone(), process)), ..Schedule::new() };
                world.scheduled_stores(&Arc::new(schedule))
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _finish = Finish(&turns, 0);
                    let [new, old] = stores(0);
                    let _ = MigratingStore::new(new, old).read(&id, Touch::Set(HOUR)).unwrap();
                });
                let _finish = Finish(&turns, 1);
                let [new, old] = stores(1);
                let (front, back) = if is_reversed { (old, new) } else { (new, old) };
                end(&MigratingStore::new(front, back), &id);
            });
            world.assert_over(&id, &format!("{name} is 1, and the order from its end is {order:?}"));
        }
    }
}

#[test]
fn end_by_old_handle_ends_moving_session() {
    let mut ended = [0; 2];
    for order in orders(8, 4) {
        let world = World::new(Clock::manual());
        let id = world.log_in();
        let handle = other_handle(world.old.handle(&id));
        let turns = Arc::new(Turns::new(order.clone()));
        let process = |number| {
            let schedule = Schedule { turns: Some((turns.clone(), number)), ..Schedule::new() };
            let [new, old] = world.scheduled_stores(&Arc::new(schedule));
            MigratingStore::new(new, Scheduled { has_other_handles: true, ..old })
        };
        let count = thread::scope(|scope| {
            scope.spawn(|| {
                let _finish = Finish(&turns, 0);
                let _ = process(0).read(&id, Touch::Set(HOUR)).unwrap();
            });
            let _finish = Finish(&turns, 1);
            index(&process(1)).end("ada", Ending::Only(handle)).unwrap()
        });
        let when = format!("the end is 1, and the order from its end is {order:?}");
        match count {
            1 => world.assert_over(&id, &when),
            _ => drop(live(&world.process(), &id, &format!("nothing was ended; {when}"))),
        }
        ended[usize::from(count == 1)] += 1;
    }
    assert!(ended.iter().all(|orders| *orders > 10), "both outcomes occur: {ended:?}");
}

#[test]
fn save_after_logout_replaces_no_claim() {
    for is_blind in [true, false] {
        let world = World::new(Clock::manual());
        let id = world.log_in();
        let version = live(&world.process(), &id, "it moves").version;
        let (other, claim) = (world.clone(), mark::claim(b"v"));
        let slow_move = move || {
            assert!(other.process().delete(&id).unwrap());
            let created = other.new.create(&id, Write::new(&claim, Duration::from_secs(30))).unwrap();
            assert!(matches!(created, Created::Stored(_)), "{created:?}");
        };
        // A blind save reads the version first.
        let (acts_at, expected) = if is_blind { (1, None) } else { (0, Some(&version)) };
        let schedule = Arc::new(Schedule::acting(acts_at, slow_move));
        let saved = world.scheduled(&schedule).save(&id, Write::new(&payload(1), HOUR), expected).unwrap();
        assert!(matches!(saved, Saved::Missing), "{saved:?}");
        world.assert_over(&id, "save after a logout");
    }
}

#[test]
fn logout_after_faster_move_stays_logged_out() {
    for (name, end) in ENDS {
        at_each_operation(|at| {
            let world = World::new(Clock::manual());
            let id = world.log_in();
            let operations = move_while(&world, &id, at, move |world, id| {
                let _ = live(&world.process(), id, "the other process moves it");
                end(world, id);
            });
            if operations > at {
                world.assert_over(&id, &format!("move and {name} before operation {at}"));
            }
            operations
        });
    }
}

#[test]
fn stop_after_logout_revives_nothing() {
    at_each_operation(|at| {
        let mut operations = 0;
        for stop in at + 1..16 {
            let world = World::new(Clock::manual());
            let id = world.log_in();
            let other = world.clone();
            let schedule = Schedule::acting(at, move || {
                let _ = live(&other.process(), &id, "the other process moves it");
                assert!(other.process().delete(&id).unwrap());
            });
            let schedule = Arc::new(schedule.stopping(stop));
            let _ = world.scheduled(&schedule).read(&id, Touch::Set(HOUR));
            operations = operations.max(schedule.operations());
            if schedule.operations() > at {
                world.assert_over(&id, &format!("logout before operation {at}, stop before {stop}"));
            }
        }
        operations
    });
}

#[test]
fn stopped_move_loses_no_session() {
    at_each_operation(|stop| {
        let world = World::new(Clock::manual());
        let id = world.log_in();
        let before = live(&world.old, &id, "before").payload;
        let schedule = Arc::new(Schedule::new().stopping(stop));
        let _ = world.scheduled(&schedule).read(&id, Touch::Set(HOUR));
        world.assert_lives(&id, &before, &format!("stop before operation {stop}"));
        schedule.operations()
    });
}

#[test]
fn logout_after_stopped_move_ends_session() {
    for (name, end) in ENDS {
        at_each_operation(|stop| {
            let world = World::new(Clock::manual());
            let id = world.log_in();
            let schedule = Arc::new(Schedule::new().stopping(stop));
            let _ = world.scheduled(&schedule).read(&id, Touch::Set(HOUR));
            end(&world, &id);
            world.assert_over(&id, &format!("stop before operation {stop}, {name}"));
            schedule.operations()
        });
    }
}

#[test]
fn move_during_move_leaves_one_session() {
    at_each_operation(|at| {
        let world = World::new(Clock::manual());
        let id = world.log_in();
        let before = live(&world.old, &id, "before").payload;
        let operations = move_while(&world, &id, at, |world, id| drop(live(&world.process(), id, "the other process")));
        world.assert_lives(&id, &before, &format!("move before operation {at}"));
        operations
    });
}

#[test]
fn move_back_during_move_keeps_session() {
    at_each_operation(|at| {
        let world = World::new(Clock::manual());
        let id = world.log_in();
        let before = live(&world.old, &id, "before").payload;
        let operations =
            move_while(&world, &id, at, |world, id| drop(live(&world.reversed(), id, "the other process")));
        world.assert_lives(&id, &before, &format!("move back before operation {at}"));
        operations
    });
}

#[test]
fn changes_during_move_are_both_kept() {
    let manager = |store| SessionManager::<u32>::builder(store).build().unwrap();
    at_each_operation(|at| {
        let world = World::new(Clock::system());
        let id = world.log_in();
        let other = world.clone();
        let count = move || assert!(manager(other.process()).update(&id, |count| *count += 1).unwrap().is_some());
        let schedule = Arc::new(Schedule::acting(at, count));
        assert!(manager(world.scheduled(&schedule)).update(&id, |count| *count += 1).unwrap().is_some());
        let expected = if schedule.operations() > at { 2 } else { 1 };
        let session = manager(world.process()).open_id(&id).unwrap().expect("the session lives");
        assert_eq!(*session, expected, "change before operation {at}");
        schedule.operations()
    });
}

#[test]
fn changes_of_many_movers_are_kept() {
    for _ in 0..20 {
        let world = World::new(Clock::system());
        let (id, start) = (world.log_in(), Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let sessions = SessionManager::<u32>::builder(world.process()).build().unwrap();
                    start.wait();
                    assert!(sessions.update(&id, |count| *count += 1).unwrap().is_some());
                });
            }
        });
        let sessions = SessionManager::<u32>::builder(world.process()).build().unwrap();
        assert_eq!(*sessions.open_id(&id).unwrap().expect("the session lives"), 8);
        assert_eq!((world.old.count().unwrap(), world.new.count().unwrap()), (0, 1));
    }
}

#[test]
fn renewal_during_move_ends_old_id() {
    at_each_operation(|at| {
        let world = World::new(Clock::manual());
        let (id, renewed) = (world.log_in(), SessionId::random());
        let operations = move_while(&world, &id, at, move |world, id| {
            let saved = world.process().rotate(id, &renewed, Write::new(&payload(1), HOUR), None).unwrap();
            assert!(matches!(saved, Saved::Stored(_)), "{saved:?}");
        });
        if operations > at {
            let (when, store) = (format!("renewal before operation {at}"), world.process());
            let found = store.read(&id, Touch::No).unwrap();
            assert!(!matches!(found, Found::Live(_)), "{when}: {found:?}");
            world.clock.advance(Duration::from_secs(31));
            let renewed_payload = live(&store, &renewed, &when).payload;
            world.assert_lives(&renewed, &renewed_payload, &when);
        }
        operations
    });
}

#[test]
fn move_does_not_extend_the_deadline() {
    const STEP_4: usize = 6;
    let (ttl, pause) = (Duration::from_millis(60), Duration::from_millis(20));
    at_each_operation(|at| {
        let world = World::new(Clock::system());
        let began = Instant::now();
        let id = create(&world.old, ttl);
        let created = began.elapsed();
        let schedule = Arc::new(Schedule::acting(at, move || thread::sleep(pause)));
        let _ = world.scheduled(&schedule).read(&id, Touch::Peek).unwrap();
        let elapsed = began.elapsed();
        // Step 4 writes the deadline. A pause on its way there delays the deadline. On a slow machine the session may have expired.
        if at != STEP_4
            && let Found::Live(stored) = world.new.read(&id, Touch::Peek).unwrap()
        {
            let left = stored.expires_in.expect("the session expires");
            let tolerance = created + pause / 2;
            assert!(left + elapsed <= ttl + tolerance, "{left:?} left after {elapsed:?}, pause before operation {at}");
        }
        schedule.operations()
    });
}

#[test]
fn use_does_not_prolong_a_claim() {
    let world = World::new(Clock::manual());
    let id = world.log_in();
    // The first process stops after it has created the claim, the second one before it makes a copy.
    for touch in [Touch::No, Touch::Set(HOUR)] {
        let store = world.scheduled(&Arc::new(Schedule::new().stopping(3)));
        assert_eq!(store.read(&id, touch).unwrap_err().kind(), ErrorKind::Unavailable);
        let Found::Live(claim) = world.new.read(&id, Touch::Peek).unwrap() else { panic!("a claim is left") };
        assert!(matches!(mark::Mark::of(&claim.payload), Some(mark::Mark::Claim(_))));
        assert_eq!(claim.expires_in, Some(Duration::from_secs(30)), "{touch:?}");
    }
}

#[test]
fn expiry_during_move_ends_session() {
    let ttl = Duration::from_millis(15);
    for at in 0..8 {
        let world = World::new(Clock::system());
        let id = create(&world.old, ttl);
        let schedule = Arc::new(Schedule::acting(at, move || thread::sleep(ttl)));
        let _ = world.scheduled(&schedule).read(&id, Touch::Peek).unwrap();
        thread::sleep(ttl + Duration::from_millis(2));
        let found = world.process().read(&id, Touch::No).unwrap();
        assert!(!matches!(found, Found::Live(_)), "expiry before operation {at}: {found:?}");
    }
}

#[test]
fn moved_session_costs_one_operation() {
    let world = World::new(Clock::manual());
    let (id, renewed) = (world.log_in(), SessionId::random());
    let _ = live(&world.process(), &id, "the first use moves it");
    let schedule = Arc::new(Schedule::new());
    let store = world.scheduled(&schedule);
    let version = live(&store, &id, "it has moved").version;
    assert_eq!(schedule.operations(), 1, "a read");
    let Saved::Stored(version) = store.save(&id, Write::new(&payload(1), HOUR), Some(&version)).unwrap() else {
        panic!("the version is current")
    };
    assert_eq!(schedule.operations(), 2, "a save");
    let rotated = store.rotate(&id, &renewed, Write::new(&payload(2), HOUR), Some(&version)).unwrap();
    assert!(matches!(rotated, Saved::Stored(_)), "{rotated:?}");
    assert_eq!(schedule.operations(), 3, "a renewal");
}

#[test]
fn read_only_new_store_serves_unmoved_sessions() {
    let world = World::new(Clock::manual());
    let id = world.log_in();
    let store = world.scheduled(&Arc::new(Schedule { is_read_only: true, ..Schedule::new() }));
    let unmoved = live(&store, &id, "the new store accepts no writes");
    let (changed, store) = (payload(1), world.process());
    let there = match store.save(&id, Write::new(&changed, HOUR), Some(&unmoved.version)).unwrap() {
        Saved::Conflict(there) => there,
        saved => panic!("a version of the old store names no version of the new one: {saved:?}"),
    };
    assert_eq!(there.payload, unmoved.payload);
    let saved = store.save(&id, Write::new(&changed, HOUR), Some(&there.version)).unwrap();
    assert!(matches!(saved, Saved::Stored(_)), "{saved:?}");
    world.assert_lives(&id, &changed, "after the change");
}

#[test]
fn cap_counts_sessions_of_both_stores() {
    let world = World::new(Clock::manual());
    let in_old = [(); 2].map(|()| {
        world.clock.advance(Duration::from_secs(1));
        world.log_in()
    });
    let store = world.process();
    let login = |bind| {
        let id = store.fresh_id(None);
        let payload = payload(0);
        (id, store.create(&id, Write::new(&payload, HOUR).with_bind(bind)).unwrap())
    };
    let (_, refused) = login(Bind::WithinCap { principal: "ada", cap: 2 });
    assert!(matches!(refused, Created::OverCap), "{refused:?}");
    let (third, created) = login(Bind::To { principal: "ada", cap: Some(2) });
    assert!(matches!(created, Created::Stored(_)), "{created:?}");
    assert!(!matches!(world.old.read(&in_old[0], Touch::No).unwrap(), Found::Live(_)), "the oldest session ends");
    assert_eq!(list(&store).len(), 2);

    let hers = Write::new(b"hers", HOUR).with_bind(Bind::WithinCap { principal: "ada", cap: 2 });
    let saved = store.save(&third, hers, None).unwrap();
    assert!(matches!(saved, Saved::Stored(_)), "a session of hers stays within the cap: {saved:?}");
    assert_eq!(list(&store).len(), 2);
}

#[test]
fn lists_and_pages_combine_both_stores() {
    let world = World::new(Clock::manual());
    let store = world.process();
    let ids = [create(&world.old, HOUR), create(&world.new, HOUR * 2), create(&world.old, HOUR * 3)];
    let [one, two, three] = ids.map(|id| store.handle(&id));
    let pages = |offset, limit| -> Vec<Handle> {
        index(&store).page(offset, limit).unwrap().iter().map(|entry| entry.handle).collect()
    };
    assert_eq!(pages(0, 10), [three, two, one]);
    assert_eq!(pages(1, 1), [two]);
    assert_eq!(index(&store).count_by_partition().unwrap(), [2, 1]);
    assert_eq!(list(&store).len(), 3);
    assert_eq!(index(&store).verify(VerifyOptions::new()).unwrap(), Default::default());
    assert_eq!(index(&store).end("ada", Ending::AllExcept(&ids[0])).unwrap(), 2, "the kept session moves");
    assert_eq!(list(&store), [one]);
}

#[test]
fn migrating_store_keeps_the_contract() {
    let world = World::new(Clock::manual());
    let (mut store, clock) = (world.process(), world.clock.clone());
    contract::all(&store, |time| clock.advance(time));
    contract::companions(&mut store, |time| clock.advance(time));
    contract::everybody(&store, |time| clock.advance(time));
}

#[test]
fn panicking_function_for_principal_moves_nothing() {
    let (new, old) = (MemorySessionStore::new(), MemorySessionStore::new());
    let id = old.fresh_id(None);
    let _ = old.create(&id, Write::new(b"value", HOUR)).unwrap();
    let store = MigratingStore::new(new.clone(), old.clone()).with_principal_of(|_| panic!("no principal"));
    assert!(matches!(store.read(&id, Touch::No).unwrap(), Found::Live(_)));
    let saved = store.save(&id, Write::new(b"other", HOUR), None);
    assert_eq!(saved.unwrap_err().kind(), ErrorKind::Payload);
    assert!(matches!(new.read(&id, Touch::No).unwrap(), Found::Absent));
    assert!(matches!(old.read(&id, Touch::No).unwrap(), Found::Live(_)));
}

#[test]
fn moved_session_ends_without_the_old_store() {
    let old = crate::RedisSessionStore::builder().url("redis://127.0.0.1:1").expiring().build().unwrap();
    let new = MemorySessionStore::new();
    let store = MigratingStore::new(new.clone(), old);
    let bind = Bind::To { principal: "ada", cap: None };
    let ends: [fn(&MigratingStore, &SessionId) -> Result<()>; 3] = [
        |store, id| store.delete(id).map(drop),
        |store, _| index(store).end("ada", Ending::All).map(drop),
        |store, id| index(store).end("ada", Ending::Only(store.handle(id))).map(drop),
    ];
    for end in ends {
        let id = SessionId::random();
        let _ = new.create(&id, Write::new(b"moved", HOUR).with_bind(bind)).unwrap();
        assert!(end(&store, &id).is_err(), "another process may have moved it back");
        assert!(matches!(new.read(&id, Touch::No), Ok(Found::Absent)));
    }
}
