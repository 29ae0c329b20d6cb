//! The list of all checks, each with the promise that it checks, and the loop that runs them.
//!
//! The entry points in [`contract`](super) run this list part by part. A check that fails panics with its name, its promise and
//! the assertion that failed.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::kit::Tested;
use super::{companions, index, principals, sessions, walk};

struct Check {
    part: Part,
    name: &'static str,
    promise: &'static str,
    run: fn(&Tested<'_>),
}

/// The condition under which checks run.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Part {
    /// Every store; other runs may use the store at the same time.
    Operations,
    /// Every store, before and after it keeps companions.
    Undeclared,
    WithoutIndex,
    Principals,
    /// Every store that can walk, while no other run uses the store.
    Walk,
    /// Stores with an index, while no other run uses the store.
    Index,
    WithoutCompanions,
    Companions,
    /// Ends every session in the store.
    EndOfWalk,
    /// Ends every session in a store with an index.
    EndOfAll,
    /// Fills an empty store.
    Bounded,
    /// Makes writes fail.
    ReadOnly,
}

macro_rules! checks {
    ($($part:ident { $($module:ident::$check:ident: $promise:literal,)+ })+) => {
        const CHECKS: &[Check] = &[$($(Check {
            part: Part::$part,
            name: stringify!($check),
            promise: $promise,
            run: $module::$check,
        },)+)+];
    };
}

checks! {
    Operations {
        sessions::absent_is_an_outcome: "every operation on an unknown id reports that there is no session",
        sessions::what_was_stored_is_read: "a read returns the payload that was stored, whatever bytes it has",
        sessions::create_never_overwrites: "a second session under one id is rejected, and the first one stays",
        sessions::the_first_live_session_is_read: "of several ids the first live session is read and touched, and no other; \
            without one, a renewed id is reported",
        sessions::save_replaces: "a save replaces the whole payload",
        sessions::save_never_brings_back: "a save of a deleted or renewed session stores nothing, with or without a version",
        sessions::save_if_unchanged: "a save with a version succeeds only if the session has this version, and otherwise \
            changes nothing and returns the stored session",
        sessions::a_version_names_one_write: "a version is outdated once a payload with another revision is stored, or another \
            payload without a revision, and until then it is current",
        sessions::rotate_moves: "after a rotation the new id lives with the new payload, and the old id reads as renewed",
        sessions::rotate_if_unchanged: "a rotation with a version that the session does not have changes nothing and returns \
            the stored session",
        sessions::delete_ends: "a deleted session is absent at once, for every operation",
        sessions::repeated_writes_know_their_own_success: "a write that is repeated after a lost reply succeeds again and \
            changes nothing",
        sessions::expiry_is_exact: "an expired session is absent for every operation, and its id is free",
        sessions::touch_moves_the_deadline: "`Set` moves the deadline both ways, `Extend` only further away, a save sets it, \
            and `No` leaves it",
        sessions::peeks_tell_the_time_left: "`Peek` returns the time left, and moves no deadline",
        sessions::touches_that_are_due_move_the_deadline: "`SetIfDue` and `ExtendIfDue` move a deadline that is not far enough \
            away, `SetIfDue` also one that is too far away, and leave any other",
        sessions::extreme_times_to_live: "a TTL of zero counts as one millisecond, and a TTL above `MAX_TTL` as `MAX_TTL`",
        sessions::one_of_many_writers_wins: "of concurrent saves that expect one version exactly one succeeds",
        sessions::one_of_many_rotations_wins: "of concurrent rotations exactly one succeeds, and exactly one new id lives",
    }
    Undeclared {
        companions::undeclared_companions_are_refused: "a write with a companion that the store does not keep is rejected \
            as a whole",
    }
    WithoutIndex {
        principals::principals_are_unsupported: "a store without an index rejects a bound session and stores nothing",
    }
    Principals {
        principals::principals_keep_their_sessions: "a session keeps its principal through saves and rotations, until it is \
            bound to another principal or unbound",
        principals::principals_lose_what_ends: "a session leaves the list of its principal when it ends, and only then",
        principals::principals_end_their_sessions: "ending sessions of a principal ends the chosen ones and no others",
        principals::principals_sessions_change_from_outside: "a walk over the sessions of a principal finds each in one place, \
            also after its renewal, and a change of one moves neither its deadline nor its owner",
        principals::the_cap_ends_the_oldest: "of sessions that are bound concurrently to a principal with a cap, as many as \
            the cap live",
        principals::a_full_principal_gets_no_session: "a session beyond a cap that rejects is not stored, and the session stays as \
            it was; with one partition, exactly as many concurrent logins succeed as the cap allows",
        principals::a_cap_of_zero_admits_no_session: "a cap of 0 that rejects admits only sessions that the principal has \
            already, and ends none",
    }
    Walk {
        walk::a_walk_finds_what_lives_once: "a walk returns every live session once, and nothing else, and moves no deadline",
        walk::a_walk_counts_what_lives: "every live session is counted in its partition",
        walk::a_handle_ends_its_session: "a handle, or a prefix of it, ends its session and no other, and a search can be stopped",
    }
    Index {
        index::the_index_counts_what_lives: "every live session is counted, and nothing else",
        index::the_index_lists_what_lives: "every live session is listed once, the last to expire first, and nothing else",
        index::pages_are_pieces_of_one_list: "pages of every size are pieces of one list",
        index::what_waits_for_a_reaper_is_absent: "an expired session that waits for a reaper is absent for every operation",
        index::reaping_tells_what_expired_once: "each expired session is removed and reported once, with its last payload, and \
            nothing else is",
        index::reaping_keeps_its_limit: "a batch removes at most `limit` sessions, the longest overdue first, and reports the \
            backlog",
        index::reaping_tells_who_asks: "a reaper without `payloads` gets no payloads, and no later reaper gets them",
        index::reaping_spares_what_was_used: "a session that was used in time is not removed, whatever its earlier deadline",
        index::keeping_can_be_taken_back: "after a reaper has ended, live sessions stay, expired ones are absent, and \
            another reaper can be announced",
        index::a_session_is_used_or_reaped: "a session that is used while a reaper runs either lives or is reported, never both",
        index::one_of_many_reapers_is_told: "of concurrent reapers exactly one gets each session",
        index::verifying_leaves_a_healthy_index_alone: "verifying a healthy index changes nothing and reaps nothing",
        index::a_reused_id_keeps_no_owner: "a session that is created under the id of an expired one, or moves there, does not \
            belong to the owner of the expired one",
    }
    WithoutCompanions {
        companions::companions_are_unsupported: "a store that keeps no companions reports so when one is read",
    }
    Companions {
        companions::suffixes_are_not_shared: "a suffix that is already in use is rejected",
        companions::companions_are_written_with_their_session: "a companion is written with its session, reads back \
            unchanged, and stays until it is written again",
        companions::companions_move_with_their_session: "companions move to the new id with their session, except for those \
            that the rotation writes",
        companions::refused_writes_leave_companions_alone: "a write that stores nothing changes no companion",
        companions::companions_live_as_long_as_their_session: "whatever moves the deadline of a session moves the deadline of \
            its companions",
        companions::a_reused_id_keeps_no_companions: "a session that moves to the id of an expired one has its own companions \
            and no others",
        companions::companions_end_with_their_session: "companions end with their session, and a new session under its id \
            has none",
    }
    EndOfAll {
        index::ending_all_ends_what_lives: "ending all sessions ends every live one, leaves expired ones to the reaper, and \
            spares later ones",
    }
    EndOfWalk {
        walk::ending_all_reports_its_progress: "ending all sessions with a callback ends every live one and reports up to the total",
    }
    Bounded {
        sessions::a_full_store_ends_no_session: "a full store rejects a new session with `OutOfMemory`, keeps every session \
            that lives, and takes a new one as soon as one ends",
        index::a_bound_counts_what_waits_for_a_reaper: "live sessions and expired ones that wait for a reaper are together not \
            more than the bound",
    }
    ReadOnly {
        sessions::reads_need_no_write: "while writes fail, a read without a touch, of one session, of the index or of all sessions, succeeds, \
            whatever there would be to clean up",
    }
}

/// Runs the checks of one part. Panics with the promise that the store breaks.
#[track_caller]
pub(super) fn run(part: Part, tested: &Tested<'_>) {
    for Check { name, promise, run, .. } in CHECKS.iter().filter(|check| check.part == part) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(tested))) {
            panic!("the store breaks the promise `{name}`: {promise}\n{}", text_of(&*panic));
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the check panicked without a text")
}
