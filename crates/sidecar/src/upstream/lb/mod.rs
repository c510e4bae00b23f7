//! Choosing an endpoint: by priority and health, then by the policy of the cluster.
//!
//! All of it is pure: candidates go in, positions come out, and randomness is an argument. A
//! balancer belongs to one worker and is built again when the cluster's endpoints change.

mod edf;
mod picker;
mod shares;

use rand::RngExt;
use rand::rngs::SmallRng;

use self::edf::{DIVISOR, Schedule};
use self::picker::Picker;
use self::shares::{Level, Members, Rules};
use crate::config::cluster::LoadBalancing;
use crate::config::endpoint::HealthStatus;

/// What a balancer needs to know of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Of its locality: 0 is used first.
    pub priority: u32,
    /// Which locality, counted from 0.
    pub locality: u32,
    /// What discovery says.
    pub health: HealthStatus,
    /// At least 1.
    pub weight: u32,
}

/// What the assignment says besides the endpoints.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Percent.
    pub overprovisioning_factor: u32,
    /// How healthy a priority is counts by weights.
    pub weighted_priority_health: bool,
    /// The weight of each locality.
    pub localities: Vec<u32>,
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
    /// All of it, or each locality's part. Mostly there is exactly one.
    groups: Vec<Group>,
    /// Which group's turn it is, and their weights, where there are several.
    localities: Option<(Schedule, Box<[u32]>)>,
}

#[derive(Debug)]
struct Group {
    /// Positions among the candidates.
    members: Box<[u32]>,
    picker: Picker,
}

impl Balancer {
    /// A balancer for these candidates. `random` gives the place to start from, so that workers do
    /// not walk through the endpoints in step.
    pub fn new(
        config: &LoadBalancing,
        policy: &Policy,
        candidates: &[Candidate],
        random: &mut SmallRng,
    ) -> Self {
        let mut upto = 0;
        let rules = Rules {
            panic_threshold: config.panic_threshold,
            overprovisioning_factor: policy.overprovisioning_factor,
            by_weight: policy.weighted_priority_health,
        };
        let shares = shares::shares(&levels(candidates), rules);
        let panicking = shares.iter().any(|s| s.members == Members::Everyone);
        let targets = shares.into_iter().map(|share| {
            upto += share.percent;
            let mut members = members(candidates, share.priority, share.members);
            if share.members == Members::Everyone && config.fail_on_panic {
                members.clear();
            }
            let (groups, weights) = match config.locality_weighted {
                true if share.members != Members::Everyone => {
                    by_locality(members, share.priority, policy, candidates)
                }
                _ => (vec![members], Vec::new()),
            };
            let groups = groups.into_iter().map(|members| {
                let weights: Vec<u32> = members
                    .iter()
                    .map(|at| candidates[*at as usize].weight.max(1))
                    .collect();
                Group {
                    picker: Picker::new(&config.policy, &weights, random),
                    members: members.into(),
                }
            });
            let groups = groups.collect::<Vec<_>>();
            Target {
                upto,
                localities: (groups.len() > 1).then(|| {
                    let mut schedule = Schedule::new(weights.iter().copied());
                    for _ in 0..random.random_range(0..groups.len()) {
                        schedule.next(|at| (weights[at], DIVISOR));
                    }
                    (schedule, weights.into())
                }),
                groups,
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
        let target = self.targets.get_mut(at)?;
        let group = match &mut target.localities {
            None => 0,
            Some((schedule, weights)) => schedule.next(|at| (weights[at], DIVISOR))?,
        };
        let Group { members, picker } = target.groups.get_mut(group)?;
        let chosen = picker.pick(members.len(), random, |member| {
            active(members[member] as usize)
        });
        members.get(chosen).map(|at| *at as usize)
    }
}

/// Divides members by locality, and says how much of the traffic each part gets: a locality's
/// weight, less what is missing of it beyond the overprovisioning. Where no locality has a weight
/// they are one.
fn by_locality(
    members: Vec<u32>,
    priority: usize,
    policy: &Policy,
    candidates: &[Candidate],
) -> (Vec<Vec<u32>>, Vec<u32>) {
    let mut parts = vec![Vec::new(); policy.localities.len()];
    for at in &members {
        let locality = candidates[*at as usize].locality as usize;
        if let Some(part) = parts.get_mut(locality) {
            part.push(*at);
        }
    }
    let mut totals = vec![0u64; parts.len()];
    for candidate in candidates {
        if candidate.priority as usize == priority
            && let Some(total) = totals.get_mut(candidate.locality as usize)
        {
            *total += 1;
        }
    }
    let weigh = |(at, part): (usize, Vec<u32>)| {
        let available = u64::from(policy.overprovisioning_factor) * part.len() as u64;
        // In hundredths, so that small weights are not rounded away.
        let percent = (available / totals[at].max(1)).min(100);
        let weight = u64::from(policy.localities[at]) * percent;
        (weight > 0).then_some((part, weight))
    };
    let weighed: Vec<_> = parts.into_iter().enumerate().filter_map(weigh).collect();
    if weighed.is_empty() {
        return (vec![members], Vec::new());
    }
    // As the schedule takes them: only the relation counts.
    let greatest = weighed.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
    let scale = greatest / u64::from(u32::MAX) + 1;
    weighed
        .into_iter()
        .map(|(part, weight)| (part, (weight / scale).max(1) as u32))
        .unzip()
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
        let weight = u64::from(candidate.weight);
        level.total += 1;
        level.weights[0] += weight;
        match candidate.health {
            HealthStatus::Healthy => {
                level.healthy += 1;
                level.weights[1] += weight;
            }
            HealthStatus::Degraded => {
                level.degraded += 1;
                level.weights[2] += weight;
            }
            HealthStatus::Unhealthy | HealthStatus::Draining => {}
        }
    }
    levels
}

fn members(candidates: &[Candidate], priority: usize, members: Members) -> Vec<u32> {
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

    fn policy(localities: &[u32]) -> Policy {
        Policy {
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            localities: localities.to_vec(),
        }
    }

    fn picks(config: &LoadBalancing, policy: &Policy, candidates: &[Candidate]) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut balancer = Balancer::new(config, policy, candidates, &mut random);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..1200 {
            if let Some(at) = balancer.pick(&mut random, |_| 0) {
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
                    locality: 0,
                    health: *health,
                    weight: 1,
                })
                .collect();
            let counts = picks(&LoadBalancing::default(), &policy(&[1]), &candidates);
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
                locality: 0,
                health: health(ok),
                weight: 1,
            });
        let counts = picks(&LoadBalancing::default(), &policy(&[1]), &candidates);
        assert_eq!(counts[1], 0);
        assert!((780..900).contains(&counts[0]), "{counts:?}");
        assert!(counts[2].abs_diff(counts[3]) <= 1, "{counts:?}");
    }

    #[test]
    fn localities_share_by_weight_and_by_what_is_available_of_them() {
        let candidates = |healthy: [bool; 4]| {
            let of = |(at, healthy): (usize, bool)| Candidate {
                priority: 0,
                locality: at as u32 / 2,
                health: match healthy {
                    true => HealthStatus::Healthy,
                    false => HealthStatus::Unhealthy,
                },
                weight: 1,
            };
            healthy.into_iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let config = LoadBalancing {
            locality_weighted: true,
            ..LoadBalancing::default()
        };
        let all = candidates([true; 4]);
        type Case<'a> = (&'a [u32], &'a [Candidate], [usize; 4]);
        let half = candidates([true, false, true, true]);
        let cases: [Case<'_>; 5] = [
            (&[1, 1], &all, [300, 300, 300, 300]),
            (&[2, 1], &all, [400, 400, 200, 200]),
            (&[0, 1], &all, [0, 0, 600, 600]),
            // No weights at all: every endpoint alike.
            (&[0, 0], &all, [300, 300, 300, 300]),
            // 1.4 times one half of the first is left: 70 to 100.
            (&[1, 1], &half, [494, 0, 353, 353]),
        ];
        for (weights, candidates, want) in cases {
            let counts = picks(&config, &policy(weights), candidates);
            let close = counts
                .iter()
                .zip(want)
                .all(|(got, want)| got.abs_diff(want) <= 2);
            assert!(close, "{weights:?}: {counts:?}, not {want:?}");
        }
    }

    #[test]
    fn traffic_fails_on_panic_where_that_is_asked_for() {
        let candidate = |health| Candidate {
            priority: 0,
            locality: 0,
            health,
            weight: 1,
        };
        let candidates = [
            candidate(HealthStatus::Healthy),
            candidate(HealthStatus::Unhealthy),
            candidate(HealthStatus::Unhealthy),
        ];
        let config = LoadBalancing {
            fail_on_panic: true,
            ..LoadBalancing::default()
        };
        assert_eq!(picks(&config, &policy(&[1]), &candidates), [0, 0, 0]);
    }

    #[test]
    fn priorities_may_count_by_weight_and_overprovision_otherwise() {
        let candidate = |priority, health, weight| Candidate {
            priority,
            locality: 0,
            health,
            weight,
        };
        let candidates = [
            candidate(0, HealthStatus::Healthy, 3),
            candidate(0, HealthStatus::Unhealthy, 1),
            candidate(1, HealthStatus::Healthy, 1),
        ];
        let shared = |by_weight, factor| {
            let policy = Policy {
                overprovisioning_factor: factor,
                weighted_priority_health: by_weight,
                localities: vec![1],
            };
            picks(&LoadBalancing::default(), &policy, &candidates)[0] / 12
        };
        assert!(shared(true, 140) >= 99);
        assert!((65..75).contains(&shared(false, 140)));
        assert!((45..55).contains(&shared(false, 100)));
        assert!((70..80).contains(&shared(true, 100)));
    }
}
