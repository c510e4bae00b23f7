//! The policies: round robin, random and least request, with and without weights.

use std::time::Instant;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::edf::{DIVISOR, Schedule};
use super::slow_start::Warming;
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
    Weighted(Weighted),
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
        /// The members.
        members: Weighted,
        /// How much a request in flight counts.
        bias: f64,
    },
}

/// Members of unequal weights.
#[derive(Debug)]
pub struct Weighted {
    /// Who comes when.
    schedule: Schedule,
    /// By member.
    weights: Box<[u32]>,
    /// Those that are new, where these get less.
    warming: Option<Box<Warming>>,
}

impl Weighted {
    fn new(weights: &[u32], warming: Option<Warming>, begun: usize, now: Instant) -> Self {
        let slowed = |at| warming.as_ref().map_or(DIVISOR, |w| w.divisor(at, now));
        let loads = weights.iter().enumerate().map(|(at, w)| (*w, slowed(at)));
        let mut schedule = Schedule::with(loads);
        for _ in 0..begun {
            schedule.next(|at| (weights[at], slowed(at)));
        }
        Weighted {
            schedule,
            weights: weights.into(),
            warming: warming.map(Box::new),
        }
    }

    /// The next one. `busy` is what a weight is divided by for the load of its member, in units of
    /// 1/[`DIVISOR`].
    fn next(&mut self, busy: impl Fn(usize) -> u64, now: impl FnOnce() -> Instant) -> usize {
        let Weighted {
            schedule,
            weights,
            warming,
        } = self;
        let load = |at: usize| match warming {
            None => (weights[at], busy(at)),
            Some(warming) => {
                let slowed = u128::from(busy(at)) * u128::from(warming.divisor(at, now()));
                let divisor = slowed / u128::from(DIVISOR);
                (weights[at], u64::try_from(divisor).unwrap_or(u64::MAX))
            }
        };
        schedule.next(load).unwrap_or(0)
    }
}

impl Picker {
    /// The picker for a policy and the weights of its members, some of which may be new.
    pub fn new(
        policy: &LoadBalancer,
        weights: &[u32],
        warming: Option<Warming>,
        random: &mut SmallRng,
        now: Instant,
    ) -> Self {
        let equal = warming.is_none() && weights.windows(2).all(|pair| pair[0] == pair[1]);
        let start = match weights.len() {
            0 | 1 => 0,
            count => random.random_range(0..count),
        };
        match (policy, equal) {
            (LoadBalancer::Random, _) => Picker::Random,
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, true) => {
                Picker::Turns { next: start }
            }
            (LoadBalancer::RoundRobin | LoadBalancer::Provided, false) => {
                Picker::Weighted(Weighted::new(weights, warming, start, now))
            }
            (LoadBalancer::LeastRequest { choices, .. }, true) => match choices {
                Some(choices) => Picker::LeastBusy {
                    choices: (*choices).max(1),
                },
                None => Picker::LeastBusyOfAll,
            },
            (LoadBalancer::LeastRequest { bias, .. }, false) => Picker::WeightedLeastBusy {
                members: Weighted::new(weights, warming, start, now),
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
        now: impl FnOnce() -> Instant,
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
            Picker::Weighted(members) => members.next(|_| DIVISOR, now),
            Picker::WeightedLeastBusy { members, bias } => {
                let bias = *bias;
                members.next(|at| divisor(active(at), bias), now)
            }
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
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::config::cluster::SlowStart;

    fn counts(policy: LoadBalancer, weights: &[u32], active: &[u32], picks: usize) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut picker = Picker::new(&policy, weights, None, &mut random, Instant::now());
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[picker.pick(weights.len(), &mut random, |at| active[at], Instant::now)] += 1;
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
            let policy = LoadBalancer::RoundRobin;
            let mut picker = Picker::new(&policy, &[1; 64], None, &mut random, Instant::now());
            picker.pick(64, &mut random, |_| 0, Instant::now)
        };
        let places: std::collections::BTreeSet<_> = (0..8).map(first).collect();
        assert!(places.len() > 4, "{places:?}");
    }

    #[test]
    fn a_new_member_gets_more_and_more() {
        let start = Instant::now();
        let rule = SlowStart {
            window: Duration::from_secs(100),
            aggression: None,
            least: 0.1,
        };
        // The other has been there for longer than the window.
        let before = start.checked_sub(Duration::from_secs(200));
        let before = before.unwrap_or(start);
        for (passed, share) in [
            (0, 0.1),
            (5, 0.1),
            (25, 0.25),
            (50, 0.5),
            (100, 1.0),
            (500, 1.0),
        ] {
            let now = start + Duration::from_secs(passed);
            let mut random = SmallRng::seed_from_u64(1);
            let warming = Warming::new(&rule, [Some(before), Some(start)].into_iter(), start);
            let mut picker = Picker::new(
                &LoadBalancer::RoundRobin,
                &[1, 1],
                warming,
                &mut random,
                now,
            );
            let mut counts = [0.0; 2];
            for _ in 0..2200 {
                counts[picker.pick(2, &mut random, |_| 0, || now)] += 1.0;
            }
            let got: f64 = counts[1] / counts[0];
            assert!((got - share).abs() < 0.02, "{passed}: {counts:?}");
        }
        let none = Warming::new(&rule, [Some(before), None].into_iter(), start);
        assert!(none.is_none(), "nobody is new");
    }
}
