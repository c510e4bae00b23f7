//! `ConnectionLimit`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3 as proto;

use crate::config::build::fields::{Together as _, Within as _, duration, named, refuse, required};
use crate::config::error::Result;
use crate::config::network::ConnectionLimit;
use crate::network::connection_limit::OpenConnections;
use crate::runtime_layer;

/// Builds a connection limit.
pub fn build(proto: &proto::ConnectionLimit) -> Result<ConnectionLimit> {
    let most = required(&proto.max_connections, "max_connections").and_then(|most| {
        refuse(most.value == 0, "max_connections", "must be above zero")?;
        Ok(most.value)
    });
    let enabled = proto
        .runtime_enabled
        .as_ref()
        .map(runtime_layer::flag)
        .transpose()
        .within("runtime_enabled");
    let (prefix, max_connections, delay, enabled) = (
        named(&proto.stat_prefix, "stat_prefix"),
        most,
        duration(&proto.delay, "delay"),
        enabled,
    )
        .together()?;
    Ok(ConnectionLimit {
        stat_prefix: prefix.into(),
        max_connections,
        delay: delay.filter(|delay| !delay.is_zero()),
        enabled,
        open: Arc::new(OpenConnections::default()),
    })
}
