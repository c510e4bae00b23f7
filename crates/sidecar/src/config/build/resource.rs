//! From a resource's bytes, as a control plane sends them, to its value: every set field is looked
//! at, so that none is skipped in silence, and then the resource is built.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use envoy_types::pb::envoy::config::cluster::v3 as cluster_proto;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_proto;
use envoy_types::pb::envoy::config::listener::v3 as listener_proto;
use envoy_types::pb::envoy::config::route::v3 as route_proto;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_proto;
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use outrider_xds::transcode::{self, Fault, Violation};
use prost::{Message, Name};

use super::context::Context;
use super::fields::fingerprint;
use super::secret::Built;
use crate::config::cluster::Cluster;
use crate::config::endpoint::LoadAssignment;
use crate::config::error::{ConfigError, Problems, Result};
use crate::config::listener::Listener;
use crate::config::route::RouteTable;
use crate::runtime_layer::layers;
use crate::runtime_layer::store::Values;

/// What is let through that is refused otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// Fields that are not supported: `--allow-unsupported`.
    pub unsupported: bool,
    /// Fields that do not exist: `--ignore-unknown-dynamic-fields`.
    pub unknown: bool,
}

/// The leniency of this process, which its command line says before anything is built.
pub static LENIENCY: OnceLock<Leniency> = OnceLock::new();

/// Builds a `Listener`.
///
/// # Errors
///
/// All fields that are not supported, and those that are invalid. So it is for all kinds.
pub fn listener(bytes: &[u8], context: &dyn Context) -> Result<Listener> {
    checked_and(bytes, |proto: listener_proto::Listener| {
        super::listener::build(&proto, fingerprint(bytes), context)
    })
}

/// Builds a `RouteConfiguration`.
///
/// # Errors
///
/// As [`listener`].
pub fn route_table(bytes: &[u8], context: &dyn Context) -> Result<RouteTable> {
    checked_and(bytes, |proto: route_proto::RouteConfiguration| {
        super::route::build(&proto, fingerprint(bytes), context, false)
    })
}

/// Builds a `Cluster`.
///
/// # Errors
///
/// As [`listener`].
pub fn cluster(bytes: &[u8], context: &dyn Context) -> Result<Cluster> {
    checked_and(bytes, |proto: cluster_proto::Cluster| {
        super::cluster::build(&proto, fingerprint(bytes), context)
    })
}

/// Builds a `ClusterLoadAssignment`.
///
/// # Errors
///
/// As [`listener`].
pub fn load_assignment(bytes: &[u8]) -> Result<LoadAssignment> {
    checked_and(bytes, |proto: endpoint_proto::ClusterLoadAssignment| {
        super::endpoint::build(&proto)
    })
}

/// Builds the values of a `Runtime`.
///
/// # Errors
///
/// As [`listener`].
pub fn runtime_layer(bytes: &[u8]) -> Result<Values> {
    checked_and(bytes, |proto: Runtime| layers::values(&proto))
}

/// Builds a `Secret`.
///
/// # Errors
///
/// As [`listener`].
pub fn secret(bytes: &[u8]) -> Result<Built> {
    checked_and(bytes, |proto: tls_proto::Secret| {
        super::secret::build(&proto)
    })
}

/// Builds from a message of which every set field is acted on, or known to be safe to leave alone.
///
/// # Errors
///
/// All fields that are not, and what is wrong with the values of the others.
pub fn checked_and<M: Message + Name + Default, T>(
    bytes: &[u8],
    build: impl FnOnce(M) -> Result<T>,
) -> Result<T> {
    let type_name = M::full_name();
    let leniency = LENIENCY.get().copied().unwrap_or_default();
    let report = transcode::inspect(&type_name, bytes);
    for field in report.ignored {
        told(&type_name, &field.path, field.reason);
    }
    let mut problems = Problems::default();
    for Violation {
        fault,
        path,
        reason,
    } in report.violations
    {
        let lenient = match fault {
            Fault::Unsupported => leniency.unsupported,
            Fault::Unknown => leniency.unknown,
            Fault::Invalid => false,
        };
        if lenient {
            warned(&type_name, &path, &reason);
        } else {
            problems.add(ConfigError::new(path, reason));
        }
    }
    let malformed = |error| ConfigError::new("", format_args!("malformed: {error}"));
    match M::decode(bytes).map_err(malformed).and_then(build) {
        Ok(built) => problems.into_error().map(|()| built),
        Err(error) => {
            problems.add(error);
            problems.into_error()?;
            Err(ConfigError::new("", "cannot be built"))
        }
    }
}

/// What was said in the life of the process: once is enough.
fn is_new(type_name: &str, what: &str) -> bool {
    static TOLD: LazyLock<Mutex<HashSet<(String, String)>>> = LazyLock::new(Mutex::default);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.insert((type_name.to_owned(), what.to_owned()))
}

/// Says that a kind of field is left alone.
fn told(type_name: &str, path: &str, reason: &'static str) {
    // What the bootstrap holds is looked at as a part of it and by itself: the field is the same.
    let field = path.rsplit('.').next().unwrap_or(path);
    if is_new(field, reason) {
        tracing::info!(
            r#type = type_name,
            field = path,
            reason,
            "left a field alone"
        );
    }
}

/// Says that a field is left alone that would be refused but for the command line.
pub fn warned(type_name: &str, path: &str, reason: &str) {
    if is_new(type_name, path) {
        tracing::warn!(
            r#type = type_name,
            field = path,
            reason,
            "left a field alone, as the command line says; what it asks for is not done"
        );
    }
}
