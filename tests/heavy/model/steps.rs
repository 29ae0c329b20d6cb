//! The operations on sessions that a random run consists of.

use proptest::collection::vec;
use proptest::prelude::*;
use threaded_sessions::OnConflict;

pub(crate) const HANDS: u8 = 3;
pub(crate) const PRINCIPALS: [&str; 2] = ["ada", "bob"];
pub(crate) const FIELDS: [&str; 3] = ["a", "b", "c"];

/// One step. Requests that are under way hold a session each, in one of three hands; an empty hand takes the session with the
/// newest id. `id` counts back from that, over all there ever were.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Open { hand: u8, id: u8 },
    Fresh { hand: u8 },
    Put { hand: u8, field: u8, value: u64 },
    Remove { hand: u8, field: u8 },
    Bind { hand: u8, who: u8, label: u8 },
    Unbind { hand: u8 },
    Renew { hand: u8 },
    Discard { hand: u8 },
    Destroy { hand: u8 },
    OnConflict { hand: u8, policy: OnConflict },
    Commit { hand: u8 },
    UpdateIn { hand: u8, field: u8 },
    Update { id: u8, field: u8 },
    EndAll { who: u8 },
    EndEverybody,
    EndOthers { hand: u8 },
    End { who: u8, id: u8 },
    Expire { id: u8 },
    Reap,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    let hand = || 0..HANDS;
    let id = || prop_oneof![3 => Just(0), 2 => 1..3u8, 1 => 3..9u8];
    let field = || 0..FIELDS.len() as u8;
    let who = || 0..PRINCIPALS.len() as u8;
    let policy = prop_oneof![
        2 => Just(OnConflict::Merge),
        1 => Just(OnConflict::LastWriteWins),
        1 => Just(OnConflict::Fail),
    ];
    prop_oneof![
        8 => (hand(), id()).prop_map(|(hand, id)| Step::Open { hand, id }),
        3 => hand().prop_map(|hand| Step::Fresh { hand }),
        6 => (hand(), field(), 0..4u64).prop_map(|(hand, field, value)| Step::Put { hand, field, value }),
        2 => (hand(), field()).prop_map(|(hand, field)| Step::Remove { hand, field }),
        6 => (hand(), who(), 0..3u8).prop_map(|(hand, who, label)| Step::Bind { hand, who, label }),
        2 => hand().prop_map(|hand| Step::Unbind { hand }),
        3 => hand().prop_map(|hand| Step::Renew { hand }),
        1 => hand().prop_map(|hand| Step::Discard { hand }),
        1 => hand().prop_map(|hand| Step::Destroy { hand }),
        4 => (hand(), policy).prop_map(|(hand, policy)| Step::OnConflict { hand, policy }),
        12 => hand().prop_map(|hand| Step::Commit { hand }),
        4 => (hand(), field()).prop_map(|(hand, field)| Step::UpdateIn { hand, field }),
        2 => (id(), field()).prop_map(|(id, field)| Step::Update { id, field }),
        1 => who().prop_map(|who| Step::EndAll { who }),
        2 => hand().prop_map(|hand| Step::EndOthers { hand }),
        1 => (who(), id()).prop_map(|(who, id)| Step::End { who, id }),
        2 => id().prop_map(|id| Step::Expire { id }),
        1 => Just(Step::Reap),
        1 => Just(Step::EndEverybody),
    ]
}
