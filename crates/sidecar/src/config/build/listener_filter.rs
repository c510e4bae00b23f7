//! Listener filters.

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use envoy_types::pb::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use envoy_types::pb::envoy::extensions::filters::listener::local_ratelimit::v3 as limit;
use envoy_types::pb::envoy::extensions::filters::listener::original_src::v3 as original_src;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3 as proxy;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::proxy_protocol::TlvLocation;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::proxy_protocol::key_value_pair::ValueStringEncoding;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, bounded, each, enumeration, flag, named, one_of, refuse, required,
};
use super::network::local_ratelimit::refill;
use crate::config::error::{ConfigError, Result};
use crate::config::listener_filter::{
    FilterKind, ListenerFilter, PassThrough, PortPredicate, ProxyProtocol, TlsInspector, TlvRule,
};
use crate::config::network::LocalRateLimit;
use crate::network::token_bucket::TokenBucket;
use crate::runtime_layer;

/// Where TLVs go unless a rule names another namespace.
const PROXY_PROTOCOL: &str = "envoy.filters.listener.proxy_protocol";

/// `max_client_hello_size` unless set.
const LONGEST_HELLO: usize = 16 << 10;

/// Listener filters.
pub const LISTENER_FILTERS: &[Extension<Build<FilterKind>>] = &[
    Extension {
        type_name: "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        build: |_| Ok(FilterKind::OriginalDst),
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
        build: |bytes| {
            let proto = decode::<original_src::OriginalSrc>(bytes)?;
            Ok(FilterKind::OriginalSrc(proto.mark))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit",
        build: |bytes| rate_limit(&decode(bytes)?).map(FilterKind::LocalRateLimit),
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        build: |bytes| {
            let built = proxy_protocol(&decode::<proxy::ProxyProtocol>(bytes)?)?;
            Ok(FilterKind::ProxyProtocol(Arc::new(built)))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        build: |bytes| tls_inspector(&decode(bytes)?).map(FilterKind::TlsInspector),
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        build: |_| Ok(FilterKind::HttpInspector),
    },
];

/// Builds `listener_filters`.
///
/// # Errors
/// The fields that are invalid.
pub fn build(proto: &[listener::ListenerFilter]) -> Result<Vec<ListenerFilter>> {
    each("listener_filters", proto, |filter| {
        let any = match required(&filter.config_type, "typed_config")? {
            ConfigType::TypedConfig(any) => any,
            ConfigType::ConfigDiscovery(_) => {
                return Err(ConfigError::new(
                    "config_discovery",
                    "extension discovery (ECDS) is not supported",
                ));
            }
        };
        let (kind, disabled) = (
            resolve(LISTENER_FILTERS, "listener filter", any)
                .and_then(|extension| (extension.build)(&any.value).within("typed_config")),
            filter
                .filter_disabled
                .as_ref()
                .map(predicate)
                .transpose()
                .within("filter_disabled"),
        )
            .together()?;
        Ok(ListenerFilter { disabled, kind })
    })
}

fn rate_limit(proto: &limit::LocalRateLimit) -> Result<Arc<LocalRateLimit>> {
    let (prefix, refill, enabled) = (
        named(&proto.stat_prefix, "stat_prefix"),
        required(&proto.token_bucket, "token_bucket")
            .and_then(|bucket| refill(bucket).within("token_bucket")),
        proto
            .runtime_enabled
            .as_ref()
            .map(runtime_layer::flag)
            .transpose()
            .within("runtime_enabled"),
    )
        .together()?;
    Ok(Arc::new(LocalRateLimit {
        stat_prefix: prefix.into(),
        enabled,
        bucket: Arc::new(TokenBucket::new(refill, Instant::now())),
    }))
}

fn tls_inspector(proto: &tls::TlsInspector) -> Result<TlsInspector> {
    let largest = bounded(
        &proto.max_client_hello_size,
        256..=16_384,
        "max_client_hello_size",
    )?;
    Ok(TlsInspector {
        ja3: flag(&proto.enable_ja3_fingerprinting).unwrap_or(false),
        ja4: flag(&proto.enable_ja4_fingerprinting).unwrap_or(false),
        max_hello: largest.map_or(LONGEST_HELLO, |largest| largest as usize),
        close_on_error: proto.close_connection_on_client_hello_parsing_errors,
    })
}

fn proxy_protocol(proto: &proxy::ProxyProtocol) -> Result<ProxyProtocol> {
    let (rules, pass_through, disallowed, location) = (
        each("rules", &proto.rules, rule),
        pass_through(&proto.pass_through_tlvs).within("pass_through_tlvs"),
        each(
            "disallowed_versions",
            &proto.disallowed_versions,
            |version| enumeration::<Version>(*version, ""),
        ),
        enumeration::<TlvLocation>(proto.tlv_location, "tlv_location"),
    )
        .together()?;
    Ok(ProxyProtocol {
        stat_prefix: proto.stat_prefix.as_str().into(),
        rules,
        into_filter_state: location == TlvLocation::FilterState,
        optional: proto.allow_requests_without_proxy_protocol,
        pass_through,
        v1_disallowed: disallowed.contains(&Version::V1),
        v2_disallowed: disallowed.contains(&Version::V2),
    })
}

fn rule(proto: &proxy::proxy_protocol::Rule) -> Result<TlvRule> {
    let pair = required(&proto.on_tlv_present, "on_tlv_present")?;
    let (kind, key, encoding) = (
        tlv_type(proto.tlv_type, "tlv_type"),
        named(&pair.key, "on_tlv_present.key"),
        enumeration::<ValueStringEncoding>(
            pair.value_string_encoding,
            "on_tlv_present.value_string_encoding",
        ),
    )
        .together()?;
    Ok(TlvRule {
        kind,
        namespace: match pair.metadata_namespace.as_str() {
            "" => PROXY_PROTOCOL.into(),
            namespace => namespace.into(),
        },
        key: key.into(),
        base64: encoding == ValueStringEncoding::Base64,
    })
}

/// `ProxyProtocolPassThroughTLVs`.
pub fn pass_through(proto: &Option<core::ProxyProtocolPassThroughTlVs>) -> Result<PassThrough> {
    let Some(proto) = proto else {
        return Ok(PassThrough::None);
    };
    Ok(match enumeration(proto.match_type, "match_type")? {
        PassTlVsMatchType::IncludeAll => PassThrough::All,
        PassTlVsMatchType::Include => {
            let kinds = each("tlv_type", &proto.tlv_type, |kind| tlv_type(*kind, ""))?;
            PassThrough::Some(kinds)
        }
    })
}

fn tlv_type(kind: u32, field: &str) -> Result<u8> {
    u8::try_from(kind).map_err(|_| ConfigError::new(field, format_args!("{kind} is more than 255")))
}

fn predicate(proto: &listener::ListenerFilterChainMatchPredicate) -> Result<PortPredicate> {
    Ok(
        match one_of::<listener::ListenerFilterChainMatchPredicate, _>(&proto.rule, "any_match")? {
            Rule::AnyMatch(_) => PortPredicate::Any,
            Rule::DestinationPortRange(range) => {
                refuse(
                    range.start >= range.end,
                    "destination_port_range",
                    "is empty: start must be below end, which is not part of it",
                )?;
                PortPredicate::Range(range.start, range.end)
            }
            Rule::NotMatch(inner) => {
                PortPredicate::Not(Box::new(predicate(inner).within("not_match")?))
            }
            Rule::AndMatch(set) => {
                PortPredicate::All(each("rules", &set.rules, predicate).within("and_match")?)
            }
            Rule::OrMatch(set) => {
                PortPredicate::Either(each("rules", &set.rules, predicate).within("or_match")?)
            }
        },
    )
}
