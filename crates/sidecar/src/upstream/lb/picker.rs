//! The policies: round robin, random and least request, with and without weights.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::edf::{DIVISOR, Schedule};
use crate::config::cluster::LoadBalancer;
use crate::runtime_layer::Double;

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
    /// Anyone.
    Random,
    /// Equal weights, the least busy of some.
    LeastBusy {
        /// How many are looked at.
        choices: u32,
    },
    /// The least busy of all.
    LeastBusyOfAll,
    /// Unequal weights, each divided by how busy the member is when it is queued again.
    WeightedLeastBusy {
        /// Who comes when.
        schedule: Schedule,
        /// By member.
        weights: Box<[u32]>,
        /// How much a request in flight counts.
        bias: f64,
    },
}

impl Picker {
    /// The picker for a policy and the weights of its members.
    pub fn new(policy: &LoadBalancer, weights: &[u32], random: &mut SmallRng) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let start = match weights.len() {
            0 | 1 => 0,
            count => random.random_range(0..count),
        };
        let begun = || {
            let mut schedule = Schedule::new(weights.iter().copied());
            for _ in 0..start {
                schedule.next(|at| (weights[at], DIVISOR));
            }
            schedule
        };
        match (policy, equal) {
            (LoadBalancer::Random, _) => Picker::Random,
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, true) => {
                Picker::Turns { next: start }
            }
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, false) => Picker::Weighted {
                schedule: begun(),
                weights: weights.into(),
            },
            (LoadBalancer::LeastRequest { choices, .. }, true) => match choices {
                Some(choices) => Picker::LeastBusy {
                    choices: (*choices).max(1),
                },
                None => Picker::LeastBusyOfAll,
            },
            (LoadBalancer::LeastRequest { bias, .. }, false) => Picker::WeightedLeastBusy {
                schedule: begun(),
                weights: weights.into(),
                bias: bias.as_ref().map_or(1.0, Double::get),
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
            _ if count <= 1 => 0,
            Picker::Random => random.random_range(0..count),
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
            Picker::LeastBusyOfAll => {
                // Starts anywhere, so that equally busy ones share.
                let start = random.random_range(0..count);
                let order = (start..count).chain(0..start);
                order.min_by_key(|at| active(*at)).unwrap_or(start)
            }
            Picker::Weighted { schedule, weights } => {
                schedule.next(|at| (weights[at], DIVISOR)).unwrap_or(0)
            }
            Picker::WeightedLeastBusy {
                schedule,
                weights,
                bias,
            } => schedule
                .next(|at| (weights[at], divisor(active(at), *bias)))
                .unwrap_or(0),
        }
    }
}

/// What the weight of a member with this many requests in flight is divided by.
fn divisor(active: u32, bias: f64) -> u64 {
    let load = u64::from(active) + 1;
    // The exact way for what is configured nowhere.
    if bias == 1.0 {
        return load * DIVISOR;
    }
    ((load as f64).powf(bias) * DIVISOR as f64).clamp(1.0, (1u64 << 42) as f64) as u64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn counts(policy: LoadBalancer, weights: &[u32], active: &[u32], picks: usize) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut picker = Picker::new(&policy, weights, &mut random);
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
        let policy = |choices| LoadBalancer::LeastRequest {
            choices,
            bias: None,
        };
        // The busy one is only chosen when both choices fall on it.
        let got = counts(policy(Some(2)), &[1, 1, 1], &[0, 9, 0], 9000);
        assert!((700..1300).contains(&got[1]), "{got:?}");
        // With weights: 4/1 against 4/4.
        let got = counts(policy(Some(2)), &[4, 4, 1], &[0, 3, 0], 6000);
        assert!((3900..4100).contains(&got[0]), "{got:?}");
        assert!((900..1100).contains(&got[1]), "{got:?}");
        assert!((900..1100).contains(&got[2]), "{got:?}");
        let got = counts(policy(None), &[1, 1, 1], &[1, 9, 1], 900);
        assert_eq!(got[1], 0);
        assert!((300..600).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn the_bias_says_how_much_requests_count() {
        assert_eq!(divisor(3, 1.0), 4 * DIVISOR);
        assert_eq!(divisor(3, 0.0), DIVISOR);
        assert_eq!(divisor(3, 0.5), 2 * DIVISOR);
        assert_eq!(divisor(3, 2.0), 16 * DIVISOR);
    }

    #[test]
    fn random_disregards_weights() {
        let got = counts(LoadBalancer::Random, &[9, 1], &[0, 0], 10_000);
        assert!((4500..5500).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn workers_start_at_different_places() {
        let first = |seed| {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut picker = Picker::new(&LoadBalancer::RoundRobin, &[1; 64], &mut random);
            picker.pick(64, &mut random, |_| 0)
        };
        let places: std::collections::BTreeSet<_> = (0..8).map(first).collect();
        assert!(places.len() > 4, "{places:?}");
    }
}
