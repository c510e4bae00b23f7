//! The policies: round robin and least request, with and without weights.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::edf::Schedule;
use crate::config::cluster::LoadBalancer;

/// Picks one of the members `0..n` that it was built for.
#[derive(Debug)]
pub enum Picker {
    /// Equal weights, each in its turn.
    Turns {
        /// Whose turn it is.
        next: usize,
    },
    /// Unequal weights, each as often as it weighs.
    Weighted {
        /// Who comes when.
        schedule: Schedule,
        /// By member.
        weights: Box<[u32]>,
    },
    /// Equal weights, the least busy of some.
    LeastBusy {
        /// How many are looked at.
        choices: u32,
    },
    /// Unequal weights, each divided by how busy the member is when it is queued again.
    WeightedLeastBusy {
        /// Who comes when.
        schedule: Schedule,
        /// By member.
        weights: Box<[u32]>,
    },
}

impl Picker {
    /// The picker for a policy and the weights of its members.
    pub fn new(policy: LoadBalancer, weights: &[u32], random: &mut SmallRng) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let start = match weights.len() {
            0 | 1 => 0,
            count => random.random_range(0..count),
        };
        let begun = || {
            let mut schedule = Schedule::new(weights.iter().copied());
            for _ in 0..start {
                schedule.next(|at| (weights[at], 1));
            }
            schedule
        };
        match (policy, equal) {
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, true) => {
                Picker::Turns { next: start }
            }
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, false) => Picker::Weighted {
                schedule: begun(),
                weights: weights.into(),
            },
            (LoadBalancer::LeastRequest { choices }, true) => Picker::LeastBusy {
                choices: choices.max(1),
            },
            (LoadBalancer::LeastRequest { .. }, false) => Picker::WeightedLeastBusy {
                schedule: begun(),
                weights: weights.into(),
            },
        }
    }

    /// The member to use of `count`, which is that of [`Picker::new`]. `active` tells how many
    /// requests a member is busy with.
    pub fn pick(
        &mut self,
        count: usize,
        random: &mut SmallRng,
        active: impl Fn(usize) -> u32,
    ) -> usize {
        match self {
            Picker::Turns { next } => {
                let chosen = *next;
                *next = if chosen + 1 < count { chosen + 1 } else { 0 };
                chosen
            }
            Picker::LeastBusy { .. } if count <= 1 => 0,
            Picker::LeastBusy { choices } => {
                let mut chosen = random.random_range(0..count);
                let mut least = active(chosen);
                for _ in 1..*choices {
                    let other = random.random_range(0..count);
                    let busy = active(other);
                    if busy < least {
                        (chosen, least) = (other, busy);
                    }
                }
                chosen
            }
            Picker::Weighted { schedule, weights } => {
                schedule.next(|at| (weights[at], 1)).unwrap_or(0)
            }
            Picker::WeightedLeastBusy { schedule, weights } => schedule
                .next(|at| (weights[at], active(at).saturating_add(1)))
                .unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn counts(policy: LoadBalancer, weights: &[u32], active: &[u32], picks: usize) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut picker = Picker::new(policy, weights, &mut random);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[picker.pick(weights.len(), &mut random, |at| active[at])] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact_over_a_round() {
        let cases: &[(&[u32], usize, &[u32])] = &[
            (&[1], 5, &[5]),
            (&[7, 7, 7], 9, &[3, 3, 3]),
            (&[90, 10], 100, &[90, 10]),
            (&[1, 2, 3], 60, &[10, 20, 30]),
        ];
        for (weights, picks, want) in cases {
            let idle = vec![0; weights.len()];
            let got = counts(LoadBalancer::RoundRobin, weights, &idle, *picks);
            assert_eq!(&got, want, "{weights:?}");
        }
    }

    #[test]
    fn least_request_prefers_who_is_idle() {
        let policy = LoadBalancer::LeastRequest { choices: 2 };
        // The busy one is only chosen when both choices fall on it.
        let got = counts(policy, &[1, 1, 1], &[0, 9, 0], 9000);
        assert!((700..1300).contains(&got[1]), "{got:?}");
        // With weights: 4/1 against 4/4.
        let got = counts(policy, &[4, 4, 1], &[0, 3, 0], 6000);
        assert!((3900..4100).contains(&got[0]), "{got:?}");
        assert!((900..1100).contains(&got[1]), "{got:?}");
        assert!((900..1100).contains(&got[2]), "{got:?}");
    }

    #[test]
    fn workers_start_at_different_places() {
        let first = |seed| {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut picker = Picker::new(LoadBalancer::RoundRobin, &[1; 64], &mut random);
            picker.pick(64, &mut random, |_| 0)
        };
        let places: std::collections::BTreeSet<_> = (0..8).map(first).collect();
        assert!(places.len() > 4, "{places:?}");
    }
}
