//! Earliest deadline first: weighted turns that are exact within every rotation.
//!
//! The k-th turn of an entry of weight w falls at k/w of a rotation; the earliest turn is next, the
//! first entry first among equals. In one rotation an entry of weight w has exactly w turns, evenly
//! spread. Deadlines are compared as fractions, so that no rounding ever adds up.
//!
//! Every rotation is like the first one, so that it is written down and read from then on, unless it is
//! too long.

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

/// Turns of a rotation that is written down: a megabyte of them.
const LONGEST: u64 = 1 << 18;

/// A schedule over entries of a fixed weight each.
#[derive(Debug)]
pub(super) struct Edf {
    turns: BinaryHeap<Reverse<Turn>>,
    /// Turns of one rotation.
    length: u64,
    /// The first rotation as far as it was made, and, once it is whole, where the next turn is.
    rotation: Vec<u32>,
    next: usize,
}

impl Edf {
    /// A schedule whose entries are numbered as their weights come. A weight of 0 counts as 1.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let first = |(entry, weight): (usize, u32)| {
            Reverse(Turn { rotation: 0, number: 1, weight: weight.max(1), entry })
        };
        let turns: BinaryHeap<_> = weights.enumerate().map(first).collect();
        let length = turns.iter().map(|Reverse(turn)| u64::from(turn.weight)).sum();
        Self { turns, length, rotation: Vec::new(), next: 0 }
    }

    /// The entry whose turn it is; `None` if there are no entries. O(log n) in the first rotation, and
    /// in all of them if they are too long to be written down; else O(1).
    pub(super) fn next(&mut self) -> Option<usize> {
        if let Some(entry) = self.rotation.get(self.next)
            && self.rotation.len() as u64 == self.length
        {
            self.next = if self.next + 1 == self.rotation.len() { 0 } else { self.next + 1 };
            return Some(*entry as usize);
        }
        let entry = self.make_turn()?;
        if self.length <= LONGEST {
            self.rotation.extend(u32::try_from(entry));
            if self.rotation.len() as u64 == self.length {
                self.turns = BinaryHeap::new();
            }
        }
        Some(entry)
    }

    fn make_turn(&mut self) -> Option<usize> {
        let mut top = self.turns.peek_mut()?;
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
        let again: Vec<_> = std::iter::from_fn(|| edf.next()).take(12).collect();
        assert_eq!(again, [turns.clone(), turns].concat(), "the next rotations are the same");
        assert_eq!(Edf::new(std::iter::empty()).next(), None);
    }

    proptest! {
        #[test]
        fn a_rotation_that_is_read_is_the_one_that_would_be_made(
            weights in prop::collection::vec(1u32..20, 1..12),
        ) {
            let mut read = Edf::new(weights.iter().copied());
            let mut made = Edf { length: LONGEST + 1, ..Edf::new(weights.iter().copied()) };
            for _ in 0..3 * weights.iter().sum::<u32>() {
                prop_assert_eq!(read.next(), made.next());
            }
        }

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
