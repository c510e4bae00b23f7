//! Resources as they are sent.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::registry::ObjectRef;

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The message.
    pub body: Any,
    /// Changes when, and only when, the message does.
    pub version: String,
    /// The object that it comes from, for what proxies say of it; none for the fixed ones.
    pub origin: Option<ObjectRef>,
}

/// All resources of one proxy, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSet {
    /// CDS.
    pub clusters: BTreeMap<String, Resource>,
    /// EDS, by the cluster's name.
    pub endpoints: BTreeMap<String, Resource>,
    /// LDS.
    pub listeners: BTreeMap<String, Resource>,
    /// RDS.
    pub routes: BTreeMap<String, Resource>,
}

impl Resource {
    pub(super) fn new<M: Message + Name>(message: &M, origin: Option<&ObjectRef>) -> Self {
        let body = pack(message);
        let mut hasher = DefaultHasher::new();
        body.value.hash(&mut hasher);
        Self {
            body,
            version: format!("{:016x}", hasher.finish()),
            origin: origin.cloned(),
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
