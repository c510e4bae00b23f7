//! Earliest deadline first: each entry comes up in proportion to its weight, spread evenly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual time that an entry of weight 1 takes. Integers keep the schedule exact for ever: the
/// greatest step is 2^96 and 2^32 of those pass before an overflow.
const UNIT: u128 = 1 << 64;

/// Divisors are in units of this fraction of 1.
pub const DIVISOR: u64 = 1 << 10;

/// A schedule of entries `0..n`.
#[derive(Debug, Default)]
pub struct Schedule {
    queue: BinaryHeap<Reverse<Entry>>,
    now: u128,
    turns: u64,
}

/// Ordered by deadline; of equal ones, who was queued first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: u128,
    turn: u64,
    at: u32,
}

impl Schedule {
    /// A schedule in which entry `i` has weight `weights[i]`.
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        Self::with(weights.map(|weight| (weight, DIVISOR)))
    }

    /// A schedule of entries with these weights, and what those are divided by.
    pub fn with(loads: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut schedule = Schedule::default();
        for (at, (weight, divisor)) in (0u32..).zip(loads) {
            schedule.push(at, weight, divisor);
        }
        schedule
    }

    /// Takes the entry whose turn it is and queues it again. `load` answers its weight and by how
    /// much that is to be divided, in units of 1/[`DIVISOR`].
    pub fn next(&mut self, load: impl FnOnce(usize) -> (u32, u64)) -> Option<usize> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.deadline;
        let (weight, divisor) = load(entry.at as usize);
        self.push(entry.at, weight, divisor);
        Some(entry.at as usize)
    }

    fn push(&mut self, at: u32, weight: u32, divisor: u64) {
        let unit = UNIT / u128::from(DIVISOR);
        let step = unit * u128::from(divisor.max(1)) / u128::from(weight.max(1));
        self.queue.push(Reverse(Entry {
            deadline: self.now + step,
            turn: self.turns,
            at,
        }));
        self.turns += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_even_and_exact() {
        let cases: &[(&[u32], &str)] = &[
            (&[1, 1, 1], "abcabcabc"),
            (&[2, 1], "abaaba"),
            (&[3, 1], "aaabaaab"),
            (&[5, 2, 1], "aabaaacb"),
            (&[1000, 1], "aaaaaaaa"),
        ];
        for (weights, want) in cases {
            let mut schedule = Schedule::new(weights.iter().copied());
            let got: String = (0..want.len())
                .filter_map(|_| schedule.next(|at| (weights[at], DIVISOR)))
                .map(|at| char::from(b'a' + at as u8))
                .collect();
            assert_eq!(&got, want, "{weights:?}");
        }
    }

    #[test]
    fn over_a_whole_round_each_comes_as_often_as_it_weighs() {
        let weights = [90, 10, 1, u32::MAX / (1 << 24)];
        let round: u32 = weights.iter().sum();
        let mut schedule = Schedule::new(weights.into_iter());
        let mut counts = [0; 4];
        for _ in 0..round {
            if let Some(at) = schedule.next(|at| (weights[at], DIVISOR)) {
                counts[at] += 1;
            }
        }
        assert_eq!(counts, weights);
    }
}
