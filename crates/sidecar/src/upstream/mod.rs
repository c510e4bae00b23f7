//! The way to the endpoints: which one, and on which connection.
//!
//! [`Clusters`] belongs to a worker, and so does everything below it but [`shared`]: a request asks
//! its [`Cluster`] for an exchange, the balancer ([`lb`]) chooses an endpoint, and the endpoint's
//! [`pool`] hands out an exchange on one of its connections.

mod aggregate;
pub mod breakers;
mod client;
mod cluster;
mod clusters;
pub mod connect;
mod datagrams;
mod endpoints;
mod error;
pub mod exchange;
mod eyeballs;
mod host;
mod lb;
mod names;
mod pool;
pub mod proxy_protocol;
pub mod shared;
mod stats;
mod target;
#[cfg(test)]
mod tests;
mod zoning;

pub use breakers::Permit;
pub use client::{Client, OriginalSource};
pub use cluster::{Cluster, ConnectRequest, ExchangeRequest, TcpUpstream};
pub use clusters::Clusters;
pub use datagrams::DatagramStats;
pub use error::UpstreamError;
pub use stats::code_name;
pub use target::{Target, transport_of};
