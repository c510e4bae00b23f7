//! How traffic is divided over priorities, and when health is disregarded.
//!
//! The rules are Envoy's (its documentation on "priority levels" and "panic threshold"), with
//! their defaults: an overprovisioning factor of 1.4 and a panic threshold of 50%.

/// A priority keeps all its traffic as long as 100/140 of its endpoints are available.
const OVERPROVISIONING: u64 = 140;
/// Below this percentage of available endpoints all of them are used.
const PANIC_THRESHOLD: u64 = 50;

/// The endpoints of one priority, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// All of them.
    pub total: u64,
    /// Those that are healthy.
    pub healthy: u64,
    /// Those that are degraded.
    pub degraded: u64,
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

/// Divides the traffic over the priorities. Empty if there is no endpoint at all.
pub fn shares(levels: &[Level]) -> Vec<Share> {
    let available = |count: fn(&Level) -> u64| -> Vec<u64> {
        levels
            .iter()
            .map(|level| (OVERPROVISIONING * count(level) / level.total.max(1)).min(100))
            .collect()
    };
    let healthy = available(|level| level.healthy);
    let degraded = available(|level| level.degraded);
    let sum = (healthy.iter().sum::<u64>() + degraded.iter().sum::<u64>()).min(100);
    if sum == 0 {
        return shares_of_unavailable(levels);
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
        if sum < 100 && panics(level) {
            push(priority, Members::Everyone, healthy + degraded);
        } else {
            push(priority, Members::Healthy, healthy);
            push(priority, Members::Degraded, degraded);
        }
    }
    shares
}

fn panics(level: &Level) -> bool {
    (level.healthy + level.degraded) * 100 < PANIC_THRESHOLD * level.total
}

/// Nothing is available anywhere: each priority receives by the number of its endpoints.
fn shares_of_unavailable(levels: &[Level]) -> Vec<Share> {
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
        // (total, healthy, degraded) per priority.
        let cases: &[Case<'_>] = &[
            (&[], &[]),
            (&[(0, 0, 0)], &[]),
            (&[(4, 4, 0)], &[(0, Healthy, 100)]),
            (&[(4, 3, 1)], &[(0, Healthy, 100)]),
            (&[(4, 2, 2)], &[(0, Healthy, 70), (0, Degraded, 30)]),
            (&[(4, 2, 0)], &[(0, Healthy, 100)]),
            (&[(4, 1, 0)], &[(0, Everyone, 100)]),
            (&[(4, 0, 0)], &[(0, Everyone, 100)]),
            (&[(2, 1, 0), (2, 2, 0)], &[(0, Healthy, 70), (1, Healthy, 30)]),
            // Enough is available in all, so no priority panics.
            (&[(10, 1, 0), (1, 1, 0)], &[(0, Healthy, 14), (1, Healthy, 86)]),
            // Not enough even together: both panic.
            (&[(10, 1, 0), (10, 1, 0)], &[(0, Everyone, 50), (1, Everyone, 50)]),
            (&[(3, 0, 0), (1, 0, 0)], &[(0, Everyone, 75), (1, Everyone, 25)]),
            (&[(0, 0, 0), (2, 2, 0)], &[(1, Healthy, 100)]),
        ];
        for (levels, want) in cases {
            let levels: Vec<_> = levels
                .iter()
                .map(|(total, healthy, degraded)| Level {
                    total: *total,
                    healthy: *healthy,
                    degraded: *degraded,
                })
                .collect();
            let got: Vec<_> = shares(&levels)
                .iter()
                .map(|s| (s.priority, s.members, s.percent))
                .collect();
            assert_eq!(&got, want, "{levels:?}");
        }
    }
}
