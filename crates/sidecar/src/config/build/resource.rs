//! From a resource's bytes, as a control plane sends them, to its value: every set field is looked
//! at, so that none is skipped in silence, and then the resource is built.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use envoy_types::pb::envoy::config::cluster::v3 as cluster_proto;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_proto;
use envoy_types::pb::envoy::config::listener::v3 as listener_proto;
use envoy_types::pb::envoy::config::route::v3 as route_proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_proto;
use outrider_xds::transcode;
use prost::{Message, Name};

use super::context::Context;
use super::fields::fingerprint;
use super::secret::Built;
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::error::{ConfigError, Result};
use crate::config::listener::Listener;
use crate::config::route::RouteTable;

/// Builds a `Listener`.
///
/// # Errors
///
/// The fields that are not supported, or the first that is invalid. So it is for all kinds.
pub fn listener(bytes: &[u8], context: &dyn Context) -> Result<Listener> {
    let proto = checked::<listener_proto::Listener>(bytes)?;
    super::listener::build(&proto, fingerprint(bytes), context)
}

/// Builds a `RouteConfiguration`.
///
/// # Errors
///
/// As [`listener`].
pub fn route_table(bytes: &[u8]) -> Result<RouteTable> {
    let proto = checked::<route_proto::RouteConfiguration>(bytes)?;
    super::route::build(&proto, fingerprint(bytes))
}

/// Builds a `Cluster`.
///
/// # Errors
///
/// As [`listener`].
pub fn cluster(bytes: &[u8], context: &dyn Context) -> Result<Cluster> {
    let proto = checked::<cluster_proto::Cluster>(bytes)?;
    super::cluster::build(&proto, fingerprint(bytes), context)
}

/// Builds a `ClusterLoadAssignment`.
///
/// # Errors
///
/// As [`listener`].
pub fn load_assignment(bytes: &[u8]) -> Result<LoadAssignment> {
    super::endpoint::build(&checked::<endpoint_proto::ClusterLoadAssignment>(bytes)?)
}

/// Builds a `Secret`.
///
/// # Errors
///
/// As [`listener`].
pub fn secret(bytes: &[u8]) -> Result<Built> {
    super::secret::build(&checked::<tls_proto::Secret>(bytes)?)
}

/// Decodes a message of which every set field is acted on, or known to be safe to leave alone.
///
/// # Errors
///
/// All fields that are not.
pub fn checked<M: Message + Name + Default>(bytes: &[u8]) -> Result<M> {
    let type_name = M::full_name();
    let ignored = transcode::check(&type_name, bytes).map_err(|violations| {
        let each = violations
            .into_iter()
            .map(|violation| ConfigError::new(violation.path, violation.reason));
        each.reduce(ConfigError::and)
            .unwrap_or_else(|| ConfigError::new("", "malformed"))
    })?;
    for field in ignored {
        told(&type_name, &field.path, field.reason);
    }
    M::decode(bytes).map_err(|error| ConfigError::new("", format_args!("malformed: {error}")))
}

/// Says once in the life of the process that a kind of field is left alone.
fn told(type_name: &str, path: &str, reason: &'static str) {
    static TOLD: LazyLock<Mutex<HashSet<(String, &'static str)>>> = LazyLock::new(Mutex::default);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.insert((type_name.to_owned(), reason)) {
        tracing::info!(
            r#type = type_name,
            field = path,
            reason,
            "left a field alone"
        );
    }
}
