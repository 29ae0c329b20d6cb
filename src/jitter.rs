//! Random pauses, so that threads and processes that wait for one thing do not retry all at once.
//!
//! The optimistic save loop, the reaper, the feed of ended sessions and the near cache use it.

use std::time::Duration;

/// Returns a random part of `whole`, from nothing to all of it.
pub(crate) fn part_of(whole: Duration) -> Duration {
    whole.mul_f64(f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX))
}
