//! Zone-aware routing: traffic stays in the zone of this proxy as far as that is fair to the
//! endpoints, given how the proxies of its kind are spread over the zones.
//!
//! The rules are Envoy's (its documentation on "zone aware routing").

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::config::cluster::ZoneAware;
use crate::runtime_layer::{Fraction, Number};

/// `min_cluster_size` unless set.
const SMALLEST_CLUSTER: u32 = 6;

/// Shares are counted in this many parts.
const WHOLE: u64 = 10_000;

/// What is in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone<'a> {
    /// `region/zone/sub_zone`
    pub name: &'a str,
    /// Endpoints.
    pub total: u64,
    /// Those that are healthy.
    pub healthy: u64,
    /// What those weigh.
    pub weight: u64,
}

/// Whether and how traffic is divided by zones.
#[derive(Clone, Debug)]
pub enum Plan {
    /// It is.
    By(Box<Routes>),
    /// It is not, and what keeps it from being, where that is to be counted.
    Whole(Option<Problem>),
}

/// Why zones have no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The cluster has too few endpoints.
    TooSmall,
    /// The local cluster has no endpoint where this proxy is.
    LocalNotOk,
}

/// How the zone of one request was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All traffic stays in the zone.
    Directly,
    /// This request is one of those that stay.
    Sampled,
    /// It goes to another zone.
    Across,
    /// The same, though no zone has anything to spare.
    NothingLeft,
    /// Too few of the local cluster are healthy to judge by them.
    LocalNotOk,
}

/// The division over the zones `0..n`.
#[derive(Clone, Debug)]
pub struct Routes {
    enabled: Option<Fraction>,
    zones: usize,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Everything to the first, which is ours.
    Direct,
    /// Some to the first, the rest by what the others can take: the sums up to and with each.
    Residual { local: u64, spare: Box<[u64]> },
    /// The local cluster panics.
    Panic { fail: bool },
}

impl Plan {
    /// The plan for `zones` of endpoints of the first priority, of which `here` says that the first
    /// is that of this proxy, and `local` ones of the local cluster's. `local_panics`: too few of
    /// those are healthy.
    pub fn new(
        config: &ZoneAware,
        here: &str,
        zones: &[Zone<'_>],
        local: &[Zone<'_>],
        local_panics: bool,
        fail_on_panic: bool,
    ) -> Self {
        let forced = config.force_local;
        if zones.len() < 2 || (forced.is_none() && local.len() < 2) {
            return Plan::Whole(None);
        }
        if !local.iter().any(|zone| zone.name == here && zone.total > 0) {
            return Plan::Whole(Some(Problem::LocalNotOk));
        }
        let smallest = config.min_cluster_size.as_ref();
        let smallest = smallest.map_or(SMALLEST_CLUSTER, Number::get);
        if zones.iter().map(|zone| zone.healthy).sum::<u64>() < u64::from(smallest) {
            return Plan::Whole(Some(Problem::TooSmall));
        }
        let rule = match local_panics {
            true => Rule::Panic {
                fail: fail_on_panic,
            },
            false => rule(config, here, zones, local),
        };
        Plan::By(Box::new(Routes {
            enabled: config.enabled.clone(),
            zones: zones.len(),
            rule,
        }))
    }
}

fn rule(config: &ZoneAware, here: &str, zones: &[Zone<'_>], local: &[Zone<'_>]) -> Rule {
    let size = |zone: &Zone<'_>| match config.by_weight {
        true => zone.weight,
        false => zone.healthy,
    };
    let part = |size: u64, of: u64| WHOLE.saturating_mul(size) / of.max(1);
    let total: u64 = zones.iter().map(size).sum();
    let local_total: u64 = local.iter().map(size).sum();
    let theirs = |zone: &Zone<'_>| part(size(zone), total);
    let ours = |zone: &Zone<'_>| {
        let same = local.iter().find(|local| local.name == zone.name);
        same.map_or(0, |same| part(size(same), local_total))
    };
    let first = &zones[0];
    let is_here = first.name == here;
    let enough = config
        .force_local
        .is_some_and(|least| first.healthy >= u64::from(least));
    if is_here && theirs(first) > 0 && (theirs(first) >= ours(first) || enough) {
        return Rule::Direct;
    }
    let mut sum = 0;
    let spare = zones.iter().enumerate().map(|(at, zone)| {
        // Ours is filled already.
        if at > 0 || !is_here {
            sum += theirs(zone).saturating_sub(ours(zone));
        }
        sum
    });
    Rule::Residual {
        spare: spare.collect(),
        local: match is_here {
            true => (theirs(first) * WHOLE)
                .checked_div(ours(first))
                .unwrap_or(0),
            false => 0,
        },
    }
}

impl Routes {
    /// How many zones there are.
    pub fn zones(&self) -> usize {
        self.zones
    }

    /// The zone for one request, or none where it may go anywhere; `None` where zones have no say in
    /// this one. A zone that does not exist stands for no endpoint at all.
    pub fn choose(&self, random: &mut SmallRng) -> Option<(Choice, Option<usize>)> {
        let enabled = self.enabled.as_ref();
        if enabled.is_some_and(|enabled| !enabled.happens(random.random())) {
            return None;
        }
        Some(match &self.rule {
            Rule::Panic { fail } => (Choice::LocalNotOk, fail.then_some(self.zones)),
            Rule::Direct => (Choice::Directly, Some(0)),
            Rule::Residual { local, spare } => {
                if random.random_range(0..WHOLE) < *local {
                    return Some((Choice::Sampled, Some(0)));
                }
                match spare.last().copied().unwrap_or(0) {
                    0 => {
                        let any = random.random_range(0..self.zones);
                        (Choice::NothingLeft, Some(any))
                    }
                    all => {
                        let dice = random.random_range(0..all);
                        let zone = spare.partition_point(|upto| *upto <= dice);
                        (Choice::Across, Some(zone))
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(counts: &[(&'static str, u64)]) -> Vec<Zone<'static>> {
        let zone = |(name, count): &(&'static str, u64)| Zone {
            name,
            total: *count,
            healthy: *count,
            weight: *count,
        };
        counts.iter().map(zone).collect()
    }

    fn plan(
        config: &ZoneAware,
        upstream: &[(&'static str, u64)],
        local: &[(&'static str, u64)],
    ) -> Plan {
        Plan::new(config, "a", &zones(upstream), &zones(local), false, false)
    }

    #[test]
    fn traffic_stays_as_far_as_that_is_fair() {
        type Case<'a> = (
            &'a [(&'static str, u64)],
            &'a [(&'static str, u64)],
            Option<Rule>,
        );
        let residual = |local, spare: &[u64]| Rule::Residual {
            local,
            spare: spare.into(),
        };
        let cases: &[Case<'_>] = &[
            (
                &[("a", 5), ("b", 5)],
                &[("a", 1), ("b", 1)],
                Some(Rule::Direct),
            ),
            // The documentation's example: 4/4/2 proxies, 2.5/5/2.5 endpoints.
            (
                &[("a", 5), ("b", 10), ("c", 5)],
                &[("a", 4), ("b", 4), ("c", 2)],
                Some(residual(6250, &[0, 1000, 1500])),
            ),
            (
                &[("b", 5), ("c", 5)],
                &[("a", 1), ("b", 1)],
                Some(residual(0, &[0, 5000])),
            ),
            (&[("a", 10)], &[("a", 1), ("b", 1)], None),
            (&[("a", 5), ("b", 5)], &[("a", 2)], None),
            (&[("a", 2), ("b", 2)], &[("a", 1), ("b", 1)], None),
            (&[("a", 5), ("b", 5)], &[("b", 1), ("c", 1)], None),
        ];
        for (upstream, local, want) in cases {
            let got = match plan(&ZoneAware::default(), upstream, local) {
                Plan::By(routes) => Some(routes.rule),
                Plan::Whole(_) => None,
            };
            assert_eq!(&got, want, "{upstream:?} {local:?}");
        }
    }

    #[test]
    fn a_zone_may_be_forced() {
        let forced = |least| ZoneAware {
            force_local: Some(least),
            ..ZoneAware::default()
        };
        let upstream = [("a", 2), ("b", 8)];
        for (least, direct) in [(1, true), (2, true), (3, false)] {
            let Plan::By(routes) = plan(&forced(least), &upstream, &[("a", 3)]) else {
                panic!("{least}: one zone of proxies is enough");
            };
            assert_eq!(routes.rule == Rule::Direct, direct, "{least}");
        }
    }
}
