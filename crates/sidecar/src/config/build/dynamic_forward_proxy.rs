//! `DnsCacheConfig`, and the cluster that uses it.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DnsLookupFamily};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3 as clusters;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3 as proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::google::protobuf::Any;
use prost::Message as _;

use super::context::Context;
use super::dns;
use super::extension::decode;
use super::fields::{
    Together as _, Within as _, bounded, duration, enumeration, named, positive, refuse, required,
};
use super::filter_state_matcher::ranges;
use crate::config::dns::{LookupFamily, RefreshRates};
use crate::config::dynamic_forward_proxy::{AddressRule, CacheSettings, DnsCache};
use crate::config::error::{ConfigError, Result};

/// The configuration of `envoy.clusters.dynamic_forward_proxy`.
pub const CLUSTER: &str = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// Envoy's values where none are set.
const REFRESH_RATE: Duration = Duration::from_secs(60);
const LEAST_REFRESH_RATE: Duration = Duration::from_secs(5);
const HOST_TTL: Duration = Duration::from_secs(300);
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HOSTS: u32 = 1024;
const MAX_PENDING: u32 = 1024;

/// `envoy.clusters.dynamic_forward_proxy`.
pub fn cluster(proto: &cluster::Cluster, any: &Any, context: &dyn Context) -> Result<DnsCache> {
    let field = "cluster_type.typed_config";
    let own: clusters::ClusterConfig = decode(&any.value).within(field)?;
    let built = match &own.cluster_implementation_specifier {
        Some(ClusterImplementationSpecifier::DnsCacheConfig(proto)) => {
            cache(proto, context).within("dns_cache_config")
        }
        Some(ClusterImplementationSpecifier::SubClustersConfig(_)) => Err(ConfigError::new(
            "sub_clusters_config",
            "is not supported: use dns_cache_config, which needs no cluster for each host",
        )),
        None => Err(ConfigError::new("dns_cache_config", "must be set")),
    };
    let mut cache = built.within(field)?;
    refuse(
        !proto.transport_socket_matches.is_empty(),
        "transport_socket_matches",
        "hosts have no metadata to match: use transport_socket",
    )?;
    let socket = proto.transport_socket.as_ref();
    cache.has_tls = match socket.and_then(|socket| socket.config_type.as_ref()) {
        None => false,
        Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(RAW_BUFFER) => false,
        Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(TLS) => true,
        Some(ConfigType::TypedConfig(any)) => {
            return Err(ConfigError::new(
                "transport_socket",
                format_args!(
                    "`{}` cannot be told the name of each host: use {TLS} or {RAW_BUFFER}",
                    any.type_url
                ),
            ));
        }
    };
    Ok(cache)
}

/// `DnsCacheConfig`.
fn cache(proto: &proto::DnsCacheConfig, context: &dyn Context) -> Result<DnsCache> {
    let family: Result<DnsLookupFamily> = enumeration(proto.dns_lookup_family, "dns_lookup_family");
    let pending = proto.dns_cache_circuit_breaker.as_ref();
    let pending = pending.and_then(|breaker| breaker.max_pending_requests);
    let least = duration(&proto.dns_min_refresh_rate, "dns_min_refresh_rate").and_then(|least| {
        refuse(
            least.is_some_and(|least| least < Duration::from_secs(1)),
            "dns_min_refresh_rate",
            "must be at least 1s",
        )?;
        Ok(least)
    });
    let addresses = proto.resolved_address_filter.as_ref().map(|filter| {
        Ok(AddressRule {
            ranges: ranges(&filter.ranges).within("resolved_address_filter")?,
            invert: filter.invert_match,
        })
    });
    let lookup = dns::resolver(
        proto.typed_dns_resolver_config.as_ref(),
        proto.dns_resolution_config.as_ref(),
        &[],
        proto.use_tcp_for_dns_lookups,
    );
    let ((_, family, normal, least, host_ttl), (max_hosts, timeout, addresses, lookup)) = (
        (
            named(&proto.name, "name"),
            family,
            positive(&proto.dns_refresh_rate, "dns_refresh_rate"),
            least,
            positive(&proto.host_ttl, "host_ttl"),
        )
            .together(),
        (
            bounded(&proto.max_hosts, 1..=u32::MAX, "max_hosts"),
            duration(&proto.dns_query_timeout, "dns_query_timeout"),
            addresses.transpose(),
            lookup,
        )
            .together(),
    )
        .together()?;
    let mut lookup = lookup.unwrap_or_else(|| context.default_lookup());
    lookup.family = match family {
        DnsLookupFamily::Auto => LookupFamily::Auto,
        DnsLookupFamily::V4Only => LookupFamily::V4Only,
        DnsLookupFamily::V6Only => LookupFamily::V6Only,
        DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
        DnsLookupFamily::All => LookupFamily::All,
    };
    let normal = normal.unwrap_or(REFRESH_RATE);
    let pending = pending.map_or(MAX_PENDING, |pending| pending.value);
    let settings = context.dns_cache(CacheSettings {
        name: proto.name.as_str().into(),
        encoded: proto.encode_to_vec().into(),
    })?;
    Ok(DnsCache {
        settings,
        lookup,
        refresh: RefreshRates {
            normal,
            failure: (normal, normal),
            respect_ttl: true,
            least: least.unwrap_or(LEAST_REFRESH_RATE),
            jitter: Duration::ZERO,
        },
        timeout: match timeout {
            None => Some(QUERY_TIMEOUT),
            Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
        },
        host_ttl: host_ttl.unwrap_or(HOST_TTL),
        max_hosts: max_hosts.unwrap_or(MAX_HOSTS) as usize,
        max_pending: pending as usize,
        addresses,
        has_tls: false,
    })
}

/// The cache of a filter, which is its cluster's: the cluster looks up what the filter notes.
pub fn of_filter(
    proto: Option<&proto::DnsCacheConfig>,
    context: &dyn Context,
) -> Result<Arc<CacheSettings>> {
    required(&proto, "dns_cache_config")
        .and_then(|proto| cache(proto, context).within("dns_cache_config"))
        .map(|cache| cache.settings)
}

/// The transport socket of such a cluster. With TLS, the host that a client asks for is the name that
/// is sent and, where certificates are verified, one that the server's must have: else whoever
/// has any certificate could pose as any host.
pub fn transport_socket(proto: &core::TransportSocket) -> Result<core::TransportSocket> {
    let mut proto = proto.clone();
    if let Some(ConfigType::TypedConfig(any)) = &mut proto.config_type
        && any.type_url.ends_with(TLS)
    {
        let mut context: tls::UpstreamTlsContext = decode(&any.value).within("typed_config")?;
        context.auto_host_sni = true;
        let common = context.common_tls_context.as_ref();
        context.auto_sni_san_validation |=
            common.is_some_and(|common| common.validation_context_type.is_some());
        any.value = context.encode_to_vec();
    }
    Ok(proto)
}

/// Whether a cluster is one.
pub fn is(proto: &cluster::Cluster) -> bool {
    match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(extension)) => extension
            .typed_config
            .as_ref()
            .is_some_and(|any| any.type_url.ends_with(CLUSTER)),
        _ => false,
    }
}

/// The cluster without `auto_sni` and `auto_san_validation`, which such a cluster always does.
///
/// # Errors
/// Its options cannot be decoded.
pub fn without_automatic_names(proto: &cluster::Cluster) -> Result<cluster::Cluster> {
    let mut proto = proto.clone();
    refuse_other_name(&proto.upstream_http_protocol_options)?;
    proto.upstream_http_protocol_options = None;
    for (key, any) in &mut proto.typed_extension_protocol_options {
        if any.type_url.ends_with(PROTOCOL_OPTIONS) {
            let field = format_args!("typed_extension_protocol_options[{key}]");
            let mut options: HttpProtocolOptions = decode(&any.value).within(field)?;
            refuse_other_name(&options.upstream_http_protocol_options).within(field)?;
            options.upstream_http_protocol_options = None;
            any.value = options.encode_to_vec();
        }
    }
    Ok(proto)
}

fn refuse_other_name(proto: &Option<core::UpstreamHttpProtocolOptions>) -> Result<()> {
    refuse(
        proto
            .as_ref()
            .is_some_and(|options| !options.override_auto_sni_header.is_empty()),
        "upstream_http_protocol_options.override_auto_sni_header",
        "is not supported: the name that is sent is always that of the host that is connected to",
    )
}
