//! One state-of-the-world stream for one kind of resource that is asked for by name (secrets).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Answer, ResourceSet, Versioned};
use crate::ads::ResourceType;
use crate::pb::envoy::config::core::v3::ControlPlane;
use crate::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

/// See the module.
#[derive(Debug)]
pub struct SotwStream {
    resource_type: ResourceType,
    identifier: String,
    set: Arc<ResourceSet>,
    names: Vec<String>,
    /// The version of the last response, or that the client has from an earlier stream.
    version: String,
    nonces: u64,
    unanswered: bool,
}

impl SotwStream {
    /// A new stream for resources of one kind.
    #[must_use]
    pub fn new(resource_type: ResourceType, identifier: &str, set: Arc<ResourceSet>) -> Self {
        Self {
            resource_type,
            identifier: identifier.to_owned(),
            set,
            names: Vec::new(),
            version: String::new(),
            nonces: 0,
            unanswered: false,
        }
    }

    /// A request came. Returns what the client says of an earlier response, if it says anything.
    pub fn on_request(&mut self, request: DiscoveryRequest) -> Option<Answer> {
        if !request.type_url.is_empty() && request.type_url != self.resource_type.type_url() {
            return None;
        }
        let first = self.nonces == 0 && request.response_nonce.is_empty();
        // A request that crossed with a response is out of date; the answer to that will follow.
        if !first && request.response_nonce != self.nonces.to_string() {
            return None;
        }
        if first && self.version.is_empty() {
            self.version.clone_from(&request.version_info);
        }
        let answered = std::mem::take(&mut self.unanswered);
        let answer = answered.then(|| Answer {
            resource_type: self.resource_type,
            version: self.version.clone(),
            names: self.names.clone(),
            refusal: request.error_detail.map(|status| status.message),
        });
        self.names = request.resource_names;
        self.names.sort();
        self.names.dedup();
        answer
    }

    /// The client may have these resources now.
    pub fn on_resources(&mut self, set: Arc<ResourceSet>) {
        self.set = set;
    }

    /// The response to send, if there is one. A resource that does not exist is waited for.
    pub fn next_response(&mut self) -> Option<DiscoveryResponse> {
        if self.unanswered {
            return None;
        }
        let all = self.set.kind(self.resource_type);
        let found: Vec<(&String, &Versioned)> = self
            .names
            .iter()
            .filter_map(|name| all.get_key_value(name))
            .collect();
        if found.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        for (name, resource) in &found {
            (name, &resource.version).hash(&mut hasher);
        }
        let version = format!("{:016x}", hasher.finish());
        // After a refusal too: what was refused is not sent again before it changes.
        if version == self.version {
            return None;
        }
        self.version.clone_from(&version);
        self.unanswered = true;
        self.nonces += 1;
        Some(DiscoveryResponse {
            version_info: version,
            resources: found
                .iter()
                .map(|(_, resource)| (*resource.body).clone())
                .collect(),
            type_url: self.resource_type.type_url().to_owned(),
            nonce: self.nonces.to_string(),
            control_plane: Some(ControlPlane {
                identifier: self.identifier.clone(),
            }),
            ..Default::default()
        })
    }
}
