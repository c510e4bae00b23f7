//! The resources that a server has for a client.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use prost::Message;

use crate::ads::ResourceType;
use crate::pb::google::protobuf::Any;
use crate::transcode;

/// A resource with its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// A hash of the resource, so that what did not change is not sent again, not even by another
    /// server or after a restart.
    pub version: Arc<str>,
    /// The resource.
    pub body: Arc<Any>,
}

impl Versioned {
    /// A resource of a kind.
    #[must_use]
    pub fn new(resource_type: ResourceType, resource: &impl Message) -> Self {
        Self::encoded(resource_type, &resource.encode_to_vec())
    }

    /// A resource of a kind that is encoded already.
    #[must_use]
    pub fn encoded(resource_type: ResourceType, resource: &[u8]) -> Self {
        let value = transcode::canonicalize(resource_type.message_name(), resource);
        let mut hasher = DefaultHasher::new();
        hasher.write(&value);
        let type_url = resource_type.type_url().to_owned();
        Self {
            version: format!("{:016x}", hasher.finish()).into(),
            body: Arc::new(Any { type_url, value }),
        }
    }
}

/// The resources of one kind, by name.
pub type Resources = BTreeMap<String, Versioned>;

/// The resources of all kinds that a client may have. Kinds are shared: a set made from another one
/// with [`ResourceSet::with`] costs a pointer for each kind that did not change, and streams look
/// only at the kinds that did.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    version: String,
    kinds: [Arc<Resources>; ResourceType::ALL.len()],
}

impl ResourceSet {
    /// An empty set. `version` is for display.
    #[must_use]
    pub fn new(version: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            kinds: Default::default(),
        }
    }

    /// The same set with other resources of one kind.
    #[must_use]
    pub fn with(mut self, resource_type: ResourceType, resources: Arc<Resources>) -> Self {
        self.kinds[resource_type.index()] = resources;
        self
    }

    /// The same set under another version.
    #[must_use]
    pub fn versioned(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The resources of a kind.
    #[must_use]
    pub fn kind(&self, resource_type: ResourceType) -> &Arc<Resources> {
        &self.kinds[resource_type.index()]
    }
}
