//! Resources as they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Resources, Versioned};
use prost::{Message, Name};

use crate::registry::ObjectRef;

/// Resources by kind and name, and where they come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// CDS.
    pub clusters: Resources,
    /// EDS, by the cluster's name.
    pub endpoints: Resources,
    /// LDS.
    pub listeners: Resources,
    /// RDS.
    pub routes: Resources,
    /// The objects that a resource comes from, for what proxies say of it; the fixed ones have none.
    pub origins: Origins,
}

/// The objects that a resource comes from: several where routes of one port were put together.
pub type Origins = BTreeMap<(ResourceType, String), Arc<[ObjectRef]>>;

impl Translation {
    /// The resources of a kind; secrets and runtime layers are not the control plane's to send.
    pub fn kind(&self, kind: ResourceType) -> Option<&Resources> {
        match kind {
            ResourceType::Cluster => Some(&self.clusters),
            ResourceType::Endpoint => Some(&self.endpoints),
            ResourceType::Listener => Some(&self.listeners),
            ResourceType::Route => Some(&self.routes),
            ResourceType::Secret | ResourceType::Runtime => None,
        }
    }

    pub(super) fn kind_mut(&mut self, kind: ResourceType) -> Option<&mut Resources> {
        match kind {
            ResourceType::Cluster => Some(&mut self.clusters),
            ResourceType::Endpoint => Some(&mut self.endpoints),
            ResourceType::Listener => Some(&mut self.listeners),
            ResourceType::Route => Some(&mut self.routes),
            ResourceType::Secret | ResourceType::Runtime => None,
        }
    }

    /// Takes in what another translation has.
    pub(super) fn extend(&mut self, other: Self) {
        self.clusters.extend(other.clusters);
        self.endpoints.extend(other.endpoints);
        self.listeners.extend(other.listeners);
        self.routes.extend(other.routes);
        self.origins.extend(other.origins);
    }

    pub(super) fn add<M: Message + Name>(
        &mut self,
        kind: ResourceType,
        name: &str,
        message: &M,
        origin: Option<&ObjectRef>,
    ) {
        self.add_of(
            kind,
            name,
            message,
            origin.map_or(&[], std::slice::from_ref),
        );
    }

    pub(super) fn add_of<M: Message + Name>(
        &mut self,
        kind: ResourceType,
        name: &str,
        message: &M,
        origins: &[ObjectRef],
    ) {
        let Some(resources) = self.kind_mut(kind) else {
            return;
        };
        resources.insert(name.to_owned(), Versioned::new(kind, message));
        if !origins.is_empty() {
            self.origins.insert((kind, name.to_owned()), origins.into());
        }
    }
}

/// Wraps a message with its type.
pub(super) fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}
