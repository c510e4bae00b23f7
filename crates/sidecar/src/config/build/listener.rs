//! `Listener`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::address::Address as ProtoAddress;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use super::context::Context;
use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Within as _, each, enumeration, flag, refuse, required, socket_address, timeout, uint,
};
use super::filter_chain;
use crate::config::error::{ConfigError, Result};
use crate::config::listener::{FilterChain, Inspector, Listener, PortPredicate, TrafficDirection};
use crate::listener::filter_chain_match::FilterChainIndex;

/// `listener_filters_timeout` unless set.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

/// What a listener filter becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerFilter {
    /// Recovers where the client was going.
    OriginalDst,
    /// Looks for a ClientHello.
    TlsInspector,
    /// Looks for an HTTP request.
    HttpInspector,
}

/// Listener filters.
pub const LISTENER_FILTERS: &[Extension<Build<ListenerFilter>>] = &[
    Extension {
        type_name: "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        build: |_| Ok(ListenerFilter::OriginalDst),
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        build: |bytes| {
            let proto = decode::<TlsInspector>(bytes)?;
            refuse(
                proto.close_connection_on_client_hello_parsing_errors,
                "close_connection_on_client_hello_parsing_errors",
                "is not supported yet",
            )?;
            Ok(ListenerFilter::TlsInspector)
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        build: |_| Ok(ListenerFilter::HttpInspector),
    },
];

#[derive(Default)]
struct Filters {
    original_dst: bool,
    tls_inspector: Inspector,
    http_inspector: Inspector,
}

/// Builds a listener. `fingerprint` is that of the resource's bytes.
///
/// # Errors
///
/// The first field that is invalid, by its path.
pub fn build(
    proto: &listener::Listener,
    fingerprint: u64,
    context: &dyn Context,
) -> Result<Listener> {
    for (set, field) in [
        (flag(&proto.transparent), "transparent"),
        (flag(&proto.freebind), "freebind"),
    ] {
        refuse(set == Some(true), field, "is not supported yet")?;
    }
    let addresses = addresses(proto)?;
    let first = addresses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let direction: core::TrafficDirection =
        enumeration(proto.traffic_direction, "traffic_direction")?;
    let filter_chains = each(
        "filter_chains",
        proto.filter_chains.iter().enumerate(),
        |(index, chain)| filter_chain::build(chain, &index.to_string(), context).map(Arc::new),
    )?;
    let default_filter_chain = proto
        .default_filter_chain
        .as_ref()
        .map(|chain| filter_chain::build(chain, "default", context).map(Arc::new))
        .transpose()
        .within("default_filter_chain")?;
    refuse(
        filter_chains.is_empty() && default_filter_chain.is_none(),
        "filter_chains",
        "must hold a chain, unless there is a default_filter_chain",
    )?;
    let filters = listener_filters(&proto.listener_filters)?;
    let hand_over = flag(&proto.use_original_dst).unwrap_or(false);
    if filters.tls_inspector == Inspector::Absent && needs_tls_inspector(&filter_chains) {
        tracing::warn!(
            listener = proto.name,
            "has filter chains that match on TLS, which are never chosen without a tls_inspector"
        );
    }
    let bind = flag(&proto.bind_to_port);
    let older_bind = proto
        .deprecated_v1
        .as_ref()
        .and_then(|older| flag(&older.bind_to_port));
    Ok(Listener {
        name: match proto.name.as_str() {
            "" => first.as_str().into(),
            name => name.into(),
        },
        stat_prefix: match proto.stat_prefix.as_str() {
            // A colon would end the name in a statistic.
            "" => first.replace(':', "_").into(),
            prefix => prefix.into(),
        },
        addresses,
        bind_to_port: bind.or(older_bind).unwrap_or(true),
        hand_over,
        original_dst: filters.original_dst || hand_over,
        tls_inspector: filters.tls_inspector,
        http_inspector: filters.http_inspector,
        listener_filters_timeout: timeout(
            &proto.listener_filters_timeout,
            Some(LISTENER_FILTERS_TIMEOUT),
            "listener_filters_timeout",
        )?,
        continue_on_timeout: proto.continue_on_listener_filters_timeout,
        chains: index(&filter_chains, default_filter_chain.clone())?,
        filter_chains,
        default_filter_chain,
        direction: match direction {
            core::TrafficDirection::Unspecified => TrafficDirection::Unspecified,
            core::TrafficDirection::Inbound => TrafficDirection::Inbound,
            core::TrafficDirection::Outbound => TrafficDirection::Outbound,
        },
        backlog: uint(&proto.tcp_backlog_size),
        fingerprint,
    })
}

fn addresses(proto: &listener::Listener) -> Result<Vec<SocketAddr>> {
    let mut addresses = vec![address(&proto.address).within("address")?];
    addresses.extend(each(
        "additional_addresses",
        &proto.additional_addresses,
        |additional| address(&additional.address).within("address"),
    )?);
    Ok(addresses)
}

fn address(proto: &Option<core::Address>) -> Result<SocketAddr> {
    match proto.as_ref().and_then(|address| address.address.as_ref()) {
        Some(ProtoAddress::SocketAddress(socket)) => {
            socket_address(socket, true).within("socket_address")
        }
        Some(ProtoAddress::Pipe(_)) => Err(ConfigError::new(
            "pipe",
            "listeners on Unix sockets are not supported",
        )),
        Some(ProtoAddress::EnvoyInternalAddress(_)) => Err(ConfigError::new(
            "envoy_internal_address",
            "internal listeners are not supported",
        )),
        None => Err(ConfigError::new("socket_address", "must be set")),
    }
}

fn index(
    chains: &[Arc<FilterChain>],
    default: Option<Arc<FilterChain>>,
) -> Result<FilterChainIndex> {
    FilterChainIndex::new(chains, default).map_err(|conflict| {
        ConfigError::new(
            format_args!("filter_chains[{}].filter_chain_match", conflict.chain),
            format_args!(
                "matches the same connections as filter_chains[{}] (`{}`)",
                conflict.with, chains[conflict.with].name
            ),
        )
    })
}

fn needs_tls_inspector(chains: &[Arc<FilterChain>]) -> bool {
    chains.iter().any(|chain| {
        let matcher = &chain.matcher;
        match &*matcher.transport_protocol {
            "tls" => true,
            "" => !matcher.server_names.is_empty() || !matcher.application_protocols.is_empty(),
            _ => false,
        }
    })
}

fn listener_filters(proto: &[listener::ListenerFilter]) -> Result<Filters> {
    let mut filters = Filters::default();
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
        let extension = resolve(LISTENER_FILTERS, "listener filter", any)?;
        let built = (extension.build)(&any.value).within("typed_config")?;
        let disabled = filter
            .filter_disabled
            .as_ref()
            .map(predicate)
            .transpose()
            .within("filter_disabled")?;
        let inspector = match built {
            ListenerFilter::OriginalDst => {
                refuse(
                    disabled.is_some(),
                    "filter_disabled",
                    "is not supported for original_dst",
                )?;
                filters.original_dst = true;
                return Ok(());
            }
            ListenerFilter::TlsInspector => &mut filters.tls_inspector,
            ListenerFilter::HttpInspector => &mut filters.http_inspector,
        };
        refuse(
            *inspector != Inspector::Absent,
            "typed_config",
            "is configured twice",
        )?;
        *inspector = Inspector::Present { disabled };
        Ok(())
    })?;
    Ok(filters)
}

fn predicate(proto: &listener::ListenerFilterChainMatchPredicate) -> Result<PortPredicate> {
    Ok(match required(&proto.rule, "rule")? {
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
    })
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
