//! What goes into a session and comes out of it.

use std::collections::BTreeSet;

use crate::ads::ResourceType;
use crate::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::pb::google::protobuf::Any;
use crate::pb::google::rpc::Status;

/// The longest text of a refusal; a server logs it.
const MAX_DETAIL: usize = 8 * 1024;
/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// Which form of the protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A response has all resources asked for.
    StateOfTheWorld,
    /// A response has what changed.
    Delta,
}

/// What is wanted of one kind of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Whether everything that the server has for this client is wanted.
    pub wildcard: bool,
    /// The resources that are wanted by name (besides everything, if both).
    pub names: BTreeSet<String>,
}

impl Subscription {
    /// Everything there is.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            wildcard: true,
            names: BTreeSet::new(),
        }
    }

    /// The resources of these names.
    pub fn named<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            wildcard: false,
            names: names.into_iter().map(Into::into).collect(),
        }
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }
}

/// A request to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryRequest),
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
}

/// A resource that a response brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its version; in the state of the world, that of the response.
    pub version: String,
    /// The resource, of the type of its kind, not looked into but for the name.
    pub body: Any,
}

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource's name; empty where it has none.
    pub resource: String,
    /// What is wrong, with the path of the field.
    pub reason: String,
}

/// Which update an outcome is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub(super) u64);

/// What a response changes. Whoever applies it answers with [`Session::outcome`].
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// To answer with; `None` where no response is behind it (resources whose time to live ended).
    pub ticket: Option<Ticket>,
    /// The kind of all resources in it.
    pub resource_type: ResourceType,
    /// The version that the server gave the whole, for display.
    pub version: String,
    /// New and changed resources; in the state of the world, unchanged ones too.
    pub added: Vec<Resource>,
    /// Resources that are gone, or that the server says do not exist.
    pub removed: Vec<String>,
    /// Resources that were refused already (their name is given twice, or they are malformed). What
    /// was accepted under such a name stays in force.
    pub refused: Vec<Rejection>,
}

/// A response of a kind that nobody asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the discovery server sent a response of the type {0}, which was not asked for")]
pub struct UnknownType(pub String);

/// The `error_detail` that refuses these resources.
pub(super) fn refusal(rejections: &[Rejection]) -> Status {
    let all: Vec<String> = rejections
        .iter()
        .map(|rejection| match rejection.resource.as_str() {
            "" => rejection.reason.clone(),
            name => format!("{name}: {}", rejection.reason),
        })
        .collect();
    let mut message = all.join("; ");
    if message.len() > MAX_DETAIL {
        message.truncate(message.floor_char_boundary(MAX_DETAIL));
        message.push_str("...");
    }
    Status {
        code: INVALID_ARGUMENT,
        message,
        ..Default::default()
    }
}
