//! `Cluster`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use envoy_types::pb::google::protobuf::Any;

use super::connection_options::{
    CONNECT_TIMEOUT, bind_config, circuit_breakers, happy_eyeballs, original_destination, per_host,
};
use super::context::Context;
use super::extension::decode;
use super::fields::{
    Together as _, Within as _, each, enumeration, keepalive, named, positive, refuse, required,
    uint,
};
use super::transport_socket::UPSTREAM;
use super::{
    dns, dynamic_forward_proxy, endpoint, load_balancing, source, struct_value, transport_socket,
    upstream_protocol,
};
use crate::config::cluster::{
    AssignmentSource, Cluster, ClusterDiscovery, TransportSocketMatch, UpstreamTransport,
};
use crate::config::dns::Dns;
use crate::config::endpoint::LoadAssignment;
use crate::config::error::{ConfigError, Problems, Result};
use crate::discovery::slot::Slot;

/// What a cluster of clusters is configured with.
const AGGREGATE: &str = "envoy.extensions.clusters.aggregate.v3.ClusterConfig";

/// Builds a cluster. `fingerprint` is that of the resource's bytes.
///
/// # Errors
///
/// The fields that are invalid, by their paths.
pub fn build(proto: &cluster::Cluster, fingerprint: u64, context: &dyn Context) -> Result<Cluster> {
    let mut problems = Problems::default();
    let name = problems.take(named(&proto.name, "name"));
    let protocol = match dynamic_forward_proxy::is(proto) {
        false => upstream_protocol::build(proto),
        true => dynamic_forward_proxy::without_automatic_names(proto)
            .and_then(|proto| upstream_protocol::build(&proto)),
    };
    let protocol = problems.take(protocol.map(Some));
    // Without a kind there is no telling which fields go with it.
    let of_kind = kind(proto).and_then(|kind| {
        let provided = matches!(
            kind,
            Kind::OriginalDestination | Kind::Aggregate(_) | Kind::Names(_)
        );
        let balancing = load_balancing::build(proto, provided);
        (discovery(proto, kind, context), balancing).together()
    });
    let of_kind = problems.take(of_kind.map(Some));
    let transport = match &proto.transport_socket {
        None => Ok(UpstreamTransport::Plain),
        Some(socket) if dynamic_forward_proxy::is(proto) => {
            dynamic_forward_proxy::transport_socket(socket)
                .and_then(|socket| transport_socket::build(UPSTREAM, &socket, context))
                .within("transport_socket")
        }
        Some(socket) => {
            transport_socket::build(UPSTREAM, socket, context).within("transport_socket")
        }
    };
    let transport = problems.take(transport.map(Some));
    let connect_timeout = positive(&proto.connect_timeout, "connect_timeout");
    let breakers = circuit_breakers(&proto.circuit_breakers).within("circuit_breakers");
    let per_host = per_host(&proto.circuit_breakers).within("circuit_breakers");
    let bind = proto.upstream_bind_config.as_ref();
    let bind = bind.map(|bind| bind_config(bind, context.default_bind().as_ref()));
    let bind = bind.transpose().within("upstream_bind_config");
    let options = proto.upstream_connection_options.as_ref();
    let keepalive = options
        .and_then(|options| options.tcp_keepalive.as_ref())
        .map(keepalive)
        .transpose()
        .within("upstream_connection_options.tcp_keepalive");
    let connect_timeout = problems.take(connect_timeout);
    let circuit_breakers = problems.take(breakers);
    let max_connections_per_host = problems.take(per_host);
    let original_destination = problems.take(original_destination(proto));
    let happy_eyeballs = problems.take(happy_eyeballs(proto));
    let transport_socket_matches = problems.take(transport_socket_matches(proto, context));
    let bind = problems.take(bind);
    let keepalive = problems.take(keepalive);
    problems.into_error()?;
    let (Some(protocol), Some((discovery, load_balancing)), Some(transport_socket)) =
        (protocol, of_kind, transport)
    else {
        return Err(ConfigError::new("", "cannot be built"));
    };
    Ok(Cluster {
        name: name.into(),
        stat_name: match proto.alt_stat_name.as_str() {
            "" => name.into(),
            other => other.into(),
        },
        discovery,
        load_balancing,
        close_on_change: proto
            .common_lb_config
            .as_ref()
            .is_some_and(|common| common.close_connections_on_host_set_change),
        connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        circuit_breakers,
        max_connections_per_host,
        pool_per_downstream: proto.connection_pool_per_downstream_connection,
        original_destination,
        happy_eyeballs,
        protocol: protocol.protocol,
        http1: protocol.http1,
        http2: protocol.http2,
        idle_timeout: protocol.common.idle_timeout,
        max_requests_per_connection: protocol
            .common
            .max_requests_per_connection
            .or(uint(&proto.max_requests_per_connection).filter(|requests| *requests > 0)),
        max_connection_duration: protocol.common.max_connection_duration,
        transport_socket,
        transport_socket_matches,
        bind: bind.or_else(|| context.default_bind()),
        keepalive,
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
    /// `envoy.clusters.aggregate`, with its configuration.
    Aggregate(&'a Any),
    /// `envoy.clusters.dynamic_forward_proxy`, with its configuration.
    Names(&'a Any),
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
    if let Some(any) = &proto.typed_config
        && any.type_url.ends_with(AGGREGATE)
    {
        return Ok(Kind::Aggregate(any));
    }
    if let Some(any) = &proto.typed_config
        && any.type_url.ends_with(dynamic_forward_proxy::CLUSTER)
    {
        return Ok(Kind::Names(any));
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
                     envoy.cluster.original_dst, and any name with a typed_config of {}, \
                     {AGGREGATE} or {}",
                    dns::CLUSTER,
                    dynamic_forward_proxy::CLUSTER
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
    (
        refuse(
            kind != Kind::Eds && proto.eds_cluster_config.is_some(),
            "eds_cluster_config",
            "is only for clusters of type EDS",
        ),
        refuse(
            matches!(
                kind,
                Kind::Eds | Kind::OriginalDestination | Kind::Aggregate(_) | Kind::Names(_)
            ) && proto.load_assignment.is_some(),
            "load_assignment",
            "is only for clusters of type STATIC, STRICT_DNS and LOGICAL_DNS",
        ),
    )
        .together()?;
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
        Kind::StrictDns => dns::of_older_fields(proto, false, context).map(by_name),
        Kind::LogicalDns => dns::of_older_fields(proto, true, context).map(by_name),
        Kind::Dns(any) => dns::of_extension(proto, any, context).map(by_name),
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
        Kind::Aggregate(any) => aggregate(&any.value).within("cluster_type.typed_config"),
        Kind::Names(any) => dynamic_forward_proxy::cluster(proto, any, context)
            .map(|cache| ClusterDiscovery::Names(Arc::new(cache))),
    }
}

fn aggregate(bytes: &[u8]) -> Result<ClusterDiscovery> {
    let proto: ClusterConfig = decode(bytes)?;
    refuse(proto.clusters.is_empty(), "clusters", "must not be empty")?;
    let members = proto.clusters.iter().map(|name| name.as_str().into());
    Ok(ClusterDiscovery::Aggregate(members.collect()))
}

fn transport_socket_matches(
    proto: &cluster::Cluster,
    context: &dyn Context,
) -> Result<Vec<TransportSocketMatch>> {
    each(
        "transport_socket_matches",
        &proto.transport_socket_matches,
        |proto| {
            let transport =
                required(&proto.transport_socket, "transport_socket").and_then(|socket| {
                    transport_socket::build(UPSTREAM, socket, context).within("transport_socket")
                });
            let (_, transport) = (named(&proto.name, "name"), transport).together()?;
            Ok(TransportSocketMatch {
                criteria: proto
                    .r#match
                    .as_ref()
                    .map(struct_value::object)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
                transport,
            })
        },
    )
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
