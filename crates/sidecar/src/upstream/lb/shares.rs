//! How traffic is divided over priorities, and when health is disregarded.
//!
//! The rules are Envoy's (its documentation on "priority levels" and "panic threshold").

/// The endpoints of one priority, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// All of them.
    pub total: u64,
    /// Those that are healthy.
    pub healthy: u64,
    /// Those that are degraded.
    pub degraded: u64,
    /// The same by weight: all, the healthy ones, the degraded ones.
    pub weights: [u64; 3],
    /// How available it is counts by weights.
    pub by_weight: bool,
    /// Percent: with 140, it keeps all its traffic as long as 100/140 of it is available.
    pub overprovisioning_factor: u32,
}

/// Which endpoints of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All, whatever their health: the priority panics.
    Everyone,
}

/// What some endpoints receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Their priority.
    pub priority: usize,
    /// Which of its endpoints.
    pub members: Members,
    /// Of all traffic; never 0, and the sum over all shares is 100.
    pub percent: u32,
}

/// Divides the traffic over the priorities. A priority of which less than `panic_threshold` percent
/// are available panics, unless enough is available over all priorities: all of its endpoints are
/// used, whatever their health. Empty if there is nothing to use.
pub fn shares(levels: &[Level], panic_threshold: u8) -> Vec<Share> {
    let (healthy, degraded) = availability(levels);
    let sum = sum(&healthy, &degraded);
    let panics = |level: &Level| sum < 100 && is_low(level, panic_threshold);
    if levels.iter().all(panics) {
        return shares_of_panic(levels);
    }
    if sum == 0 {
        return Vec::new();
    }

    let mut left = 100;
    let mut divide = |availability: &[u64]| -> Vec<u64> {
        availability
            .iter()
            .map(|percent| {
                let load = (percent * 100 / sum).min(left);
                left -= load;
                load
            })
            .collect()
    };
    let mut healthy_load = divide(&healthy);
    let mut degraded_load = divide(&degraded);
    // What rounding left over goes to the first that can take any.
    let first = |availability: &[u64]| availability.iter().position(|percent| *percent > 0);
    if let Some(at) = first(&healthy) {
        healthy_load[at] += left;
    } else if let Some(at) = first(&degraded) {
        degraded_load[at] += left;
    }

    let mut shares = Vec::new();
    let mut push = |priority, members, percent: u64| {
        if percent > 0 {
            shares.push(Share {
                priority,
                members,
                percent: percent as u32,
            });
        }
    };
    for (priority, level) in levels.iter().enumerate() {
        let (healthy, degraded) = (healthy_load[priority], degraded_load[priority]);
        if panics(level) {
            push(priority, Members::Everyone, healthy + degraded);
        } else {
            push(priority, Members::Healthy, healthy);
            push(priority, Members::Degraded, degraded);
        }
    }
    shares
}

/// Whether one of the priorities panics.
pub fn panics(levels: &[Level], panic_threshold: u8, priority: usize) -> bool {
    let (healthy, degraded) = availability(levels);
    let level = levels.get(priority);
    sum(&healthy, &degraded) < 100 && level.is_none_or(|level| is_low(level, panic_threshold))
}

/// In percent and by priority: how much is healthy, and how much degraded.
fn availability(levels: &[Level]) -> (Vec<u64>, Vec<u64>) {
    let percent = |level: &Level, counts: (u64, u64), weights: (u64, u64)| {
        let (part, whole) = if level.by_weight { weights } else { counts };
        let factor = u128::from(level.overprovisioning_factor);
        // At most 100.
        (factor * u128::from(part) / u128::from(whole.max(1))).min(100) as u64
    };
    let both = levels.iter().map(|level| {
        let [total, healthy, degraded] = level.weights;
        (
            percent(level, (level.healthy, level.total), (healthy, total)),
            percent(level, (level.degraded, level.total), (degraded, total)),
        )
    });
    both.unzip()
}

fn sum(healthy: &[u64], degraded: &[u64]) -> u64 {
    (healthy.iter().sum::<u64>() + degraded.iter().sum::<u64>()).min(100)
}

fn is_low(level: &Level, panic_threshold: u8) -> bool {
    (level.healthy + level.degraded) * 100 < u64::from(panic_threshold) * level.total.max(1)
}

/// Every priority panics: each receives by the number of its endpoints.
fn shares_of_panic(levels: &[Level]) -> Vec<Share> {
    let total: u64 = levels.iter().map(|level| level.total).sum();
    let mut left = 100;
    let mut shares = Vec::new();
    for (priority, level) in levels.iter().enumerate().filter(|(_, l)| l.total > 0) {
        let percent = (100 * level.total / total) as u32;
        left -= percent;
        shares.push(Share {
            priority,
            members: Members::Everyone,
            percent,
        });
    }
    if let Some(first) = shares.first_mut() {
        first.percent += left;
    }
    shares.retain(|share| share.percent > 0);
    shares
}

#[cfg(test)]
mod tests {
    use super::Members::{Degraded, Everyone, Healthy};
    use super::*;

    #[test]
    fn shares_follow_availability() {
        type Case<'a> = (&'a [(u64, u64, u64)], &'a [(usize, Members, u32)]);
        // (total, healthy, degraded) per priority; the threshold is the default of 50.
        let cases: &[Case<'_>] = &[
            (&[], &[]),
            (&[(0, 0, 0)], &[]),
            (&[(4, 4, 0)], &[(0, Healthy, 100)]),
            (&[(4, 3, 1)], &[(0, Healthy, 100)]),
            (&[(4, 2, 2)], &[(0, Healthy, 70), (0, Degraded, 30)]),
            (&[(4, 2, 0)], &[(0, Healthy, 100)]),
            (&[(4, 1, 0)], &[(0, Everyone, 100)]),
            (&[(4, 0, 0)], &[(0, Everyone, 100)]),
            (
                &[(2, 1, 0), (2, 2, 0)],
                &[(0, Healthy, 70), (1, Healthy, 30)],
            ),
            // Enough is available in all, so no priority panics.
            (
                &[(10, 1, 0), (1, 1, 0)],
                &[(0, Healthy, 14), (1, Healthy, 86)],
            ),
            // Not enough even together: both panic.
            (
                &[(10, 1, 0), (10, 1, 0)],
                &[(0, Everyone, 50), (1, Everyone, 50)],
            ),
            (
                &[(3, 0, 0), (1, 0, 0)],
                &[(0, Everyone, 75), (1, Everyone, 25)],
            ),
            (&[(0, 0, 0), (2, 2, 0)], &[(1, Healthy, 100)]),
        ];
        for (levels, want) in cases {
            assert_eq!(&divided(levels, 50), want, "{levels:?}");
        }
    }

    #[test]
    fn the_panic_threshold_decides_when_health_is_disregarded() {
        type Case<'a> = (&'a [(u64, u64, u64)], u8, &'a [(usize, Members, u32)]);
        let cases: &[Case<'_>] = &[
            (&[(4, 1, 0)], 25, &[(0, Healthy, 100)]),
            (&[(4, 1, 0)], 26, &[(0, Everyone, 100)]),
            (&[(4, 1, 0)], 0, &[(0, Healthy, 100)]),
            (&[(4, 0, 0)], 0, &[]),
            (&[(4, 0, 0)], 1, &[(0, Everyone, 100)]),
        ];
        for (levels, threshold, want) in cases {
            assert_eq!(&divided(levels, *threshold), want, "{levels:?} {threshold}");
        }
    }

    fn divided(levels: &[(u64, u64, u64)], threshold: u8) -> Vec<(usize, Members, u32)> {
        let levels: Vec<_> = levels
            .iter()
            .map(|(total, healthy, degraded)| Level {
                total: *total,
                healthy: *healthy,
                degraded: *degraded,
                weights: [*total, *healthy, *degraded],
                by_weight: false,
                overprovisioning_factor: 140,
            })
            .collect();
        shares(&levels, threshold)
            .iter()
            .map(|s| (s.priority, s.members, s.percent))
            .collect()
    }
}
