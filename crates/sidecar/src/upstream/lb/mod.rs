//! Choosing an endpoint: by priority and health, then by the policy of the cluster.
//!
//! All of it is pure: candidates go in, positions come out, and randomness is an argument. A
//! balancer belongs to one worker and is built again when the cluster's endpoints change.

mod edf;
mod picker;
mod shares;
mod slow_start;
pub mod zones;

use std::time::Instant;

use rand::RngExt;
use rand::rngs::SmallRng;

use self::edf::{DIVISOR, Schedule};
use self::picker::Picker;
pub use self::shares::Level;
use self::shares::{Members, Share};
use self::slow_start::Warming;
use self::zones::{Choice, Plan, Routes};
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
    /// Since when it takes traffic, where new ones start slowly.
    pub since: Option<Instant>,
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
    /// Where traffic keeps to zones: of each locality, which zone it is in. Endpoints of the first
    /// priority alone are looked at.
    pub zones: Option<(Plan, Vec<u32>)>,
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
    /// Which of the groups it is, where there are several.
    split: Option<Split>,
}

/// How a target's traffic is divided over its groups.
#[derive(Debug)]
enum Split {
    /// By their weights.
    Weights(Schedule, Box<[u32]>),
    /// By zones, whose groups come after that of all members.
    Zones(Box<Routes>),
}

/// A part of a cluster's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Their priority.
    pub priority: usize,
    /// The degraded ones, not the healthy ones. (All of them where the priority panics.)
    pub degraded: bool,
}

/// Who was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The position of the candidate; `None` if there is none.
    pub candidate: Option<usize>,
    /// How its zone was found, where zones have a say.
    pub zone: Option<Choice>,
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
        now: Instant,
    ) -> Self {
        let shares = shares::shares(&levels(candidates, policy), config.panic_threshold);
        Self::of(shares, config, policy, candidates, random, now)
    }

    /// A balancer for one part of these candidates, of which another cluster makes use.
    pub fn of_tier(
        tier: Tier,
        config: &LoadBalancing,
        policy: &Policy,
        candidates: &[Candidate],
        random: &mut SmallRng,
        now: Instant,
    ) -> Self {
        let levels = levels(candidates, policy);
        let members = match tier.degraded {
            _ if shares::panics(&levels, config.panic_threshold, tier.priority) => {
                Members::Everyone
            }
            true => Members::Degraded,
            false => Members::Healthy,
        };
        let all = Share {
            priority: tier.priority,
            members,
            percent: 100,
        };
        Self::of(vec![all], config, policy, candidates, random, now)
    }

    fn of(
        shares: Vec<Share>,
        config: &LoadBalancing,
        policy: &Policy,
        candidates: &[Candidate],
        random: &mut SmallRng,
        now: Instant,
    ) -> Self {
        let mut upto = 0;
        let panicking = shares.iter().any(|s| s.members == Members::Everyone);
        let targets = shares.into_iter().map(|share| {
            upto += share.percent;
            let mut members = members(candidates, share.priority, share.members);
            if share.members == Members::Everyone && config.fail_on_panic {
                members.clear();
            }
            let (groups, split) = match &policy.zones {
                _ if share.members == Members::Everyone => (vec![members], None),
                _ if config.locality_weighted => {
                    let (groups, weights) =
                        by_locality(members, share.priority, policy, candidates);
                    let split = (groups.len() > 1).then(|| by_weights(weights, random));
                    (groups, split)
                }
                Some((Plan::By(routes), zone_of))
                    if share.priority == 0 && share.members == Members::Healthy =>
                {
                    let groups = by_zone(members, routes.zones(), zone_of, candidates);
                    (groups, Some(Split::Zones(routes.clone())))
                }
                _ => (vec![members], None),
            };
            let groups = groups.into_iter().map(|members| {
                let of_all = |at: &u32| &candidates[*at as usize];
                let weights: Vec<u32> = members.iter().map(|at| of_all(at).weight.max(1)).collect();
                let since = members.iter().map(|at| of_all(at).since);
                let slow = config.slow_start.as_ref();
                let warming = slow.and_then(|rule| Warming::new(rule, since, now));
                Group {
                    picker: Picker::new(&config.policy, &weights, warming, random, now),
                    members: members.into(),
                }
            });
            Target {
                upto,
                groups: groups.collect(),
                split,
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

    /// The candidate to use. `active` tells how many requests a candidate is busy with, `now` what
    /// time it is.
    pub fn pick(
        &mut self,
        random: &mut SmallRng,
        active: impl Fn(usize) -> u32,
        now: impl FnOnce() -> Instant,
    ) -> Pick {
        let mut zone = None;
        let candidate = self.candidate(random, active, now, &mut zone);
        Pick { candidate, zone }
    }

    fn candidate(
        &mut self,
        random: &mut SmallRng,
        active: impl Fn(usize) -> u32,
        now: impl FnOnce() -> Instant,
        zone: &mut Option<Choice>,
    ) -> Option<usize> {
        let at = match self.targets.len() {
            0 => return None,
            1 => 0,
            _ => {
                let dice = random.random_range(0..100);
                self.targets.partition_point(|target| target.upto <= dice)
            }
        };
        let target = self.targets.get_mut(at)?;
        let group = match &mut target.split {
            None => 0,
            Some(Split::Weights(schedule, weights)) => {
                schedule.next(|at| (weights[at], DIVISOR))?
            }
            Some(Split::Zones(routes)) => match routes.choose(random) {
                None => 0,
                Some((choice, at)) => {
                    *zone = Some(choice);
                    at.map_or(0, |at| at + 1)
                }
            },
        };
        let Group { members, picker } = target.groups.get_mut(group)?;
        let active = |member: usize| active(members[member] as usize);
        let chosen = picker.pick(members.len(), random, active, now);
        members.get(chosen).map(|at| *at as usize)
    }
}

fn by_weights(weights: Vec<u32>, random: &mut SmallRng) -> Split {
    let mut schedule = Schedule::new(weights.iter().copied());
    for _ in 0..random.random_range(0..weights.len().max(1)) {
        schedule.next(|at| (weights[at], DIVISOR));
    }
    Split::Weights(schedule, weights.into())
}

/// All members, and then those of each zone.
fn by_zone(
    members: Vec<u32>,
    zones: usize,
    zone_of: &[u32],
    candidates: &[Candidate],
) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); zones + 1];
    for at in &members {
        let locality = candidates[*at as usize].locality as usize;
        let zone = zone_of.get(locality).map(|zone| *zone as usize + 1);
        if let Some(group) = zone.and_then(|zone| groups.get_mut(zone)) {
            group.push(*at);
        }
    }
    groups[0] = members;
    groups
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

/// How the traffic is divided over priorities: which, whether it is their degraded endpoints, and
/// how many percent they get. Priorities that panic get it for all of their endpoints.
pub fn divide(levels: &[Level], panic_threshold: u8) -> Vec<(usize, bool, u32)> {
    let shares = shares::shares(levels, panic_threshold).into_iter();
    shares
        .map(|share| {
            let degraded = share.members == Members::Degraded;
            (share.priority, degraded, share.percent)
        })
        .collect()
}

/// Counts the candidates of each priority, from 0 to the last.
pub fn levels(candidates: &[Candidate], policy: &Policy) -> Vec<Level> {
    let mut levels = Vec::new();
    for candidate in candidates {
        let at = candidate.priority as usize;
        if levels.len() <= at {
            let empty = Level {
                by_weight: policy.weighted_priority_health,
                overprovisioning_factor: policy.overprovisioning_factor,
                ..Level::default()
            };
            levels.resize(at + 1, empty);
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
mod tests;
