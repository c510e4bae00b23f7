//! The discovery protocol: streams over which a server tells a client its resources.
//!
//! The machines in here do no I/O: [`client::Session`] is one stream seen by the client,
//! [`server::DeltaStream`] and [`server::SotwStream`] are one seen by the server. Thin drivers
//! connect them to tonic.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>.

pub mod client;
mod resource_type;
pub mod server;

pub use resource_type::ResourceType;

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";
