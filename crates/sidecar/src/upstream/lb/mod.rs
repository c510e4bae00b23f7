//! Choosing an endpoint: by priority and health, then by the policy of the cluster.
//!
//! All of it is pure: candidates go in, positions come out, and randomness is an argument. A
//! balancer belongs to one worker and is built again when the cluster's endpoints change.

mod edf;
mod picker;
mod shares;

use rand::RngExt;
use rand::rngs::SmallRng;

use self::picker::Picker;
use self::shares::{Level, Members};
use crate::config::cluster::LoadBalancer;
use crate::config::endpoint::HealthStatus;

/// What a balancer needs to know of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Of its locality: 0 is used first.
    pub priority: u32,
    /// What discovery says.
    pub health: HealthStatus,
    /// At least 1.
    pub weight: u32,
}

/// Chooses among the candidates that it was built from, by their position.
#[derive(Debug, Default)]
pub struct Balancer {
    /// What receives traffic; the shares rise to 100. Mostly there is exactly one.
    targets: Vec<Target>,
    panicking: bool,
}

#[derive(Debug)]
struct Target {
    /// The sum of the percentages up to and with this target.
    upto: u32,
    /// Positions among the candidates.
    members: Box<[u32]>,
    picker: Picker,
}

impl Balancer {
    /// A balancer for these candidates. Below `panic_threshold` percent of available ones, health is
    /// disregarded. `random` gives the place to start from, so that workers do not walk through the
    /// endpoints in step.
    pub fn new(
        policy: LoadBalancer,
        panic_threshold: u8,
        candidates: &[Candidate],
        random: &mut SmallRng,
    ) -> Self {
        let mut upto = 0;
        let shares = shares::shares(&levels(candidates), panic_threshold);
        let panicking = shares.iter().any(|s| s.members == Members::Everyone);
        let targets = shares.into_iter().map(|share| {
            upto += share.percent;
            let members = members(candidates, share.priority, share.members);
            let weights: Vec<u32> = members
                .iter()
                .map(|at| candidates[*at as usize].weight.max(1))
                .collect();
            Target {
                upto,
                picker: Picker::new(policy, &weights, random),
                members,
            }
        });
        Balancer {
            targets: targets.collect(),
            panicking,
        }
    }

    /// Whether too few endpoints are healthy, so that health is not regarded.
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// The position of the candidate to use, or none if there is no candidate. `active` tells how
    /// many requests a candidate is busy with.
    pub fn pick(&mut self, random: &mut SmallRng, active: impl Fn(usize) -> u32) -> Option<usize> {
        let at = match self.targets.len() {
            0 => return None,
            1 => 0,
            _ => {
                let dice = random.random_range(0..100);
                self.targets.partition_point(|target| target.upto <= dice)
            }
        };
        let Target {
            members, picker, ..
        } = self.targets.get_mut(at)?;
        let chosen = picker.pick(members.len(), random, |member| {
            active(members[member] as usize)
        });
        members.get(chosen).map(|at| *at as usize)
    }
}

/// Counts the candidates of each priority, from 0 to the last.
fn levels(candidates: &[Candidate]) -> Vec<Level> {
    let mut levels = Vec::new();
    for candidate in candidates {
        let at = candidate.priority as usize;
        if levels.len() <= at {
            levels.resize(at + 1, Level::default());
        }
        let level = &mut levels[at];
        level.total += 1;
        match candidate.health {
            HealthStatus::Healthy => level.healthy += 1,
            HealthStatus::Degraded => level.degraded += 1,
            HealthStatus::Unhealthy | HealthStatus::Draining => {}
        }
    }
    levels
}

fn members(candidates: &[Candidate], priority: usize, members: Members) -> Box<[u32]> {
    let wanted = |candidate: &Candidate| {
        candidate.priority as usize == priority
            && match members {
                Members::Healthy => candidate.health == HealthStatus::Healthy,
                Members::Degraded => candidate.health == HealthStatus::Degraded,
                Members::Everyone => true,
            }
    };
    (0u32..)
        .zip(candidates)
        .filter(|(_, candidate)| wanted(candidate))
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn picks(policy: LoadBalancer, candidates: &[Candidate], active: &[u32]) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut balancer = Balancer::new(policy, 50, candidates, &mut random);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..1200 {
            if let Some(at) = balancer.pick(&mut random, |at| active[at]) {
                counts[at] += 1;
            }
        }
        counts
    }

    #[test]
    fn health_and_priority_decide_who_is_used() {
        use HealthStatus::{Degraded, Draining, Healthy, Unhealthy};
        type Case<'a> = (&'a str, &'a [(u32, HealthStatus)], &'a [usize]);
        let cases: &[Case<'_>] = &[
            ("nobody", &[], &[]),
            ("all healthy", &[(0, Healthy), (0, Healthy)], &[600, 600]),
            (
                "unhealthy and draining ones are passed over",
                &[
                    (0, Healthy),
                    (0, Unhealthy),
                    (0, Healthy),
                    (0, Healthy),
                    (0, Draining),
                ],
                &[400, 0, 400, 400, 0],
            ),
            (
                "degraded ones wait until no healthy one is left",
                &[(0, Degraded), (0, Healthy), (0, Healthy), (0, Healthy)],
                &[0, 400, 400, 400],
            ),
            (
                "only degraded ones",
                &[(0, Degraded), (0, Degraded), (0, Unhealthy)],
                &[600, 600, 0],
            ),
            (
                "panic: too few are healthy",
                &[(0, Healthy), (0, Unhealthy), (0, Unhealthy), (0, Draining)],
                &[300, 300, 300, 300],
            ),
            (
                "panic: nobody is healthy",
                &[(0, Unhealthy), (0, Unhealthy)],
                &[600, 600],
            ),
            (
                "the next priority waits",
                &[(0, Healthy), (1, Healthy)],
                &[1200, 0],
            ),
            (
                "the next priority takes over",
                &[(0, Unhealthy), (1, Healthy), (1, Healthy)],
                &[0, 600, 600],
            ),
            ("a gap in the priorities", &[(3, Healthy)], &[1200]),
        ];
        for (name, candidates, want) in cases {
            let candidates: Vec<_> = candidates
                .iter()
                .map(|(priority, health)| Candidate {
                    priority: *priority,
                    health: *health,
                    weight: 1,
                })
                .collect();
            let active = vec![0; candidates.len()];
            let counts = picks(LoadBalancer::RoundRobin, &candidates, &active);
            assert_eq!(&counts, want, "{name}");
        }
    }

    #[test]
    fn load_spills_to_the_next_priority_in_proportion() {
        // Half of priority 0 is healthy: 1.4 times 50% of the traffic stays there.
        let health = |healthy| match healthy {
            true => HealthStatus::Healthy,
            false => HealthStatus::Unhealthy,
        };
        let candidates =
            [(0, true), (0, false), (1, true), (1, true)].map(|(priority, ok)| Candidate {
                priority,
                health: health(ok),
                weight: 1,
            });
        let counts = picks(LoadBalancer::RoundRobin, &candidates, &[0; 4]);
        assert_eq!(counts[1], 0);
        assert!((780..900).contains(&counts[0]), "{counts:?}");
        assert!(counts[2].abs_diff(counts[3]) <= 1, "{counts:?}");
    }
}
