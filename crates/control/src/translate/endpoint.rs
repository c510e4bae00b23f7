//! Endpoints.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::core::v3::{Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::mesh::{MeshEndpoint, MeshPort, MeshService};
use crate::registry::kinds::IpFamily;

use super::bind::address;
use super::cluster::text_struct;
use super::names::{PLAINTEXT_MODE, outbound_cluster};

/// What [`super::cluster::balanced`] balances over.
pub(super) fn assignment(
    service: &MeshService,
    port: &MeshPort,
    families: &[IpFamily],
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<Option<&str>, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in port.endpoints_for(service, families) {
        localities
            .entry(endpoint.locality.as_deref())
            .or_default()
            .push(lb_endpoint(endpoint));
    }
    let group = |(place, lb_endpoints): (Option<&str>, Vec<LbEndpoint>)| LocalityLbEndpoints {
        locality: place.map(locality),
        load_balancing_weight: Some(UInt32Value {
            value: total_weight(&lb_endpoints),
        }),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: outbound_cluster(&service.host, port.number),
        endpoints: localities.into_iter().map(group).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(endpoint: &MeshEndpoint) -> LbEndpoint {
    let (key, value) = PLAINTEXT_MODE;
    let plaintext = || Metadata {
        filter_metadata: HashMap::from([(
            "envoy.transport_socket_match".to_owned(),
            text_struct(key, value),
        )]),
        ..Metadata::default()
    };
    LbEndpoint {
        metadata: (!endpoint.mutual_tls).then(plaintext),
        load_balancing_weight: Some(UInt32Value {
            value: endpoint.weight,
        }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(endpoint.address)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

fn total_weight(endpoints: &[LbEndpoint]) -> u32 {
    let weight = |endpoint: &LbEndpoint| {
        endpoint
            .load_balancing_weight
            .map_or(1, |weight| weight.value)
    };
    endpoints.iter().map(weight).fold(0, u32::saturating_add)
}

fn locality(place: &str) -> Locality {
    let mut parts = place.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Locality {
        region: next(),
        zone: next(),
        sub_zone: next(),
    }
}
