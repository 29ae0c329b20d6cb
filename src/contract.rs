//! The test suite that every store must pass, including custom stores.
//!
//! Each check stands for one promise of the [contract](crate::store). A check that fails panics with its name, its promise and
//! the assertion that failed. [`all`] runs all checks except those of [companions](companions()) and of [`everybody`].
//!
//! ```
//! use threaded_sessions::{Clock, MemorySessionStore, contract};
//!
//! let clock = Clock::manual();
//! let mut store = MemorySessionStore::new().with_clock(clock.clone());
//! contract::all(&store, |time| clock.advance(time));
//! contract::companions(&mut store, |time| clock.advance(time));
//! contract::everybody(&store, |time| clock.advance(time));
//! ```
//!
//! Except during [`everybody`], other threads may use the store and have sessions in it. No other reaper may run, and no other
//! process may run the suite on the same store, because the suite
//! [keeps expired sessions](crate::store::SessionIndex::keep_expired), reaps everything that is overdue, and expects a report of
//! its own sessions. The suite leaves sessions behind. Some live for hours, and some never expire.

mod checks;
mod companions;
mod index;
mod kit;
mod principals;
mod sessions;

use std::time::Duration;

use self::checks::{Part, run};
use self::kit::{Declared, Tested, ok};
use crate::store::SessionStore;
use crate::{ErrorKind, SessionId};

/// Runs all checks except those of [companions](companions()) and of [`everybody`].
///
/// `wait` lets the given time pass for the store: pass `thread::sleep`, or advance the clock of the store.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn all(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    let tested = Tested { store, wait: &wait, declared: None };
    let beside_others = kit::beside_others();
    run(Part::Operations, &tested);
    run(Part::Undeclared, &tested);
    if store.index().is_none() {
        return run(Part::WithoutIndex, &tested);
    }
    run(Part::Principals, &tested);
    drop(beside_others);
    let _alone = kit::alone();
    run(Part::Index, &tested);
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
            return run(Part::WithoutCompanions, &Tested { store, wait: &wait, declared: None });
        }
        kept => ok(kept),
    }
    let given_twice = store.keep_companions(&suffixes[1..]);
    let declared = Declared { suffixes, given_twice };
    let tested = Tested { store, wait: &wait, declared: Some(&declared) };
    run(Part::Undeclared, &tested);
    run(Part::Companions, &tested);
}

/// Checks that [`end_everybody`](crate::store::SessionIndex::end_everybody) ends all live sessions. Does nothing if the store has
/// no index.
///
/// [`all`] does not include this check, because it ends every session in the store. Pass a store that no other code uses, with
/// sessions that you no longer need.
///
/// # Panics
///
/// Panics with the broken promise if the store breaks the contract.
#[track_caller]
pub fn everybody(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    if store.index().is_some() {
        let _alone = kit::alone();
        run(Part::EndOfAll, &Tested { store, wait: &wait, declared: None });
    }
}
