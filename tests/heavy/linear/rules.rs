//! Short histories by hand: the checker accepts what the contract permits, and rejects the rest.
//!
//! `linear.rs` includes these tests. The invariant: each history that is accepted has a neighbour that is rejected.

use crate::checker::{Verdict, check, shortest};
use crate::model::{Call, Operation, Outcome};
use Call::{Delete, Read, Rotate, Save};
use Outcome::{Absent, Conflict, Deleted, Live, Missing, Renewed, Stored};

fn known(invoked: u64, returned: u64, call: Call, outcome: Outcome) -> Operation {
    Operation { client: 0, call, invoked, returned, outcome: Some(outcome), resent: false }
}

fn unknown(invoked: u64, returned: u64, call: Call) -> Operation {
    Operation { client: 0, call, invoked, returned, outcome: None, resent: false }
}

fn sent_twice(operation: Operation) -> Operation {
    Operation { resent: true, ..operation }
}

fn blind(value: u8) -> Call {
    Save { id: 0, value, expected: None }
}

fn save(value: u8, expected: u8) -> Call {
    Save { id: 0, value, expected: Some(expected) }
}

fn rotate(value: u8, expected: u8) -> Call {
    Rotate { old: 0, new: 1, value, expected: Some(expected) }
}

const READ: Call = Read { id: 0 };

fn is_accepted(history: &[Operation]) -> bool {
    check(history) == Verdict::Linearizable
}

#[test]
fn read_returns_latest_completed_save() {
    let saved = known(0, 3, blind(1), Stored);
    assert!(is_accepted(&[saved, known(1, 2, READ, Live(0)), known(4, 5, READ, Live(1))]));
    assert!(is_accepted(&[saved, known(1, 2, READ, Live(1)), known(4, 5, READ, Live(1))]));
    // It is stale, or it goes back.
    assert!(!is_accepted(&[saved, known(4, 5, READ, Live(0))]));
    assert!(!is_accepted(&[saved, known(1, 2, READ, Live(1)), known(2, 3, READ, Live(0))]));
}

#[test]
fn one_of_two_versioned_saves_conflicts() {
    let first = known(0, 4, save(1, 0), Stored);
    assert!(is_accepted(&[first, known(1, 5, save(2, 0), Conflict(1))]));
    assert!(!is_accepted(&[first, known(1, 5, save(2, 0), Stored)]));
    assert!(!is_accepted(&[first, known(1, 5, save(2, 0), Conflict(2))]));
}

#[test]
fn unknown_save_takes_effect_late_or_never() {
    let (doubtful, before) = (unknown(0, 1, save(1, 0)), known(2, 3, READ, Live(0)));
    assert!(is_accepted(&[doubtful, before, known(4, 5, READ, Live(0))]));
    assert!(is_accepted(&[doubtful, before, known(4, 5, READ, Live(1))]));
    // Its effect stays, and it has none after another change.
    assert!(!is_accepted(&[doubtful, known(2, 3, READ, Live(1)), known(4, 5, READ, Live(0))]));
    assert!(!is_accepted(&[doubtful, known(2, 3, blind(2), Stored), known(4, 5, READ, Live(1))]));
    // A save that failed without an effect is in no history.
    assert!(!is_accepted(&[before, known(4, 5, READ, Live(1))]));
}

#[test]
fn blind_save_sent_twice_may_replace_twice() {
    let others = [known(1, 2, READ, Live(1)), known(3, 4, save(2, 1), Stored), known(6, 7, READ, Live(1))];
    let history = |own: Operation| [own, others[0], others[1], others[2]];
    assert!(is_accepted(&history(sent_twice(known(0, 5, blind(1), Stored)))));
    assert!(is_accepted(&history(unknown(0, 5, blind(1)))));
    assert!(!is_accepted(&history(known(0, 5, blind(1), Stored))));
    // The second attempt is over when the save returns.
    let late = [others[0], known(6, 7, save(2, 1), Stored), known(8, 9, READ, Live(1))];
    assert!(!is_accepted(&[sent_twice(known(0, 5, blind(1), Stored)), late[0], late[1], late[2]]));
}

#[test]
fn change_sent_twice_may_miss_its_effect() {
    let seen = known(1, 2, READ, Live(1));
    let by_deletion = known(3, 4, Delete { id: 0 }, Deleted(true));
    let own = known(0, 5, save(1, 0), Missing);
    assert!(is_accepted(&[sent_twice(own), seen, by_deletion]));
    assert!(!is_accepted(&[own, seen, by_deletion]));
    // The change lives on.
    let by_rotation = known(3, 4, rotate(2, 1), Stored);
    assert!(is_accepted(&[sent_twice(own), known(3, 4, rotate(2, 0), Stored)]));
    assert!(is_accepted(&[unknown(0, 5, save(1, 0)), seen, by_rotation]));
    assert!(!is_accepted(&[sent_twice(own), seen, by_rotation]));
    let conflict = sent_twice(known(0, 5, save(1, 0), Conflict(2)));
    assert!(is_accepted(&[conflict, known(3, 4, save(2, 0), Stored)]));
    assert!(!is_accepted(&[conflict, seen, known(3, 4, save(2, 1), Stored)]));
    let own = known(0, 3, Delete { id: 0 }, Deleted(false));
    assert!(is_accepted(&[sent_twice(own), known(4, 5, READ, Absent)]));
    assert!(!is_accepted(&[own, known(4, 5, READ, Absent)]));
}

#[test]
fn rotation_leaves_exactly_one_id_live() {
    let (rotated, read) = (known(0, 1, rotate(1, 0), Stored), |id, outcome| known(2, 3, Read { id }, outcome));
    assert!(is_accepted(&[rotated, read(0, Renewed), read(1, Live(1))]));
    assert!(!is_accepted(&[rotated, read(0, Live(0))]));
    assert!(!is_accepted(&[rotated, read(0, Absent)]));
    assert!(!is_accepted(&[rotated, read(1, Absent)]));
    let doubtful = unknown(0, 1, rotate(1, 0));
    assert!(is_accepted(&[doubtful, known(2, 3, READ, Renewed), known(4, 5, Read { id: 1 }, Live(1))]));
    assert!(!is_accepted(&[doubtful, known(2, 3, READ, Renewed), known(4, 5, Read { id: 1 }, Absent)]));
}

#[test]
fn ended_session_stays_ended() {
    let deleted = known(0, 1, Delete { id: 0 }, Deleted(true));
    assert!(is_accepted(&[deleted, known(2, 3, blind(1), Missing), known(4, 5, READ, Absent)]));
    assert!(!is_accepted(&[deleted, known(2, 3, blind(1), Stored)]));
    assert!(!is_accepted(&[deleted, unknown(2, 3, blind(1)), known(4, 5, READ, Live(1))]));
}

#[test]
fn violated_history_is_shortened() {
    let violation = [known(0, 1, blind(1), Stored), known(2, 3, READ, Live(0))];
    let history = [violation[0], violation[1], known(4, 5, READ, Live(1)), known(6, 7, READ, Live(1))];
    assert!(!is_accepted(&history));
    let found: Vec<u64> = shortest(&history).iter().map(|operation| operation.invoked).collect();
    assert_eq!(found, [0, 2]);
}
