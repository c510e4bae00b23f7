//! What a cluster's connections are like below HTTP and TLS: sources, limits, order of addresses.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers;
use envoy_types::pb::envoy::config::cluster::v3::cluster::LbConfig;
use envoy_types::pb::envoy::config::cluster::v3::upstream_connection_options::FirstAddressFamilyVersion;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use super::extension::{Extension, resolve};
use super::fields::{
    Together as _, Within as _, bounded, each, enumeration, flag, header_name, positive, refuse,
    required, socket_address, uint,
};
use super::{listener_filter, socket_option};
use crate::config::cluster::{
    BindConfig, HappyEyeballs, OriginalDestination, ProxyProtocol, ProxyProtocolVersion,
    RetryBudget, Source, Thresholds,
};
use crate::config::error::{ConfigError, Problems, Result};
use crate::listener::proxy_protocol::Tlv;

/// What `use_http_header` reads unless `http_header_name` names another one.
const DESTINATION_HEADER: &str = "x-envoy-original-dst-host";

/// The most that the TLVs of a PROXY header may take: its length is 16 bits, 36 of whose bytes are
/// addresses.
const MAX_TLVS: usize = u16::MAX as usize - 36;

/// `circuit_breakers`, by priority.
pub fn circuit_breakers(proto: &Option<cluster::CircuitBreakers>) -> Result<[Thresholds; 2]> {
    let mut found = [None, None];
    let all = proto.iter().flat_map(|proto| &proto.thresholds);
    each("thresholds", all, |proto| {
        let priority: core::RoutingPriority = enumeration(proto.priority, "priority")?;
        refuse(
            found[priority as usize]
                .replace(thresholds(proto)?)
                .is_some(),
            "priority",
            "is given twice",
        )
    })?;
    Ok(found.map(Option::unwrap_or_default))
}

/// `circuit_breakers.per_host_thresholds`: connections to one endpoint, by priority.
pub fn per_host(proto: &Option<cluster::CircuitBreakers>) -> Result<Option<[u32; 2]>> {
    let mut found = [None, None];
    let all = proto.iter().flat_map(|proto| &proto.per_host_thresholds);
    each("per_host_thresholds", all, |proto| {
        let priority: core::RoutingPriority = enumeration(proto.priority, "priority")?;
        let only = circuit_breakers::Thresholds {
            priority: proto.priority,
            max_connections: proto.max_connections,
            ..circuit_breakers::Thresholds::default()
        };
        refuse(
            *proto != only,
            "",
            "only max_connections is counted for each endpoint; put the others into thresholds",
        )?;
        let most = uint(&proto.max_connections).unwrap_or(u32::MAX);
        refuse(
            found[priority as usize].replace(most).is_some(),
            "priority",
            "is given twice",
        )
    })?;
    let none = found.iter().all(Option::is_none);
    Ok((!none).then(|| found.map(|most| most.unwrap_or(u32::MAX))))
}

fn thresholds(proto: &circuit_breakers::Thresholds) -> Result<Thresholds> {
    let unset = Thresholds::default();
    let budget = proto.retry_budget.as_ref().map(|budget| {
        let percent = budget.budget_percent.as_ref().map_or(20.0, |p| p.value);
        refuse(
            !(0.0..=100.0).contains(&percent),
            "budget_percent",
            "must be between 0 and 100",
        )?;
        Ok(RetryBudget {
            // The bounds make the cast exact up to the fraction.
            share: (percent * 100.0).round() as u32,
            least: uint(&budget.min_retry_concurrency).unwrap_or(unset.max_retries),
        })
    });
    Ok(Thresholds {
        max_connections: uint(&proto.max_connections).unwrap_or(unset.max_connections),
        max_pending_requests: uint(&proto.max_pending_requests)
            .unwrap_or(unset.max_pending_requests),
        max_requests: uint(&proto.max_requests).unwrap_or(unset.max_requests),
        max_retries: uint(&proto.max_retries).unwrap_or(unset.max_retries),
        retry_budget: budget.transpose().within("retry_budget")?,
        track_remaining: proto.track_remaining,
    })
}

/// `original_dst_lb_config` and `cleanup_interval`.
pub fn original_destination(proto: &cluster::Cluster) -> Result<OriginalDestination> {
    let unset = OriginalDestination::default();
    let forget_after = positive(&proto.cleanup_interval, "cleanup_interval")?;
    let forget_after = forget_after.unwrap_or(unset.forget_after);
    let Some(LbConfig::OriginalDstLbConfig(config)) = &proto.lb_config else {
        return Ok(OriginalDestination {
            forget_after,
            ..unset
        });
    };
    let built = || {
        let name = match config.http_header_name.as_str() {
            "" => DESTINATION_HEADER,
            name => name,
        };
        refuse(
            !config.use_http_header && !config.http_header_name.is_empty(),
            "http_header_name",
            "is only read where use_http_header is set",
        )?;
        let port = bounded(
            &config.upstream_port_override,
            0..=u32::from(u16::MAX),
            "upstream_port_override",
        )?;
        Ok(OriginalDestination {
            header: config
                .use_http_header
                .then(|| header_name(name, "http_header_name"))
                .transpose()?,
            port: port.and_then(|port| u16::try_from(port).ok()),
            forget_after,
        })
    };
    built().within("original_dst_lb_config")
}

/// `happy_eyeballs_config`
pub fn happy_eyeballs(proto: &cluster::Cluster) -> Result<HappyEyeballs> {
    let options = proto.upstream_connection_options.as_ref();
    let Some(config) = options.and_then(|options| options.happy_eyeballs_config.as_ref()) else {
        return Ok(HappyEyeballs::default());
    };
    let built = || {
        let field = "first_address_family_version";
        let version: FirstAddressFamilyVersion =
            enumeration(config.first_address_family_version, field)?;
        Ok(HappyEyeballs {
            v6_first: match version {
                FirstAddressFamilyVersion::Default => None,
                FirstAddressFamilyVersion::V4 => Some(false),
                FirstAddressFamilyVersion::V6 => Some(true),
                FirstAddressFamilyVersion::Pipe | FirstAddressFamilyVersion::Internal => {
                    return Err(ConfigError::new(
                        field,
                        "only DEFAULT, V4 and V6: an endpoint's addresses are all IP addresses",
                    ));
                }
            },
            first_count: bounded(
                &config.first_address_family_count,
                1..=u32::MAX,
                "first_address_family_count",
            )?
            .unwrap_or(1),
        })
    };
    built().within("upstream_connection_options.happy_eyeballs_config")
}

/// `BindConfig`: one address per family. `default` is `cluster_manager.upstream_bind_config`, whose
/// options hold where a cluster's own says nothing of them.
pub fn bind_config(proto: &core::BindConfig, default: Option<&BindConfig>) -> Result<BindConfig> {
    let extra = (
        &proto.extra_source_addresses,
        &proto.additional_source_addresses,
    );
    let mut problems = Problems::default();
    problems.take(refuse(
        !extra.0.is_empty() && !extra.1.is_empty(),
        "additional_source_addresses",
        "is the older form of extra_source_addresses; use only that one",
    ));
    let field = match extra.0.is_empty() {
        true => "additional_source_addresses",
        false => "extra_source_addresses",
    };
    let count = extra.0.len() + extra.1.len();
    problems.take(refuse(
        count > 0 && proto.source_address.is_none(),
        field,
        "needs a source_address",
    ));
    let too_many = refuse(count > 1, field, "one besides source_address is the most");
    problems.take(too_many);
    if let Some(selector) = &proto.local_address_selector {
        let any = required(&selector.typed_config, "typed_config");
        let row = any.and_then(|any| resolve(SELECTORS, "local address selector", any));
        problems.take(row.map(drop).within("local_address_selector"));
    }
    let options = problems.take(socket_option::build(
        &proto.socket_options,
        "socket_options",
    ));
    let mut bind = BindConfig {
        v4: None,
        v6: None,
        freebind: flag(&proto.freebind).unwrap_or(default.is_some_and(|default| default.freebind)),
        options: match default {
            Some(default) if options.is_empty() => default.options.clone(),
            _ => options,
        },
    };
    let mut add = |address: &core::SocketAddress, options| {
        let address = socket_address(address, true)?;
        let slot = if address.is_ipv4() {
            &mut bind.v4
        } else {
            &mut bind.v6
        };
        refuse(
            slot.replace(Source { address, options }).is_some(),
            "address",
            "there is another one of the same family",
        )
    };
    if let Some(source) = &proto.source_address {
        problems.take(add(source, None).within("source_address"));
    }
    problems.take(each("extra_source_addresses", extra.0, |extra| {
        let options = extra.socket_options.as_ref().map(|options| {
            let options = &options.socket_options;
            socket_option::build(options, "socket_options").within("socket_options")
        });
        add(required(&extra.address, "address")?, options.transpose()?).within("address")
    }));
    problems.take(each("additional_source_addresses", extra.1, |address| {
        add(address, None)
    }));
    problems.or(bind)
}

/// What `local_address_selector` may hold: the source is the one of the endpoint's family.
const SELECTORS: &[Extension<()>] = &[Extension {
    type_name: "envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector",
    build: (),
}];

/// `ProxyProtocolUpstreamTransport`, but for the transport socket in it.
pub fn proxy_protocol(proto: &ProxyProtocolUpstreamTransport) -> Result<ProxyProtocol> {
    proxy_header(&proto.config.clone().unwrap_or_default()).within("config")
}

/// `ProxyProtocolConfig`.
pub fn proxy_header(config: &core::ProxyProtocolConfig) -> Result<ProxyProtocol> {
    let version: core::proxy_protocol_config::Version = enumeration(config.version, "version")?;
    let tlvs = each("added_tlvs", &config.added_tlvs, |tlv| {
        let kind = u8::try_from(tlv.r#type)
            .map_err(|_| ConfigError::new("type", format_args!("{} is above 255", tlv.r#type)))?;
        Ok(Tlv {
            kind,
            value: tlv.value.as_slice().into(),
        })
    });
    let pass_through =
        listener_filter::pass_through(&config.pass_through_tlvs).within("pass_through_tlvs");
    let (tlvs, pass_through) = (tlvs, pass_through).together().within("config")?;
    let length: usize = tlvs.iter().map(Tlv::encoded_length).sum();
    refuse(
        length > MAX_TLVS,
        "config.added_tlvs",
        "are longer together than a header can hold",
    )?;
    Ok(ProxyProtocol {
        version: match version {
            core::proxy_protocol_config::Version::V1 => ProxyProtocolVersion::V1,
            core::proxy_protocol_config::Version::V2 => ProxyProtocolVersion::V2,
        },
        tlvs: tlvs.into(),
        pass_through,
    })
}

/// `connect_timeout` unless set.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
