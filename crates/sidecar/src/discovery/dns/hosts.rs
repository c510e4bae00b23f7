//! What is known of a cluster's names, and the endpoints that it comes to. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::refresh::{Came, Schedule};
use crate::config::address::Address;
use crate::config::dns::{Dns, Name};
use crate::config::endpoint::{Endpoint, LoadAssignment, Locality};

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, none if there is no such name; and how long that is good for.
    Addresses(Vec<IpAddr>, Option<Duration>),
    /// Nobody knows.
    Unknown,
}

/// What an answer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The endpoints are others.
    Updated,
    /// They are the same.
    Same,
    /// There was no answer, or (LOGICAL_DNS) one without an address: the endpoints stay.
    Failed,
}

/// The names of one cluster.
#[derive(Debug)]
pub struct Hosts {
    dns: Arc<Dns>,
    /// In the order of the assignment.
    names: Vec<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    schedule: Schedule,
}

impl Hosts {
    /// Nothing is known yet.
    pub fn new(dns: Arc<Dns>) -> Self {
        let names = dns
            .assignment
            .endpoints()
            .map(|_| Known::default())
            .collect();
        Hosts { dns, names }
    }

    /// The names to look up, in order.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.dns
            .assignment
            .endpoints()
            .map(|endpoint| &endpoint.address)
    }

    /// Takes the answer for the name at `index`: what it changes, and how long to wait before that
    /// name is looked up again.
    pub fn answered(&mut self, index: usize, answer: Answer, random: u64) -> (Change, Duration) {
        let Some(known) = self.names.get_mut(index) else {
            return (Change::Same, self.dns.refresh.normal);
        };
        let (change, came) = match answer {
            // A name that is gone has no endpoints. But the one endpoint of LOGICAL_DNS stays.
            Answer::Addresses(addresses, _) if addresses.is_empty() && self.dns.logical => {
                (Change::Failed, Came::Failure)
            }
            Answer::Unknown => (Change::Failed, Came::Failure),
            Answer::Addresses(mut addresses, ttl) => {
                let mut seen = std::collections::HashSet::new();
                addresses.retain(|address| seen.insert(*address));
                let same = match self.dns.logical {
                    true => known.addresses == addresses,
                    // The order in which a server gives them means nothing.
                    false => {
                        known.addresses.len() == addresses.len()
                            && known.addresses.iter().all(|address| seen.contains(address))
                    }
                };
                let change = if same { Change::Same } else { Change::Updated };
                if !same {
                    known.addresses = addresses;
                }
                (change, Came::Answer(ttl))
            }
        };
        let wait = known.schedule.next(&self.dns.refresh, came, random);
        (change, wait)
    }

    /// The endpoints that are known now.
    pub fn assignment(&self) -> LoadAssignment {
        let names = &self.dns.assignment;
        let mut known = self.names.iter();
        let localities = names.localities.iter().map(|locality| Locality {
            // With one endpoint there is nothing to prefer.
            priority: if self.dns.logical {
                0
            } else {
                locality.priority
            },
            weight: locality.weight,
            name: locality.name.clone(),
            endpoints: locality
                .endpoints
                .iter()
                .zip(&mut known)
                .flat_map(|(endpoint, known)| self.endpoints(endpoint, &known.addresses))
                .collect(),
        });
        LoadAssignment {
            localities: localities.collect(),
            overprovisioning_factor: names.overprovisioning_factor,
            weighted_priority_health: names.weighted_priority_health,
            drop: names.drop,
            ..LoadAssignment::default()
        }
    }

    fn endpoints(&self, name: &Endpoint<Name>, addresses: &[IpAddr]) -> Vec<Arc<Endpoint>> {
        let port = name.address.port;
        let mut sockets = addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port));
        let at = |first: SocketAddr, others: Vec<SocketAddr>| {
            let mut endpoint = name.moved(Address::Socket(first), others);
            if endpoint.hostname.is_empty() {
                endpoint.hostname = name.address.host.clone();
            }
            Arc::new(endpoint)
        };
        if self.dns.logical {
            let first = sockets.next();
            return first
                .map(|first| at(first, sockets.collect()))
                .into_iter()
                .collect();
        }
        sockets.map(|socket| at(socket, Vec::new())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::testing::cluster;
    use crate::config::cluster::{AssignmentSource, ClusterDiscovery};

    fn hosts(kind: &str, endpoints: &str) -> Hosts {
        let cluster = cluster(&format!(
            "name: c\ntype: {kind}\nrespect_dns_ttl: true\nload_assignment:\n  cluster_name: c\n  endpoints: {endpoints}"
        ));
        match &cluster.unwrap().discovery {
            ClusterDiscovery::Assignment {
                source: AssignmentSource::Dns(dns),
                ..
            } => Hosts::new(dns.clone()),
            _ => panic!("not DNS"),
        }
    }

    fn addresses(texts: &[&str], ttl: u64) -> Answer {
        let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
        Answer::Addresses(addresses, Some(Duration::from_secs(ttl)))
    }

    fn shown(hosts: &Hosts) -> Vec<String> {
        let assignment = hosts.assignment();
        let each = assignment.localities.iter().flat_map(|locality| {
            locality.endpoints.iter().map(|endpoint| {
                format!(
                    "{} {} {} {} {:?}",
                    locality.priority,
                    endpoint.address,
                    endpoint.weight,
                    endpoint.hostname,
                    endpoint.additional_addresses
                )
            })
        });
        each.collect()
    }

    const TWO: &str = "[{lb_endpoints: [{load_balancing_weight: 3, endpoint: {address: {socket_address: \
                       {address: a.test, port_value: 80}}}}]}, {priority: 1, lb_endpoints: [{endpoint: \
                       {hostname: other, address: {socket_address: {address: b.test, port_value: 81}}}}]}]";

    #[test]
    fn each_address_of_a_strict_name_is_an_endpoint() {
        let mut hosts = hosts("STRICT_DNS", TWO);
        assert_eq!(hosts.names().count(), 2);
        let wait = |seconds| Duration::from_secs(seconds);
        let answer = addresses(&["10.0.0.1", "fd00::1", "10.0.0.1"], 30);
        assert_eq!(hosts.answered(0, answer, 0), (Change::Updated, wait(30)));
        let answer = addresses(&["10.0.0.9"], 7);
        assert_eq!(hosts.answered(1, answer, 0), (Change::Updated, wait(7)));
        assert_eq!(
            shown(&hosts),
            [
                "0 10.0.0.1:80 3 a.test []",
                "0 [fd00::1]:80 3 a.test []",
                "1 10.0.0.9:81 1 other []",
            ]
        );
        // Another order is no change, silence neither.
        let answer = addresses(&["fd00::1", "10.0.0.1"], 30);
        assert_eq!(hosts.answered(0, answer, 0), (Change::Same, wait(30)));
        assert_eq!(
            hosts.answered(0, Answer::Unknown, 0),
            (Change::Failed, wait(5))
        );
        assert_eq!(shown(&hosts).len(), 3);
        // A name that no longer exists has no endpoints.
        let answer = Answer::Addresses(Vec::new(), None);
        assert_eq!(hosts.answered(0, answer, 0), (Change::Updated, wait(5)));
        assert_eq!(shown(&hosts), ["1 10.0.0.9:81 1 other []"]);
    }

    #[test]
    fn a_logical_name_is_one_endpoint_that_stays() {
        let one = "[{priority: 3, lb_endpoints: [{endpoint: {address: {socket_address: {address: \
                   a.test, port_value: 80}}}}]}]";
        let mut hosts = hosts("LOGICAL_DNS", one);
        hosts.answered(0, addresses(&["10.0.0.1", "10.0.0.2"], 30), 0);
        let expect = ["0 10.0.0.1:80 1 a.test [10.0.0.2:80]"];
        assert_eq!(shown(&hosts), expect);
        let (change, _) = hosts.answered(0, Answer::Addresses(Vec::new(), None), 0);
        assert_eq!(
            (change, shown(&hosts)),
            (Change::Failed, expect.map(str::to_owned).to_vec())
        );
    }
}
