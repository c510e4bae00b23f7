//! The xDS protocol: schema, YAML and JSON to proto and back, discovery clients and servers.
//!
//! Domain code of the sidecar and the control plane depends on this crate for everything that has
//! to do with Envoy's API as a protocol, and on [`pb`] for its messages.

pub mod ads;
pub mod certificate;
pub mod schema;
pub mod sds;
pub mod transcode;

/// Envoy's and xDS's messages, clients and servers.
pub use envoy_types::pb;
