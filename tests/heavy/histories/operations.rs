//! The operations of a history, and which of them can come next.
//!
//! `explore.rs` enumerates them, `model.rs` predicts their results, `ground.rs` carries them out. The invariant: two histories that
//! differ only in the names of clients, sessions or principals are one history here.
//!
//! A client is the version that it expects: the only thing that a store gets from one client and not from another. With three
//! clients, each version that was ever stored can be held by a client, so a write expects the current version, or the one before.

use std::ops::Range;

use crate::model::{Model, Record, Stage};

pub(crate) const SLOTS: usize = 2;
pub(crate) const PRINCIPALS: [&str; 2] = ["ada", "bob"];

/// A number in [`PRINCIPALS`].
pub(crate) type Principal = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    On(Target, Act),
    EndAll(Principal),
    EndEverybody,
    Reap,
    Verify,
}

/// One of the two sessions, by its latest id or by the id before it was last renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) slot: usize,
    /// 0 for the latest id, 1 for the one before.
    pub(crate) age: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Create,
    Read,
    Touch,
    Save(Expect),
    Rotate(Expect),
    Delete,
    /// A save, with the current version, that changes the owner.
    Bind(Option<Principal>),
    /// A rotation, with the current version, that changes the owner.
    Login(Principal),
    End(Principal),
    /// The next TTL passes: first the session's, then the data's, then the tombstone's.
    Expire,
}

/// Which version a write expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Expect {
    Any,
    Current,
    /// A version that another write has replaced.
    Stale,
}

/// All operations that can come next.
pub(crate) fn enabled(model: &Model) -> Vec<Operation> {
    let mut operations = Vec::new();
    for slot in 0..SLOTS.min(model.used_slots() + 1) {
        for age in 0..model.slot(slot).ids.len().min(2) {
            let target = Target { slot, age };
            operations.extend(acts(model, target).into_iter().map(|act| Operation::On(target, act)));
        }
    }
    if model.kind.expiring {
        operations.extend(principals(model).map(Operation::EndAll));
        operations.extend([Operation::EndEverybody, Operation::Reap, Operation::Verify]);
    }
    operations
}

/// The principals that had a session, and one more.
fn principals(model: &Model) -> Range<Principal> {
    0..PRINCIPALS.len().min(model.used_principals() + 1)
}

fn acts(model: &Model, target: Target) -> Vec<Act> {
    use Act::*;
    let mut acts = vec![Create, Read, Touch, Save(Expect::Any), Rotate(Expect::Any), Delete];
    for expect in [Expect::Current, Expect::Stale] {
        if model.expected(target, expect).is_some() {
            acts.extend([Save(expect), Rotate(expect)]);
        }
    }
    if model.kind.expiring {
        acts.extend(principals(model).flat_map(|principal| [End(principal), Bind(Some(principal)), Login(principal)]));
        acts.push(Bind(None));
    }
    let id = model.id(target);
    let can_expire = match &id.session {
        Some(Record { stage: Stage::Live, hours, .. }) => hours.is_some(),
        Some(Record { stage: Stage::Expired, .. }) => true,
        _ => id.has_tombstone,
    };
    if can_expire {
        acts.push(Expire);
    }
    acts
}
