//! STRICT_DNS, LOGICAL_DNS, and `DnsCluster`.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily as OlderFamily;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;
use envoy_types::pb::envoy::extensions::network::dns_resolver::hickory::v3::HickoryDnsResolverConfig;
use envoy_types::pb::google::protobuf::{self, Any};

use super::context::Context;
use super::endpoint;
use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, bounded, duration, each, enumeration, flag, positive, refuse,
    required, socket_address, uint,
};
use crate::config::dns::{Dns, LookupFamily, LookupSettings, RefreshRates};
use crate::config::error::{ConfigError, Result};

/// The configuration of `envoy.clusters.dns`.
pub const CLUSTER: &str = "envoy.extensions.clusters.dns.v3.DnsCluster";

/// `dns_refresh_rate` unless set.
const REFRESH_RATE: Duration = Duration::from_secs(5);

/// What is above this is taken for a rate.
const NO_RATE: Duration = Duration::from_millis(1);

/// `max_interval` unless set, in terms of `base_interval`.
const MOST_OF_BASE: u32 = 10;

/// What `typed_dns_resolver_config` may hold.
const RESOLVERS: &[Extension<Build<LookupSettings>>] = &[
    Extension {
        type_name: "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        build: |bytes| cares(&decode(bytes)?),
    },
    Extension {
        type_name: "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        build: |bytes| {
            let proto: GetAddrInfoDnsResolverConfig = decode(bytes)?;
            let unset = LookupSettings::default();
            let retries = uint(&proto.num_retries);
            Ok(LookupSettings {
                tries: retries.map_or(unset.tries, |retries| retries.saturating_add(1)),
                ..unset
            })
        },
    },
    Extension {
        type_name: "envoy.extensions.network.dns_resolver.hickory.v3.HickoryDnsResolverConfig",
        build: |bytes| hickory(&decode(bytes)?),
    },
];

/// STRICT_DNS, or with `logical` LOGICAL_DNS, by the fields of `Cluster`.
pub fn of_older_fields(
    proto: &cluster::Cluster,
    logical: bool,
    context: &dyn Context,
) -> Result<Dns> {
    let family: OlderFamily = enumeration(proto.dns_lookup_family, "dns_lookup_family")?;
    let failure = proto.dns_failure_refresh_rate.as_ref();
    let failure = failure.map(|rate| (&rate.base_interval, &rate.max_interval));
    let (jitter, rates, lookup, common) = (
        duration(&proto.dns_jitter, "dns_jitter"),
        rates(&proto.dns_refresh_rate, failure),
        resolver(
            proto.typed_dns_resolver_config.as_ref(),
            proto.dns_resolution_config.as_ref(),
            &proto.dns_resolvers,
            proto.use_tcp_for_dns_lookups,
        ),
        common(proto, logical),
    )
        .together()?;
    let mut dns = Dns {
        refresh: RefreshRates {
            respect_ttl: proto.respect_dns_ttl,
            jitter: jitter.unwrap_or_default(),
            ..rates
        },
        lookup: lookup.unwrap_or_else(|| context.default_lookup()),
        ..common
    };
    dns.lookup.family = match family {
        OlderFamily::Auto => LookupFamily::Auto,
        OlderFamily::V4Only => LookupFamily::V4Only,
        OlderFamily::V6Only => LookupFamily::V6Only,
        OlderFamily::V4Preferred => LookupFamily::V4Preferred,
        OlderFamily::All => LookupFamily::All,
    };
    Ok(dns)
}

/// `envoy.clusters.dns`: its own fields count, and those of `Cluster` do not.
pub fn of_extension(proto: &cluster::Cluster, any: &Any, context: &dyn Context) -> Result<Dns> {
    let field = "cluster_type.typed_config";
    let own: DnsCluster = decode(&any.value).within(field)?;
    let ((refresh, mut lookup, family), common) = (
        of_message(&own, context).within(field),
        common(proto, own.all_addresses_in_single_endpoint),
    )
        .together()?;
    lookup.family = match family {
        DnsLookupFamily::Unspecified | DnsLookupFamily::Auto => LookupFamily::Auto,
        DnsLookupFamily::V4Only => LookupFamily::V4Only,
        DnsLookupFamily::V6Only => LookupFamily::V6Only,
        DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
        DnsLookupFamily::All => LookupFamily::All,
    };
    Ok(Dns {
        refresh,
        lookup,
        ..common
    })
}

fn of_message(
    own: &DnsCluster,
    context: &dyn Context,
) -> Result<(RefreshRates, LookupSettings, DnsLookupFamily)> {
    let failure = own.dns_failure_refresh_rate.as_ref();
    let failure = failure.map(|rate| (&rate.base_interval, &rate.max_interval));
    let least = || {
        let field = "dns_min_refresh_rate";
        let least = duration(&own.dns_min_refresh_rate, field)?;
        let too_small = least.is_some_and(|least| least < Duration::from_secs(1));
        refuse(too_small, field, "must be at least 1s")?;
        Ok(least.unwrap_or_default())
    };
    let lookup = match &own.typed_dns_resolver_config {
        Some(extension) => typed_resolver(extension).within("typed_dns_resolver_config"),
        None => Ok(context.default_lookup()),
    };
    let (least, jitter, rates, lookup, family) = (
        least(),
        duration(&own.dns_jitter, "dns_jitter"),
        rates(&own.dns_refresh_rate, failure),
        lookup,
        enumeration(own.dns_lookup_family, "dns_lookup_family"),
    )
        .together()?;
    let refresh = RefreshRates {
        respect_ttl: own.respect_dns_ttl,
        least,
        jitter: jitter.unwrap_or_default(),
        ..rates
    };
    Ok((refresh, lookup, family))
}

/// What does not depend on the form.
fn common(proto: &cluster::Cluster, logical: bool) -> Result<Dns> {
    let assignment = required(&proto.load_assignment, "load_assignment")?;
    let assignment = endpoint::build_named(assignment).within("load_assignment")?;
    refuse(
        logical && (assignment.localities.len() != 1 || assignment.endpoints().count() != 1),
        "load_assignment",
        "must have exactly one endpoint where all addresses are one endpoint (LOGICAL_DNS)",
    )?;
    Ok(Dns {
        assignment,
        logical,
        wait: flag(&proto.wait_for_warm_on_init) != Some(false),
        refresh: rates(&None, None)?,
        lookup: LookupSettings::default(),
    })
}

type OptionalDuration = Option<protobuf::Duration>;

/// `dns_refresh_rate` and `dns_failure_refresh_rate`.
fn rates(
    normal: &OptionalDuration,
    failure: Option<(&OptionalDuration, &OptionalDuration)>,
) -> Result<RefreshRates> {
    let rate = |value: &OptionalDuration, field: &str| -> Result<Option<Duration>> {
        let value = positive(value, field)?;
        refuse(
            value.is_some_and(|value| value <= NO_RATE),
            field,
            "must be above 1ms",
        )?;
        Ok(value)
    };
    let normal = rate(normal, "dns_refresh_rate")?.unwrap_or(REFRESH_RATE);
    let failure = match failure {
        None => (normal, normal),
        Some((base, most)) => {
            let field = "dns_failure_refresh_rate";
            let base = rate(base, "base_interval").within(field)?.ok_or_else(|| {
                ConfigError::new(format_args!("{field}.base_interval"), "must be set")
            })?;
            let most = rate(most, "max_interval").within(field)?;
            let most = most.unwrap_or(base.saturating_mul(MOST_OF_BASE));
            refuse(
                most < base,
                format_args!("{field}.max_interval"),
                "must not be below base_interval",
            )?;
            (base, most)
        }
    };
    Ok(RefreshRates {
        normal,
        failure,
        respect_ttl: false,
        least: Duration::ZERO,
        jitter: Duration::ZERO,
    })
}

/// How names are looked up, by the newest of the three ways to say it; `None` where none is used.
///
/// # Errors
/// The fields that are invalid, by their paths.
pub fn resolver(
    typed: Option<&core::TypedExtensionConfig>,
    config: Option<&core::DnsResolutionConfig>,
    addresses: &[core::Address],
    tcp_only: bool,
) -> Result<Option<LookupSettings>> {
    if let Some(extension) = typed {
        return typed_resolver(extension)
            .within("typed_dns_resolver_config")
            .map(Some);
    }
    if let Some(config) = config {
        return Ok(Some(LookupSettings {
            servers: servers(&config.resolvers, "resolvers").within("dns_resolution_config")?,
            ..options(config.dns_resolver_options.as_ref())
        }));
    }
    let servers = servers(addresses, "dns_resolvers")?;
    Ok((tcp_only || !servers.is_empty()).then(|| LookupSettings {
        servers,
        tcp_only,
        ..LookupSettings::default()
    }))
}

/// `typed_dns_resolver_config`.
fn typed_resolver(extension: &core::TypedExtensionConfig) -> Result<LookupSettings> {
    let any = required(&extension.typed_config, "typed_config")?;
    let row = resolve(RESOLVERS, "DNS resolver", any)?;
    (row.build)(&any.value).within("typed_config")
}

fn cares(proto: &CaresDnsResolverConfig) -> Result<LookupSettings> {
    let payload = bounded(
        &proto.edns0_max_payload_size,
        512..=4096,
        "edns0_max_payload_size",
    );
    let seconds = proto.query_timeout_seconds.as_ref().map(|each| each.value);
    let (payload, (), servers, tries) = (
        payload,
        refuse(
            seconds == Some(0),
            "query_timeout_seconds",
            "must be above zero",
        ),
        servers(&proto.resolvers, "resolvers"),
        bounded(&proto.query_tries, 1..=u32::MAX, "query_tries"),
    )
        .together()?;
    let unset = options(proto.dns_resolver_options.as_ref());
    Ok(LookupSettings {
        servers,
        servers_are_fallback: proto.use_resolvers_as_fallback,
        // A day is as good as any longer time, and cannot overflow.
        timeout: seconds.map_or(unset.timeout, |seconds| {
            Duration::from_secs(seconds.min(86_400))
        }),
        tries: tries.unwrap_or(unset.tries),
        rotate: proto.rotate_nameservers,
        payload: payload.and_then(|payload| u16::try_from(payload).ok()),
        routable_only: proto.filter_unroutable_families,
        ..unset
    })
}

fn hickory(proto: &HickoryDnsResolverConfig) -> Result<LookupSettings> {
    let unset = LookupSettings::default();
    let (servers, timeout, tries) = (
        servers(&proto.resolvers, "resolvers"),
        positive(&proto.query_timeout, "query_timeout"),
        bounded(&proto.query_tries, 1..=u32::MAX, "query_tries"),
    )
        .together()?;
    refuse(
        servers.is_empty() && flag(&proto.use_system_config) == Some(false),
        "resolvers",
        "must be set where use_system_config is false: there is nobody to ask",
    )?;
    Ok(LookupSettings {
        servers,
        timeout: timeout.unwrap_or(unset.timeout),
        tries: tries.unwrap_or(3),
        ..unset
    })
}

fn options(proto: Option<&core::DnsResolverOptions>) -> LookupSettings {
    let proto = proto.copied().unwrap_or_default();
    LookupSettings {
        tcp_only: proto.use_tcp_for_dns_lookups,
        search: !proto.no_default_search_domain,
        ..LookupSettings::default()
    }
}

/// Addresses of DNS servers.
fn servers(addresses: &[core::Address], field: &str) -> Result<Vec<SocketAddr>> {
    each(field, addresses, |proto| match &proto.address {
        Some(core::address::Address::SocketAddress(address)) => {
            let ip_and_port = core::SocketAddress {
                protocol: core::socket_address::Protocol::Tcp.into(),
                ..address.clone()
            };
            let mut server = socket_address(&ip_and_port, true).within("socket_address")?;
            if server.port() == 0 {
                server.set_port(53);
            }
            Ok(server)
        }
        _ => Err(ConfigError::new("socket_address", "must be set")),
    })
}
