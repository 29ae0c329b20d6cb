//! Rounds in which each peer has its turn between two turns of this crate.

use super::measure::Spread;

/// One turn of a library.
#[derive(Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Operations, or pages with status 200.
    pub(crate) done: u64,
    pub(crate) seconds: f64,
    /// How many of the increments that were responded to with status 200 the session held afterwards.
    pub(crate) kept: u64,
}

impl Turn {
    fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

/// The turns of one library, summed up.
pub(crate) struct Summary {
    /// The median of the rounds.
    pub(crate) per_second: f64,
    /// Speed relative to this crate in the turns before and after. For this crate: the later turn relative to the earlier one,
    /// which no other ratio can be finer than.
    pub(crate) ratio: Spread,
    /// The share of the increments that were kept, over all rounds.
    pub(crate) kept: f64,
}

/// Carries out the rounds. The first library is this crate.
pub(crate) fn run(rounds: usize, libraries: &mut [Box<dyn FnMut() -> Turn + '_>]) -> Vec<Summary> {
    let (own, peers) = libraries.split_first_mut().expect("this crate is measured");
    // The first turn opens connections and fills caches.
    own();
    for peer in peers.iter_mut() {
        peer();
    }
    let (mut turns, mut ratios) = (vec![Vec::new(); peers.len() + 1], vec![Vec::new(); peers.len() + 1]);
    for _ in 0..rounds {
        let mut before = own();
        for (number, peer) in (1..).zip(peers.iter_mut()) {
            let (turn, after) = (peer(), own());
            let own_time = (1.0 / before.per_second() + 1.0 / after.per_second()) / 2.0;
            ratios[number].push(turn.per_second() * own_time);
            ratios[0].push(after.per_second() / before.per_second());
            turns[number].push(turn);
            turns[0].push(before);
            before = after;
        }
    }
    turns.into_iter().zip(ratios).map(|(turns, ratios)| summary(&turns, ratios)).collect()
}

fn summary(turns: &[Turn], ratios: Vec<f64>) -> Summary {
    let total = |part: fn(&Turn) -> u64| turns.iter().map(part).sum::<u64>() as f64;
    Summary {
        per_second: Spread::of(turns.iter().map(Turn::per_second).collect()).median,
        ratio: Spread::of(ratios),
        kept: total(|turn| turn.kept) / total(|turn| turn.done),
    }
}
