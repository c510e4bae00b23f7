//! `TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::UpstreamConnectMode;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use crate::config::build::access_log;
use crate::config::build::fields::{
    Together as _, Within as _, bounded, duration, each, enumeration, flag, named, one_of,
    positive, refuse, required, timeout, uint,
};
use crate::config::build::route_cluster::total_weight;
use crate::config::error::{ConfigError, Result};
use crate::config::tcp_proxy::{Backoff, ConnectMode, LogOptions, TcpProxy};

/// The shortest duration that a connection may be given, and interval in which it is logged.
const SHORTEST: Duration = Duration::from_millis(1);

/// Builds a TCP proxy.
pub fn build(proto: &tcp::TcpProxy) -> Result<TcpProxy> {
    let (prefix, (clusters, total_weight), idle_timeout, attempts, backoff, mode, access_log) = (
        named(&proto.stat_prefix, "stat_prefix"),
        clusters(proto),
        timeout(&proto.idle_timeout, None, "idle_timeout"),
        bounded(
            &proto.max_connect_attempts,
            1..=u32::MAX,
            "max_connect_attempts",
        ),
        proto
            .backoff_options
            .as_ref()
            .map(|options| backoff(options).within("backoff_options"))
            .transpose(),
        connect_mode(proto),
        access_log::build(&proto.access_log),
    )
        .together()?;
    let jitter = proto
        .max_downstream_connection_duration_jitter_percentage
        .as_ref()
        .map_or(0.0, |percent| percent.value);
    let (max_duration, log_options, _) = (
        at_least_a_millisecond(
            &proto.max_downstream_connection_duration,
            "max_downstream_connection_duration",
        ),
        log_options(proto),
        refuse(
            !(0.0..=100.0).contains(&jitter),
            "max_downstream_connection_duration_jitter_percentage",
            "must be between 0 and 100",
        ),
    )
        .together()?;
    let tunnel = proto
        .tunneling_config
        .as_ref()
        .map(|tunnel| super::tunnel::build(tunnel).within("tunneling_config"))
        .transpose()?;
    Ok(TcpProxy {
        stat_prefix: prefix.into(),
        clusters,
        total_weight,
        idle_timeout,
        max_duration,
        max_duration_jitter: jitter,
        max_connect_attempts: attempts.unwrap_or(1),
        backoff,
        connect_mode: mode,
        tunnel,
        check_drain_close: flag(&proto.check_drain_close).unwrap_or(false),
        access_log,
        log_options,
    })
}

type Clusters = (Vec<(Arc<str>, u32)>, u32);

fn clusters(proto: &tcp::TcpProxy) -> Result<Clusters> {
    let clusters = match one_of::<tcp::TcpProxy, _>(&proto.cluster_specifier, "cluster")? {
        ClusterSpecifier::Cluster(name) => vec![(named(name, "cluster")?.into(), 1)],
        ClusterSpecifier::WeightedClusters(weighted) => {
            each("clusters", &weighted.clusters, |part| {
                let (name, _) = (
                    named(&part.name, "name"),
                    refuse(part.weight == 0, "weight", "must be above zero"),
                )
                    .together()?;
                Ok((name.into(), part.weight))
            })
            .within("weighted_clusters")?
        }
    };
    let weights = clusters.iter().map(|(_, weight)| *weight);
    let total = total_weight(weights, "weighted_clusters.clusters")?;
    Ok((clusters, total))
}

fn backoff(proto: &core::BackoffStrategy) -> Result<Backoff> {
    let (base, most) = (
        at_least_a_millisecond(&proto.base_interval, "base_interval")
            .and_then(|base| required(&base, "base_interval").copied()),
        positive(&proto.max_interval, "max_interval"),
    )
        .together()?;
    refuse(
        most.is_some_and(|most| most < base),
        "max_interval",
        "must not be below base_interval",
    )?;
    Ok(Backoff {
        base,
        most: most.unwrap_or(base.saturating_mul(10)),
    })
}

fn connect_mode(proto: &tcp::TcpProxy) -> Result<ConnectMode> {
    let most = uint(&proto.max_early_data_bytes);
    let mode = enumeration(proto.upstream_connect_mode, "upstream_connect_mode")?;
    refuse(
        mode != UpstreamConnectMode::Immediate && most.is_none(),
        "max_early_data_bytes",
        "must be set where upstream_connect_mode is not IMMEDIATE",
    )?;
    Ok(match (mode, most) {
        (UpstreamConnectMode::OnDownstreamData, Some(most)) => ConnectMode::OnData { most },
        _ => ConnectMode::AtOnce,
    })
}

/// `access_log_options`, or the older fields; both at once contradict each other.
fn log_options(proto: &tcp::TcpProxy) -> Result<LogOptions> {
    let older = "is set beside access_log_options, which replaces it";
    match &proto.access_log_options {
        None => Ok(LogOptions {
            interval: at_least_a_millisecond(
                &proto.access_log_flush_interval,
                "access_log_flush_interval",
            )?,
            on_start: false,
            on_connected: proto.flush_access_log_on_connected,
        }),
        Some(options) => {
            let (interval, ..) = (
                at_least_a_millisecond(
                    &options.access_log_flush_interval,
                    "access_log_flush_interval",
                )
                .within("access_log_options"),
                refuse(
                    proto.access_log_flush_interval.is_some(),
                    "access_log_flush_interval",
                    older,
                ),
                refuse(
                    proto.flush_access_log_on_connected,
                    "flush_access_log_on_connected",
                    older,
                ),
            )
                .together()?;
            Ok(LogOptions {
                interval,
                on_start: options.flush_access_log_on_start,
                on_connected: options.flush_access_log_on_connected,
            })
        }
    }
}

fn at_least_a_millisecond(
    value: &Option<envoy_types::pb::google::protobuf::Duration>,
    field: &str,
) -> Result<Option<Duration>> {
    match duration(value, field)? {
        Some(value) if value < SHORTEST => Err(ConfigError::new(field, "must be at least 1 ms")),
        value => Ok(value),
    }
}
