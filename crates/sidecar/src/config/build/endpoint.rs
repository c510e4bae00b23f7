//! `ClusterLoadAssignment`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use super::fields::{
    Together as _, Within as _, address, bounded, each, enumeration, host_and_port, named, one_of,
    positive, refuse, required,
};
use super::struct_value;
use crate::config::address::Address;
use crate::config::dns::Name;
use crate::config::endpoint::{
    Endpoint, HealthStatus, LoadAssignment, Locality, OVERPROVISIONING_FACTOR,
};
use crate::config::error::{ConfigError, Result};
use crate::http::h1::grammar;
use crate::runtime_layer;

/// The metadata that `transport_socket_matches` look at.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The runtime's say in how many percent of the requests may be turned away at most.
const DROP_LIMIT: &str = "load_balancing_policy.drop_overload_limit";

/// Builds the endpoints of a cluster.
///
/// # Errors
///
/// The fields that are invalid, by their paths.
pub fn build(proto: &endpoint::ClusterLoadAssignment) -> Result<LoadAssignment> {
    build_at(proto, &|proto| {
        address(&proto.address, "address").within("endpoint")
    })
}

/// The endpoints of a cluster that gives them by name.
///
/// # Errors
///
/// The fields that are invalid, by their paths.
pub fn build_named(proto: &endpoint::ClusterLoadAssignment) -> Result<LoadAssignment<Name>> {
    build_at(proto, &|proto| {
        let address = proto.address.as_ref();
        let (host, port) = match address.and_then(|address| address.address.as_ref()) {
            Some(core::address::Address::SocketAddress(socket)) => {
                host_and_port(socket).within("socket_address")
            }
            _ => Err(ConfigError::new("socket_address", "must be set")),
        }
        .within("endpoint.address")?;
        Ok(Name {
            host: host.into(),
            port,
        })
    })
}

/// Reads where an endpoint is.
type Place<'a, P> = &'a dyn Fn(&endpoint::Endpoint) -> Result<P>;

fn build_at<P>(
    proto: &endpoint::ClusterLoadAssignment,
    place: Place<'_, P>,
) -> Result<LoadAssignment<P>> {
    let policy = proto.policy.clone().unwrap_or_default();
    let (localities, overprovisioning_factor, drop, stale_after) = (
        each("endpoints", &proto.endpoints, |proto_locality| {
            locality(proto_locality, &proto.named_endpoints, place)
        }),
        bounded(
            &policy.overprovisioning_factor,
            1..=u32::MAX,
            "policy.overprovisioning_factor",
        ),
        drop_overloads(&policy.drop_overloads).within("policy"),
        positive(&policy.endpoint_stale_after, "endpoint_stale_after").within("policy"),
    )
        .together()?;
    Ok(LoadAssignment {
        localities,
        overprovisioning_factor: overprovisioning_factor.unwrap_or(OVERPROVISIONING_FACTOR),
        weighted_priority_health: policy.weighted_priority_health,
        drop,
        stale_after,
    })
}

/// The part of the requests that is turned away, within what the runtime allows.
fn drop_overloads(categories: &[DropOverload]) -> Result<Option<f64>> {
    let [category] = categories else {
        return match categories {
            [] => Ok(None),
            _ => Err(ConfigError::new(
                "drop_overloads",
                "one category is the most that Envoy supports",
            )),
        };
    };
    let within = "drop_overloads[0]";
    named(&category.category, "category").within(within)?;
    let percentage = required(&category.drop_percentage, "drop_percentage").within(within)?;
    let (numerator, denominator) = runtime_layer::fractional_percent(percentage)
        .within("drop_percentage")
        .within(within)?;
    let ratio = f64::from(numerator) / f64::from(denominator);
    refuse(
        ratio > 1.0,
        "drop_overloads[0].drop_percentage",
        "is more than everything",
    )?;
    let most = f64::from(runtime_layer::number_at(DROP_LIMIT, 100).get()) / 100.0;
    Ok(Some(ratio.min(most)).filter(|ratio| *ratio > 0.0))
}

/// `named_endpoints`
type Named = HashMap<String, endpoint::Endpoint>;

fn locality<P>(
    proto: &endpoint::LocalityLbEndpoints,
    named: &Named,
    place: Place<'_, P>,
) -> Result<Locality<P>> {
    let name = match &proto.locality {
        Some(locality) => format!(
            "{}/{}/{}",
            locality.region, locality.zone, locality.sub_zone
        ),
        None => String::new(),
    };
    let ((), weight, endpoints) = (
        refuse(
            proto.priority > 128,
            "priority",
            format_args!("{} is above 128", proto.priority),
        ),
        bounded(
            &proto.load_balancing_weight,
            1..=u32::MAX,
            "load_balancing_weight",
        ),
        each("lb_endpoints", &proto.lb_endpoints, |proto| {
            endpoint(proto, named, place).map(Arc::new)
        }),
    )
        .together()?;
    let total: u64 = endpoints.iter().map(|e| u64::from(e.weight)).sum();
    refuse(
        total > u64::from(u32::MAX),
        "lb_endpoints",
        "the weights add up to more than 32 bits hold",
    )?;
    Ok(Locality {
        priority: proto.priority,
        weight: weight.unwrap_or(0),
        name: name.into(),
        endpoints,
    })
}

fn endpoint<P>(
    proto: &endpoint::LbEndpoint,
    named: &Named,
    place: Place<'_, P>,
) -> Result<Endpoint<P>> {
    let endpoint = endpoint_of(proto, named)?;
    let (address, additional_addresses, weight, health, hostname) = (
        place(endpoint),
        additional_addresses(endpoint),
        bounded(
            &proto.load_balancing_weight,
            1..=u32::MAX,
            "load_balancing_weight",
        ),
        enumeration::<core::HealthStatus>(proto.health_status, "health_status"),
        hostname(&endpoint.hostname),
    )
        .together()?;
    Ok(Endpoint {
        address,
        additional_addresses,
        weight: weight.unwrap_or(1),
        health: match health {
            core::HealthStatus::Unknown | core::HealthStatus::Healthy => HealthStatus::Healthy,
            core::HealthStatus::Degraded => HealthStatus::Degraded,
            core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => HealthStatus::Unhealthy,
            core::HealthStatus::Draining => HealthStatus::Draining,
        },
        // `auto_host_rewrite` makes it the host of requests.
        hostname,
        transport_socket_match: transport_socket_match(proto),
    })
}

fn hostname(hostname: &str) -> Result<Arc<str>> {
    refuse(
        !grammar::is_authority(hostname.as_bytes()),
        "hostname",
        "must be a host, with or without a port",
    )?;
    Ok(hostname.into())
}

fn additional_addresses(proto: &endpoint::Endpoint) -> Result<Vec<SocketAddr>> {
    let field = "additional_addresses";
    each(
        field,
        &proto.additional_addresses,
        |additional| match address(&additional.address, "address")? {
            Address::Socket(address) => Ok(address),
            _ => Err(ConfigError::new(
                "address.pipe",
                "an additional address is a socket_address",
            )),
        },
    )
    .within("endpoint")
}

fn endpoint_of<'a>(
    proto: &'a endpoint::LbEndpoint,
    named: &'a Named,
) -> Result<&'a endpoint::Endpoint> {
    match one_of::<endpoint::LbEndpoint, _>(&proto.host_identifier, "endpoint")? {
        HostIdentifier::Endpoint(endpoint) => Ok(endpoint),
        HostIdentifier::EndpointName(name) => named.get(name).ok_or_else(|| {
            ConfigError::new(
                "endpoint_name",
                format_args!("named_endpoints has no `{name}`"),
            )
        }),
    }
}

fn transport_socket_match(proto: &endpoint::LbEndpoint) -> BTreeMap<String, serde_json::Value> {
    let metadata = proto.metadata.as_ref();
    metadata
        .and_then(|metadata| metadata.filter_metadata.get(TRANSPORT_SOCKET_MATCH))
        .map(struct_value::object)
        .unwrap_or_default()
        .into_iter()
        .collect()
}
