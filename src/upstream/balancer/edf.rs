//! Earliest deadline first: weighted turns that are exact within every rotation.
//!
//! The k-th turn of an entry of weight w falls at k/w of a rotation; the earliest turn is next, the
//! first entry first among equals. In one rotation an entry of weight w has exactly w turns, evenly
//! spread. Deadlines are compared as fractions, so that no rounding ever adds up.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    rotation: u64,
    /// Within the rotation, from 1 to `weight`.
    number: u32,
    weight: u32,
    entry: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let at = |turn: &Self, by: &Self| u64::from(turn.number) * u64::from(by.weight);
        self.rotation
            .cmp(&other.rotation)
            .then_with(|| at(self, other).cmp(&at(other, self)))
            .then_with(|| self.entry.cmp(&other.entry))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A schedule over entries of a fixed weight each.
#[derive(Debug)]
pub(super) struct Edf(BinaryHeap<Reverse<Turn>>);

impl Edf {
    /// A schedule whose entries are numbered as their weights come. A weight of 0 counts as 1.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let first = |(entry, weight): (usize, u32)| {
            Reverse(Turn { rotation: 0, number: 1, weight: weight.max(1), entry })
        };
        Self(weights.enumerate().map(first).collect())
    }

    /// The entry whose turn it is; `None` if there are no entries. O(log n).
    pub(super) fn next(&mut self) -> Option<usize> {
        let mut top = self.0.peek_mut()?;
        let turn = &mut top.0;
        let entry = turn.entry;
        if turn.number == turn.weight {
            turn.rotation += 1;
            turn.number = 1;
        } else {
            turn.number += 1;
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_are_spread_and_ties_go_in_order() {
        let mut edf = Edf::new([3, 1, 2].into_iter());
        let turns: Vec<_> = std::iter::from_fn(|| edf.next()).take(6).collect();
        assert_eq!(turns, [0, 2, 0, 0, 1, 2]);
        assert_eq!(Edf::new(std::iter::empty()).next(), None);
    }

    proptest! {
        #[test]
        fn every_rotation_is_exact(weights in prop::collection::vec(1u32..50, 1..12)) {
            let mut edf = Edf::new(weights.iter().copied());
            for _ in 0..3 {
                let mut turns = vec![0; weights.len()];
                for _ in 0..weights.iter().sum() {
                    turns[edf.next().unwrap()] += 1;
                }
                prop_assert_eq!(&turns, &weights);
            }
        }
    }
}
