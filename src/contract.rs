//! The test suite that every store must pass, including custom stores.
//!
//! Each check stands for one promise of the [contract](crate::store). A check that fails panics with its name, its promise and
//! the assertion that failed. [`all`] runs all checks that need only a store. The others need more: [companions](companions())
//! a store that is not shared yet, [`bounded`] a store with a bound, [`read_only`] a way to make writes fail, and [`everybody`]
//! a store with no session to keep.
//!
//! ```
//! use threaded_sessions::{Clock, MemorySessionStore, contract};
//!
//! let clock = Clock::manual();
//! let mut store = MemorySessionStore::new().with_clock(clock.clone());
//! contract::all(&store, |time| clock.advance(time));
//! contract::companions(&mut store, |time| clock.advance(time));
//! contract::everybody(&store, |time| clock.advance(time));
//!
//! let store = MemorySessionStore::new().with_max_sessions(10).with_clock(clock.clone());
//! contract::bounded(&store, 10, |time| clock.advance(time));
//! ```
//!
//! Except during [`everybody`], other threads may use the store and have sessions in it. No other reaper may run, and no other
//! process may run the suite on the same store, because the suite
//! [keeps expired sessions](crate::store::SessionIndex::keep_expired), reaps everything that is overdue, and expects a report of
//! exactly its sessions. The suite leaves sessions behind. Some live for hours, and some never expire.

mod checks;
mod companions;
mod index;
mod kit;
mod principals;
mod sessions;
mod walk;

use std::time::Duration;

use self::checks::{Part, run};
use self::kit::{Declared, Tested, ok};
use crate::store::SessionStore;
use crate::{ErrorKind, SessionId};

/// Runs all checks that need only a store.
///
/// `wait` lets the given time pass for the store: pass `thread::sleep`, or advance the clock of the store.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn all(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    let tested = Tested::new(store, &wait);
    let beside_others = kit::beside_others();
    run(Part::Operations, &tested);
    run(Part::Undeclared, &tested);
    if store.index().is_some() {
        run(Part::Principals, &tested);
    } else {
        run(Part::WithoutIndex, &tested);
    }
    drop(beside_others);
    let _alone = kit::alone();
    run(Part::Walk, &tested);
    if store.index().is_some() {
        run(Part::Index, &tested);
    }
}

/// Checks how the store treats [companions](crate::store::Companion). If the store keeps none, checks that it reports so.
///
/// The store keeps two more companions afterwards, so pass a store that is not shared yet, with sessions that no other code
/// ends. [`all`] does not include these checks, because a store may work differently once it has companions. Run `all` before
/// and after.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn companions(store: &mut dyn SessionStore, wait: impl Fn(Duration)) {
    let _alone = kit::alone();
    let suffixes = ["one", "two"].map(|name| format!("{name}-{}", SessionId::random().expose()));
    match store.keep_companions(&suffixes) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return run(Part::WithoutCompanions, &Tested::new(store, &wait));
        }
        kept => ok(kept),
    }
    let given_twice = store.keep_companions(&suffixes[1..]);
    let declared = Declared { suffixes, given_twice };
    let tested = Tested { declared: Some(&declared), ..Tested::new(store, &wait) };
    run(Part::Undeclared, &tested);
    run(Part::Companions, &tested);
}

/// Checks that [`end_everybody`](crate::store::SessionIndex::end_everybody) ends all live sessions.
///
/// It checks the [method](crate::AllSessions::end_everybody) of [`AllSessions`](crate::AllSessions) too. It does nothing if the
/// store has no index and cannot walk.
///
/// [`all`] does not include this check, because it ends every session in the store. Pass a store that no other code uses, with
/// sessions that you no longer need.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn everybody(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    let _alone = kit::alone();
    if store.index().is_some() {
        run(Part::EndOfAll, &Tested::new(store, &wait));
    }
    run(Part::EndOfWalk, &Tested::new(store, &wait));
}

/// Checks a store that is bounded to a number of sessions: nothing that it keeps is beyond the bound, and no live session ends
/// because of it.
///
/// Pass an empty store that no other code uses. The suite leaves it full.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn bounded(store: &dyn SessionStore, sessions: usize, wait: impl Fn(Duration)) {
    let _alone = kit::alone();
    run(Part::Bounded, &Tested { bound: Some(sessions), ..Tested::new(store, &wait) });
}

/// Checks reads while writes fail, as those of a read-only Redis do.
///
/// `refuse_writes` makes every later write of the store fail. The suite calls it once, after it has created its sessions.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn read_only(store: &dyn SessionStore, refuse_writes: impl Fn(), wait: impl Fn(Duration)) {
    let _alone = kit::alone();
    run(Part::ReadOnly, &Tested { refuse_writes: Some(&refuse_writes), ..Tested::new(store, &wait) });
}
