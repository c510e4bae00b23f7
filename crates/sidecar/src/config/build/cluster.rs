//! `Cluster`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::Any;

use super::context::Context;
use super::fields::{
    Within as _, each, enumeration, flag, keepalive, named, positive, refuse, required,
    socket_address, uint,
};
use super::transport_socket::UPSTREAM;
use super::{
    dns, endpoint, load_balancing, source, struct_value, transport_socket, upstream_protocol,
};
use crate::config::cluster::{
    AssignmentSource, BindConfig, Cluster, ClusterDiscovery, Thresholds, TransportSocketMatch,
    UpstreamTransport,
};
use crate::config::dns::Dns;
use crate::config::endpoint::LoadAssignment;
use crate::config::error::{ConfigError, Result};
use crate::discovery::slot::Slot;

/// `connect_timeout` unless set.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `max_connections` and its like unless set.
const MAX_IN_FLIGHT: u32 = 1024;
/// `max_retries` unless set.
const MAX_RETRIES: u32 = 3;

/// Builds a cluster. `fingerprint` is that of the resource's bytes.
///
/// # Errors
///
/// The first field that is invalid, by its path.
pub fn build(proto: &cluster::Cluster, fingerprint: u64, context: &dyn Context) -> Result<Cluster> {
    let name = named(&proto.name, "name")?;
    refuse(
        proto.close_connections_on_host_health_failure,
        "close_connections_on_host_health_failure",
        "is not supported yet",
    )?;
    if let Some(LbConfig::OriginalDstLbConfig(config)) = &proto.lb_config {
        refuse(
            config.use_http_header,
            "original_dst_lb_config.use_http_header",
            "is not supported: a client could choose any address",
        )?;
    }
    let protocol = upstream_protocol::build(proto)?;
    let kind = kind(proto)?;
    Ok(Cluster {
        name: name.into(),
        stat_name: match proto.alt_stat_name.as_str() {
            "" => name.into(),
            other => other.into(),
        },
        discovery: discovery(proto, kind, context)?,
        load_balancing: load_balancing::build(proto, kind == Kind::OriginalDestination)?,
        close_on_change: proto
            .common_lb_config
            .as_ref()
            .is_some_and(|common| common.close_connections_on_host_set_change),
        connect_timeout: positive(&proto.connect_timeout, "connect_timeout")?
            .unwrap_or(CONNECT_TIMEOUT),
        circuit_breakers: circuit_breakers(&proto.circuit_breakers).within("circuit_breakers")?,
        protocol: protocol.protocol,
        http1: protocol.http1,
        http2: protocol.http2,
        idle_timeout: protocol.common.idle_timeout,
        max_requests_per_connection: protocol
            .common
            .max_requests_per_connection
            .or(uint(&proto.max_requests_per_connection).filter(|requests| *requests > 0)),
        max_connection_duration: protocol.common.max_connection_duration,
        transport_socket: match &proto.transport_socket {
            None => UpstreamTransport::Plain,
            Some(socket) => {
                transport_socket::build(UPSTREAM, socket, context).within("transport_socket")?
            }
        },
        transport_socket_matches: transport_socket_matches(proto, context)?,
        bind: match &proto.upstream_bind_config {
            None => context.default_bind(),
            Some(bind) => Some(bind_config(bind).within("upstream_bind_config")?),
        },
        keepalive: proto
            .upstream_connection_options
            .as_ref()
            .and_then(|options| options.tcp_keepalive.as_ref())
            .map(keepalive)
            .transpose()
            .within("upstream_connection_options.tcp_keepalive")?,
        fingerprint,
    })
}

/// `type`, or the extension of the same kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind<'a> {
    Static,
    StrictDns,
    LogicalDns,
    /// `envoy.clusters.dns`, with its configuration.
    Dns(&'a Any),
    Eds,
    OriginalDestination,
}

fn kind(proto: &cluster::Cluster) -> Result<Kind<'_>> {
    let kind: DiscoveryType = match &proto.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => enumeration(*kind, "type")?,
        Some(ClusterDiscoveryType::ClusterType(extension)) => {
            return extension_kind(extension).within("cluster_type");
        }
    };
    Ok(match kind {
        DiscoveryType::Static => Kind::Static,
        DiscoveryType::Eds => Kind::Eds,
        DiscoveryType::OriginalDst => Kind::OriginalDestination,
        DiscoveryType::StrictDns => Kind::StrictDns,
        DiscoveryType::LogicalDns => Kind::LogicalDns,
    })
}

fn extension_kind(proto: &cluster::cluster::CustomClusterType) -> Result<Kind<'_>> {
    if let Some(any) = &proto.typed_config
        && any.type_url.ends_with(dns::CLUSTER)
    {
        return Ok(Kind::Dns(any));
    }
    Ok(match &*proto.name {
        "envoy.cluster.static" => Kind::Static,
        "envoy.cluster.strict_dns" => Kind::StrictDns,
        "envoy.cluster.logical_dns" => Kind::LogicalDns,
        "envoy.cluster.eds" => Kind::Eds,
        "envoy.cluster.original_dst" => Kind::OriginalDestination,
        other => {
            return Err(ConfigError::new(
                "name",
                format_args!(
                    "`{other}` is not supported; supported: envoy.cluster.static, \
                     envoy.cluster.strict_dns, envoy.cluster.logical_dns, envoy.cluster.eds, \
                     envoy.cluster.original_dst, and any name with a typed_config of {}",
                    dns::CLUSTER
                ),
            ));
        }
    })
}

fn discovery(
    proto: &cluster::Cluster,
    kind: Kind<'_>,
    context: &dyn Context,
) -> Result<ClusterDiscovery> {
    refuse(
        kind != Kind::Eds && proto.eds_cluster_config.is_some(),
        "eds_cluster_config",
        "is only for clusters of type EDS",
    )?;
    refuse(
        matches!(kind, Kind::Eds | Kind::OriginalDestination) && proto.load_assignment.is_some(),
        "load_assignment",
        "is only for clusters of type STATIC, STRICT_DNS and LOGICAL_DNS",
    )?;
    let by_name = |dns: Dns| ClusterDiscovery::Assignment {
        slot: Slot::empty(proto.name.as_str()),
        source: AssignmentSource::Dns(Arc::new(dns)),
    };
    match kind {
        Kind::Static => {
            let assignment = match &proto.load_assignment {
                Some(assignment) => endpoint::build(assignment).within("load_assignment")?,
                None => LoadAssignment::default(),
            };
            Ok(ClusterDiscovery::Assignment {
                slot: Slot::filled(proto.name.as_str(), Arc::new(assignment)),
                source: AssignmentSource::Static,
            })
        }
        Kind::StrictDns => dns::of_older_fields(proto, false).map(by_name),
        Kind::LogicalDns => dns::of_older_fields(proto, true).map(by_name),
        Kind::Dns(any) => dns::of_extension(proto, any).map(by_name),
        Kind::Eds => {
            let eds = required(&proto.eds_cluster_config, "eds_cluster_config")?;
            let source = required(&eds.eds_config, "eds_config")
                .and_then(|source| source::build(source).within("eds_config"))
                .within("eds_cluster_config")?;
            let service = match eds.service_name.as_str() {
                "" => &proto.name,
                service => service,
            };
            Ok(ClusterDiscovery::Assignment {
                slot: context
                    .endpoint_slot(service, &source)
                    .within("eds_cluster_config")?,
                source: AssignmentSource::Eds,
            })
        }
        Kind::OriginalDestination => Ok(ClusterDiscovery::OriginalDestination),
    }
}

fn circuit_breakers(proto: &Option<cluster::CircuitBreakers>) -> Result<Thresholds> {
    let mut default = None;
    for (index, thresholds) in proto.iter().flat_map(|p| &p.thresholds).enumerate() {
        let priority: core::RoutingPriority = enumeration(thresholds.priority, "priority")
            .within(format_args!("thresholds[{index}]"))?;
        // No route has the priority HIGH: its values are never looked at.
        if priority == core::RoutingPriority::Default {
            refuse(
                default.replace(thresholds).is_some(),
                format_args!("thresholds[{index}].priority"),
                "is given twice",
            )?;
        }
    }
    let unset = circuit_breakers::Thresholds::default();
    let thresholds = default.unwrap_or(&unset);
    Ok(Thresholds {
        max_connections: uint(&thresholds.max_connections).unwrap_or(MAX_IN_FLIGHT),
        max_pending_requests: uint(&thresholds.max_pending_requests).unwrap_or(MAX_IN_FLIGHT),
        max_requests: uint(&thresholds.max_requests).unwrap_or(MAX_IN_FLIGHT),
        max_retries: uint(&thresholds.max_retries).unwrap_or(MAX_RETRIES),
    })
}

fn transport_socket_matches(
    proto: &cluster::Cluster,
    context: &dyn Context,
) -> Result<Vec<TransportSocketMatch>> {
    each(
        "transport_socket_matches",
        &proto.transport_socket_matches,
        |proto| {
            named(&proto.name, "name")?;
            let socket = required(&proto.transport_socket, "transport_socket")?;
            Ok(TransportSocketMatch {
                criteria: proto
                    .r#match
                    .as_ref()
                    .map(struct_value::object)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
                transport: transport_socket::build(UPSTREAM, socket, context)
                    .within("transport_socket")?,
            })
        },
    )
}

/// `BindConfig`: one address per family.
pub fn bind_config(proto: &core::BindConfig) -> Result<BindConfig> {
    refuse(
        flag(&proto.freebind) == Some(true),
        "freebind",
        "is not supported",
    )?;
    let mut bind = BindConfig { v4: None, v6: None };
    let mut add = |address: &core::SocketAddress| {
        let address = socket_address(address, true)?;
        let slot = if address.is_ipv4() {
            &mut bind.v4
        } else {
            &mut bind.v6
        };
        refuse(
            slot.replace(address).is_some(),
            "address",
            "there is another one of the same family",
        )
    };
    add(required(&proto.source_address, "source_address")?).within("source_address")?;
    each(
        "extra_source_addresses",
        &proto.extra_source_addresses,
        |extra| add(required(&extra.address, "address")?).within("address"),
    )?;
    Ok(bind)
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
