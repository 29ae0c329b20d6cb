//! The test suite that every store has to pass, for stores of one's own as well.
//!
//! Each check is one sentence of the [contract](crate::store). [`all`] runs every one of them, but for those of
//! [companions](companions()) and of [`everybody`]; a check that fails panics and says what it saw.
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
//! Except for [`everybody`] others may use the store meanwhile, and have sessions in it. But nobody else may reap it, nor run
//! the suite on it from another process: the suite [keeps what expired](crate::store::SessionIndex::keep_expired), reaps
//! what is due, whose ever it is, and wants to be told of its own. It leaves sessions behind that live for some hours, and
//! some that do not expire.

mod companions;
mod index;
mod kit;
mod principals;
mod sessions;

use std::time::Duration;

pub use self::companions::{
    companions, companions_are_unsupported, companions_are_written_with_their_session,
    companions_end_with_their_session, companions_live_as_long_as_their_session, companions_move_with_their_session,
    refused_writes_leave_companions_alone, suffixes_are_not_shared, undeclared_companions_are_refused,
};
pub use self::index::{
    a_session_is_used_or_reaped, everybody, one_of_many_reapers_is_told, pages_are_pieces_of_one_list,
    reaping_keeps_its_limit, reaping_spares_what_was_used, reaping_tells_what_expired_once, reaping_tells_who_asks,
    the_index_counts_what_lives, the_index_lists_what_lives, verifying_leaves_a_healthy_index_alone,
    what_waits_for_a_reaper_is_absent,
};
pub use self::principals::{
    principals_are_unsupported, principals_end_their_sessions, principals_keep_their_sessions,
    principals_lose_what_ends, the_cap_ends_the_oldest,
};
pub use self::sessions::{
    absent_is_an_outcome, create_never_overwrites, delete_ends, expiry_is_exact, extreme_times_to_live,
    one_of_many_rotations_wins, one_of_many_writers_wins, repeated_writes_know_their_own_success, rotate_if_unchanged,
    rotate_moves, save_if_unchanged, save_never_brings_back, save_replaces, touch_moves_the_deadline,
    what_was_stored_is_read,
};
use crate::store::SessionStore;

/// Runs every check but those of [companions](companions()) and of [`everybody`]. `wait` lets this much time pass for the
/// store: `thread::sleep`, or the advance of a clock.
///
/// # Panics
///
/// If the store breaks the contract.
pub fn all(store: &dyn SessionStore, wait: impl Fn(Duration)) {
    let beside_others = kit::beside_others();
    absent_is_an_outcome(store);
    what_was_stored_is_read(store);
    create_never_overwrites(store);
    save_replaces(store);
    save_never_brings_back(store);
    save_if_unchanged(store);
    rotate_moves(store);
    rotate_if_unchanged(store);
    delete_ends(store);
    repeated_writes_know_their_own_success(store);
    expiry_is_exact(store, &wait);
    touch_moves_the_deadline(store, &wait);
    extreme_times_to_live(store, &wait);
    one_of_many_writers_wins(store);
    one_of_many_rotations_wins(store);
    undeclared_companions_are_refused(store);
    let Some(index) = store.index() else { return principals_are_unsupported(store) };
    principals_keep_their_sessions(store, index, &wait);
    principals_lose_what_ends(store, index, &wait);
    principals_end_their_sessions(store, index);
    the_cap_ends_the_oldest(store, index);
    drop(beside_others);
    let _alone = kit::alone();
    the_index_counts_what_lives(store, index, &wait);
    the_index_lists_what_lives(store, index, &wait);
    pages_are_pieces_of_one_list(store, index);
    what_waits_for_a_reaper_is_absent(store, index, &wait);
    reaping_tells_what_expired_once(store, index, &wait);
    reaping_keeps_its_limit(store, index, &wait);
    reaping_tells_who_asks(store, index, &wait);
    reaping_spares_what_was_used(store, index, &wait);
    a_session_is_used_or_reaped(store, index, &wait);
    one_of_many_reapers_is_told(store, index, &wait);
    verifying_leaves_a_healthy_index_alone(store, index, &wait);
}
