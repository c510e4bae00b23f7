//! The server of discovery streams.

mod delta;
mod resources;
mod service;
mod sotw;
#[cfg(test)]
mod tests;

pub use delta::DeltaStream;
pub use resources::{KindResources, ResourceSet, Resources, Versioned};
pub use service::{Aggregated, Source, service};
pub(crate) use service::{first, stream_delta, stream_sotw};
pub use sotw::SotwStream;

use super::ResourceType;

/// How a stream goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Resources of a kind were sent, from this version of the set.
    Sent(ResourceType, String),
    /// The client said what it makes of them.
    Answered(Answer),
}

/// What a client said of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The kind of the resources.
    pub resource_type: ResourceType,
    /// The version of the set that the response was made from.
    pub version: String,
    /// Names of the resources that the response had.
    pub names: Vec<String>,
    /// Why the client refused some of them (its text names which), or `None` if it took them all.
    pub refusal: Option<String>,
}
