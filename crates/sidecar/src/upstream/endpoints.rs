//! The endpoints of a cluster on one worker: listed by an assignment, or made for each destination.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use rand::rngs::SmallRng;

use super::host::Host;
use super::lb::zones::{Choice, Plan, Problem};
use super::lb::{self, Balancer, Candidate, Level, Policy, Tier};
use super::shared::original_destination;
use super::target::{ClusterContext, Target};
use super::zoning;
use crate::config::address::Address;
use crate::config::endpoint::{HealthStatus, LoadAssignment, OVERPROVISIONING_FACTOR};

/// What an assignment says, made ready for use. It is built again when the assignment's `Arc` is
/// another one; an endpoint that is still in it keeps its connections.
#[derive(Default)]
pub struct Assigned {
    seen: Option<Arc<LoadAssignment>>,
    /// The same of the local cluster, where zones have a say.
    seen_proxies: Option<Arc<LoadAssignment>>,
    hosts: Vec<Rc<Host>>,
    balancer: Balancer,
    /// Balancers of parts of them, for clusters of clusters; made when first needed.
    tiers: Vec<(Tier, Balancer)>,
}

/// Endpoints by health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// All of them.
    pub total: usize,
    /// Those that are healthy.
    pub healthy: usize,
    /// Those that are degraded.
    pub degraded: usize,
}

impl Assigned {
    /// Takes over the present assignment. Answers what it replaced if it was another, for the caller
    /// to drop once nothing is borrowed.
    pub fn refresh(
        &mut self,
        present: &ArcSwapOption<LoadAssignment>,
        context: &Rc<ClusterContext>,
        random: &mut SmallRng,
    ) -> Option<Replaced> {
        let present = present.load();
        let zone = context.shared.zone.as_deref();
        let proxies = zone.map(|zone| zone.proxies.cell().load());
        let proxies = proxies.as_deref();
        if same(&present, &self.seen)
            && proxies.is_none_or(|proxies| same(proxies, &self.seen_proxies))
        {
            return None;
        }
        self.seen_proxies = proxies.cloned().flatten();
        let seen = present.clone();
        let mut old: HashMap<&Address, &Rc<Host>> = self
            .hosts
            .iter()
            .map(|host| (&host.target().endpoint.address, host))
            .collect();
        let mut hosts = Vec::new();
        let mut membership = Membership::default();
        if context.config.close_on_change && self.differs(seen.as_deref()) {
            // None of the connections may stay, not even those of endpoints that do.
            old.clear();
        }
        for locality in seen.iter().flat_map(|seen| &seen.localities) {
            for endpoint in &locality.endpoints {
                let kept = old
                    .remove(&endpoint.address)
                    .filter(|host| host.target().serves(endpoint));
                hosts.push(match kept {
                    Some(host) => host.clone(),
                    None => Host::new(Target::new(context, endpoint)),
                });
                membership.total += 1;
                membership.healthy += usize::from(endpoint.health == HealthStatus::Healthy);
                membership.degraded += usize::from(endpoint.health == HealthStatus::Degraded);
            }
        }
        drop(old);
        let config = &context.config.load_balancing;
        let plan = zone.zip(seen.as_deref()).map(|(zone, present)| {
            let proxies = self.seen_proxies.as_deref();
            zoning::plan(config, zone, present, proxies)
        });
        let zones = plan.as_ref().map(|(plan, _)| match plan {
            Plan::By(_) => None,
            Plan::Whole(problem) => *problem,
        });
        let now = Instant::now();
        let (candidates, policy) = survey(seen.as_deref(), plan, &hosts, context, now);
        self.balancer = Balancer::new(config, &policy, &candidates, random, now);
        self.tiers.clear();
        self.seen = seen;
        Some(Replaced {
            membership,
            zones,
            _hosts: std::mem::replace(&mut self.hosts, hosts),
        })
    }

    /// Whether endpoints come or go with the new assignment.
    fn differs(&self, present: Option<&LoadAssignment>) -> bool {
        let addresses = |assignment: Option<&LoadAssignment>| -> HashSet<Address> {
            let endpoints = assignment.into_iter().flat_map(LoadAssignment::endpoints);
            endpoints.map(|endpoint| endpoint.address.clone()).collect()
        };
        addresses(self.seen.as_deref()) != addresses(present)
    }

    /// The endpoint to use, if there is one, and how its zone was found.
    pub fn pick(&mut self, random: &mut SmallRng) -> (Option<&Rc<Host>>, Option<Choice>) {
        let hosts = &self.hosts;
        let active = |at: usize| hosts[at].target().active();
        let picked = self.balancer.pick(random, active, Instant::now);
        (picked.candidate.and_then(|at| hosts.get(at)), picked.zone)
    }

    /// The same of a part of the endpoints, and whether it panics.
    pub fn pick_of(
        &mut self,
        tier: Tier,
        context: &Rc<ClusterContext>,
        random: &mut SmallRng,
    ) -> (Option<&Rc<Host>>, bool) {
        let hosts = &self.hosts;
        let known = self.tiers.iter().position(|(known, _)| *known == tier);
        let at = known.unwrap_or_else(|| {
            let now = Instant::now();
            let config = &context.config.load_balancing;
            let (candidates, policy) = survey(self.seen.as_deref(), None, hosts, context, now);
            let of_tier = Balancer::of_tier(tier, config, &policy, &candidates, random, now);
            self.tiers.push((tier, of_tier));
            self.tiers.len() - 1
        });
        let balancer = &mut self.tiers[at].1;
        let active = |at: usize| hosts[at].target().active();
        let picked = balancer.pick(random, active, Instant::now).candidate;
        (picked.and_then(|at| hosts.get(at)), balancer.is_panicking())
    }

    /// What there is of each priority.
    pub fn levels(&self, context: &Rc<ClusterContext>) -> Vec<Level> {
        let seen = self.seen.as_deref();
        let (candidates, policy) = survey(seen, None, &self.hosts, context, Instant::now());
        lb::levels(&candidates, &policy)
    }

    /// See [`Balancer::is_panicking`].
    pub fn is_panicking(&self) -> bool {
        self.balancer.is_panicking()
    }

    /// What discovery says of the health of an endpoint; `None` where it has left.
    pub fn health(&self, target: &Rc<Target>) -> Option<HealthStatus> {
        let endpoints = self.seen.as_ref()?.endpoints();
        let mut both = self.hosts.iter().zip(endpoints);
        both.find(|(host, _)| Rc::ptr_eq(host.target(), target))
            .map(|(_, endpoint)| endpoint.health)
    }

    /// All of them.
    pub fn hosts(&self) -> &[Rc<Host>] {
        &self.hosts
    }
}

/// What a refresh replaced. Dropping it closes the idle connections of endpoints that have left.
pub struct Replaced {
    /// Of the assignment that is in force now.
    pub membership: Membership,
    /// Where zones may have a say: why they have none now.
    pub zones: Option<Option<Problem>>,
    _hosts: Vec<Rc<Host>>,
}

fn same(present: &Option<Arc<LoadAssignment>>, seen: &Option<Arc<LoadAssignment>>) -> bool {
    match (present, seen) {
        (Some(present), Some(seen)) => Arc::ptr_eq(present, seen),
        (present, seen) => present.is_none() && seen.is_none(),
    }
}

/// What a balancer needs to know of an assignment, whose endpoints are `hosts` in their order.
fn survey(
    seen: Option<&LoadAssignment>,
    zones: Option<(Plan, Vec<u32>)>,
    hosts: &[Rc<Host>],
    context: &Rc<ClusterContext>,
    now: Instant,
) -> (Vec<Candidate>, Policy) {
    let mut candidates = Vec::with_capacity(hosts.len());
    let localities = seen.into_iter().flat_map(|seen| &seen.localities);
    let mut weights = Vec::new();
    for (at, locality) in localities.enumerate() {
        weights.push(locality.weight);
        candidates.extend(locality.endpoints.iter().map(|endpoint| Candidate {
            priority: locality.priority,
            locality: at as u32,
            health: endpoint.health,
            weight: endpoint.weight,
            since: None,
        }));
    }
    if context.config.load_balancing.slow_start.is_some() {
        warm_up(&mut candidates, hosts, context, now);
    }
    let policy = Policy {
        overprovisioning_factor: seen
            .map_or(OVERPROVISIONING_FACTOR, |seen| seen.overprovisioning_factor),
        weighted_priority_health: seen.is_some_and(|seen| seen.weighted_priority_health),
        localities: weights,
        zones,
    };
    (candidates, policy)
}

/// Notes since when healthy endpoints take traffic.
fn warm_up(
    candidates: &mut [Candidate],
    hosts: &[Rc<Host>],
    context: &Rc<ClusterContext>,
    now: Instant,
) {
    let is_healthy = |candidate: &Candidate| candidate.health == HealthStatus::Healthy;
    let both = candidates.iter().zip(hosts);
    let healthy = both.filter(|(candidate, _)| is_healthy(candidate));
    let addresses: Vec<&Address> = healthy
        .map(|(_, host)| &host.target().endpoint.address)
        .collect();
    let began = context.shared.began(&addresses, now);
    let healthy = candidates
        .iter_mut()
        .filter(|candidate| is_healthy(candidate));
    for (candidate, since) in healthy.zip(began) {
        candidate.since = Some(since);
    }
}

/// ORIGINAL_DST: an endpoint for each destination that was asked for lately.
#[derive(Default)]
pub struct Destinations(HashMap<SocketAddr, Rc<Host>>);

impl Destinations {
    /// The endpoint for a destination.
    pub fn host(&mut self, destination: SocketAddr, context: &Rc<ClusterContext>) -> &Rc<Host> {
        let host = self.0.entry(destination).or_insert_with(|| {
            let endpoint = original_destination(Address::Socket(destination));
            Host::new(Target::new(context, &endpoint))
        });
        host.touch();
        host
    }

    /// Forgets those that have not been used for so many sweeps (about a second each), and answers
    /// them for the caller to drop.
    pub fn forget_unused(&mut self, sweeps: u32) -> Vec<Rc<Host>> {
        self.0
            .extract_if(|_, host| host.age() >= sweeps)
            .map(|(_, host)| host)
            .collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn hosts(&self) -> Vec<Rc<Host>> {
        self.0.values().cloned().collect()
    }
}
