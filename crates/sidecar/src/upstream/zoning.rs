//! What zone-aware routing needs to know of two assignments: the cluster's and that of the proxies.

use std::collections::BTreeMap;

use super::lb::zones::{Plan, Zone};
use crate::config::cluster::{LoadBalancing, LocalZone};
use crate::config::endpoint::{HealthStatus, LoadAssignment};

/// The plan, and in which zone each locality of `present` is.
pub fn plan(
    config: &LoadBalancing,
    here: &LocalZone,
    present: &LoadAssignment,
    proxies: Option<&LoadAssignment>,
) -> (Plan, Vec<u32>) {
    let here = name(&here.locality);
    let zones = zones(here, present);
    let local = proxies.map(|proxies| self::zones(here, proxies));
    let local = local.unwrap_or_default();
    let plan = Plan::new(
        &config.zones,
        here,
        &zones,
        &local,
        panics(&local, proxies, config.panic_threshold),
        config.fail_on_panic,
    );
    let position = |locality: &str| zones.iter().position(|zone| zone.name == name(locality));
    let zone_of = present
        .localities
        .iter()
        // What is in no zone is of another priority, which zones have no say in.
        .map(|locality| position(&locality.name).unwrap_or(zones.len()) as u32);
    (plan, zone_of.collect())
}

/// Nothing is written differently where a locality is given without a name and not at all.
fn name(locality: &str) -> &str {
    match locality {
        "" => "//",
        other => other,
    }
}

/// The zones of the first priority, ours before all others.
fn zones<'a>(here: &str, assignment: &'a LoadAssignment) -> Vec<Zone<'a>> {
    let mut zones = BTreeMap::<(bool, &str), Zone<'a>>::new();
    let localities = assignment.localities.iter();
    for locality in localities.filter(|l| l.priority == 0 && !l.endpoints.is_empty()) {
        let name = name(&locality.name);
        let zone = zones.entry((name != here, name)).or_default();
        zone.name = name;
        for endpoint in &locality.endpoints {
            zone.total += 1;
            if endpoint.health == HealthStatus::Healthy {
                zone.healthy += 1;
                zone.weight += u64::from(endpoint.weight);
            }
        }
    }
    zones.into_values().collect()
}

/// Whether too few of the proxies are healthy to judge by them.
fn panics(local: &[Zone<'_>], proxies: Option<&LoadAssignment>, threshold: u8) -> bool {
    let total: u64 = local.iter().map(|zone| zone.total).sum();
    let healthy: u64 = local.iter().map(|zone| zone.healthy).sum();
    let first = proxies.iter().flat_map(|proxies| &proxies.localities);
    let degraded = first
        .filter(|locality| locality.priority == 0)
        .flat_map(|locality| &locality.endpoints)
        .filter(|endpoint| endpoint.health == HealthStatus::Degraded)
        .count() as u64;
    (healthy + degraded) * 100 < u64::from(threshold) * total.max(1)
}
