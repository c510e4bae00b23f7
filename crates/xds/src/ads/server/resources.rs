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

/// The resources of one kind that a client may have: those that it shares with others, and its own,
/// which come before shared ones of the same name. A thousand clients hold what they share once.
#[derive(Clone, Debug, Default)]
pub struct KindResources {
    shared: Arc<Resources>,
    own: Arc<Resources>,
}

impl KindResources {
    /// Whether they are the very same, so that there is nothing to look at.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && Arc::ptr_eq(&self.own, &other.own)
    }

    /// The client's own.
    #[must_use]
    pub fn own(&self) -> &Arc<Resources> {
        &self.own
    }

    /// A resource.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Versioned> {
        self.get_key_value(name).map(|(_, resource)| resource)
    }

    /// A resource with its name.
    #[must_use]
    pub fn get_key_value(&self, name: &str) -> Option<(&String, &Versioned)> {
        let own = self.own.get_key_value(name);
        own.or_else(|| self.shared.get_key_value(name))
    }

    /// Whether there is a resource of a name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get_key_value(name).is_some()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Versioned)> {
        let shared = self.shared.iter();
        let mut shared = shared
            .filter(|(name, _)| !self.own.contains_key(*name))
            .peekable();
        let mut own = self.own.iter().peekable();
        std::iter::from_fn(move || match (own.peek(), shared.peek()) {
            (Some((mine, _)), Some((other, _))) if mine > other => shared.next(),
            (Some(_), _) => own.next(),
            (None, _) => shared.next(),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }
}

/// The resources of all kinds that a client may have. Kinds are shared: a set made from another one
/// with [`ResourceSet::with`] costs a pointer for each kind that did not change, and streams look
/// only at the kinds that did.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    version: String,
    kinds: [KindResources; ResourceType::ALL.len()],
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
    pub fn with(self, resource_type: ResourceType, resources: Arc<Resources>) -> Self {
        self.with_own(resource_type, resources, Arc::default())
    }

    /// The same set with other resources of one kind, some of which are the client's own.
    #[must_use]
    pub fn with_own(
        mut self,
        resource_type: ResourceType,
        shared: Arc<Resources>,
        own: Arc<Resources>,
    ) -> Self {
        self.kinds[resource_type.index()] = KindResources { shared, own };
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
    pub fn kind(&self, resource_type: ResourceType) -> &KindResources {
        &self.kinds[resource_type.index()]
    }
}
