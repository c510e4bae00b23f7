//! `Listener`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener::DrainType;
use envoy_types::pb::google::protobuf::{self, Any};
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;

use super::context::Context;
use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, each, enumeration, flag, named, refuse, timeout, uint,
};
use super::{access_log, filter_chain, listener_address, listener_filter, matching, udp};
use crate::config::error::{ConfigError, Result};
use crate::config::listener::{FilterChain, Listener, TrafficDirection};
use crate::config::listener_filter::{FilterKind, ListenerFilter};
use crate::listener::filter_chain_match::FilterChainIndex;
use crate::matching::Tree;
use crate::runtime_layer;

/// `listener_filters_timeout` unless set.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

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
    let direction = direction(proto);
    let is_udp = udp::is_udp(&proto.address);
    let has_chain =
        is_udp || !proto.filter_chains.is_empty() || proto.default_filter_chain.is_some();
    let (
        addresses,
        direction,
        drain_type,
        filter_chains,
        default_filter_chain,
        filters,
        timeout,
        access_log,
        udp,
        (),
    ) = (
        listener_address::build(
            proto,
            *direction.as_ref().unwrap_or(&TrafficDirection::Unspecified),
        ),
        direction,
        enumeration::<DrainType>(proto.drain_type, "drain_type"),
        each(
            "filter_chains",
            proto.filter_chains.iter().enumerate(),
            |(index, chain)| filter_chain::build(chain, &index.to_string(), context).map(Arc::new),
        ),
        proto
            .default_filter_chain
            .as_ref()
            .map(|chain| filter_chain::build(chain, "default", context).map(Arc::new))
            .transpose()
            .within("default_filter_chain"),
        match is_udp {
            true => Ok(Vec::new()),
            false => listener_filter::build(&proto.listener_filters),
        },
        timeout(
            &proto.listener_filters_timeout,
            Some(LISTENER_FILTERS_TIMEOUT),
            "listener_filters_timeout",
        ),
        access_log::build(&proto.access_log),
        udp::build(proto),
        refuse(
            !has_chain,
            "filter_chains",
            "must hold a chain, unless there is a default_filter_chain",
        ),
    )
        .together()?;
    let first = addresses.first().map(|first| first.address.to_string());
    let first = first.unwrap_or_default();
    let hand_over = flag(&proto.use_original_dst).unwrap_or(false);
    let mut filters = filters;
    let is_original_dst = |f: &ListenerFilter| matches!(f.kind, FilterKind::OriginalDst);
    if hand_over && !filters.iter().any(is_original_dst) {
        let kind = FilterKind::OriginalDst;
        filters.insert(
            0,
            ListenerFilter {
                disabled: None,
                kind,
            },
        );
    }
    let inspects_tls = |f: &ListenerFilter| matches!(f.kind, FilterKind::TlsInspector(_));
    if !filters.iter().any(inspects_tls) && needs_tls_inspector(&filter_chains) {
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
    let name = match proto.name.as_str() {
        "" => first.as_str(),
        name => name,
    };
    let limit = format!("envoy.resource_limits.listener.{name}.connection_limit");
    Ok(Listener {
        name: name.into(),
        stat_prefix: match proto.stat_prefix.as_str() {
            // A colon would end the name in a statistic.
            "" => first.replace(':', "_").into(),
            prefix => prefix.into(),
        },
        addresses,
        bind_to_port: bind.or(older_bind).unwrap_or(true),
        hand_over,
        udp: udp.map(Box::new),
        filters,
        listener_filters_timeout: timeout,
        continue_on_timeout: proto.continue_on_listener_filters_timeout,
        chains: match &proto.filter_chain_matcher {
            None => index(&filter_chains, default_filter_chain.clone())?,
            Some(matcher) => FilterChainIndex::by_matcher(
                chain_matcher(matcher, proto, &filter_chains)?,
                default_filter_chain.clone(),
            ),
        },
        filter_chains,
        default_filter_chain,
        direction,
        access_log,
        // A zero turns Envoy's limit off.
        buffer_limit: uint(&proto.per_connection_buffer_limit_bytes).filter(|limit| *limit > 0),
        accept_at_once: uint(&proto.max_connections_to_accept_per_socket_event),
        connection_limit: runtime_layer::number_at(&limit, u32::MAX),
        ignores_global_limit: proto.ignore_global_conn_limit,
        bypasses_overload: proto.bypass_overload_manager,
        drains_when_unhealthy: drain_type == DrainType::Default,
        fingerprint,
    })
}

fn direction(proto: &listener::Listener) -> Result<TrafficDirection> {
    let direction = enumeration(proto.traffic_direction, "traffic_direction")?;
    Ok(match direction {
        core::TrafficDirection::Unspecified => TrafficDirection::Unspecified,
        core::TrafficDirection::Inbound => TrafficDirection::Inbound,
        core::TrafficDirection::Outbound => TrafficDirection::Outbound,
    })
}

/// `filter_chain_matcher`: its actions are the names of chains.
fn chain_matcher(
    matcher: &Matcher,
    proto: &listener::Listener,
    chains: &[Arc<FilterChain>],
) -> Result<Tree<Arc<FilterChain>>> {
    const NAME: &[Extension<Build<String>>] = &[Extension {
        type_name: "google.protobuf.StringValue",
        build: |bytes| decode::<protobuf::StringValue>(bytes).map(|name| name.value),
    }];
    let checked = each("filter_chains", &proto.filter_chains, |chain| {
        named(&chain.name, "name")?;
        refuse(
            chain.filter_chain_match.is_some(),
            "filter_chain_match",
            "decides nothing beside the listener's filter_chain_matcher",
        )
    });
    let mut action = |any: &Any| {
        let extension = resolve(NAME, "action of a filter chain matcher", any)?;
        let name = (extension.build)(&any.value)?;
        let chain = chains.iter().find(|chain| *chain.name == *name);
        chain.cloned().ok_or_else(|| {
            ConfigError::new("value", format_args!("there is no filter chain `{name}`"))
        })
    };
    let tree =
        matching::build(matcher, matching::CONNECTION, &mut action).within("filter_chain_matcher");
    let (_, tree) = (checked, tree).together()?;
    Ok(tree)
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

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
