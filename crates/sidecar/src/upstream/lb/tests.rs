//! Who gets the traffic.

use rand::SeedableRng;

use super::*;

fn policy(localities: &[u32]) -> Policy {
    Policy {
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        localities: localities.to_vec(),
        zones: None,
    }
}

fn picks(config: &LoadBalancing, policy: &Policy, candidates: &[Candidate]) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut balancer = Balancer::new(config, policy, candidates, &mut random, Instant::now());
    let mut counts = vec![0; candidates.len()];
    for _ in 0..1200 {
        if let Some(at) = balancer.pick(&mut random, |_| 0, Instant::now).candidate {
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
                since: None,
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
            since: None,
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
            since: None,
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
        since: None,
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
        since: None,
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
            zones: None,
        };
        picks(&LoadBalancing::default(), &policy, &candidates)[0] / 12
    };
    assert!(shared(true, 140) >= 99);
    assert!((65..75).contains(&shared(false, 140)));
    assert!((45..55).contains(&shared(false, 100)));
    assert!((70..80).contains(&shared(true, 100)));
}
