//! One delta stream as the server sees it: requests and sets of resources in, responses out.
//!
//! Order: what is new of clusters, endpoints, listeners, routes, secrets; and only when the client
//! has answered all of that, what is gone of clusters and endpoints. So nothing that is in use
//! points at something that is gone (make before break). Of each kind one response is unanswered at
//! most; what changes meanwhile comes with the next, as one difference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;

use super::{Answer, KindResources, ResourceSet, Versioned};
use crate::ads::{ResourceType, WILDCARD};
use crate::pb::envoy::config::cluster::v3::Cluster;
use crate::pb::envoy::config::core::v3::ControlPlane;
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

/// About how many bytes of resources one response has: more are sent in several, so that no client
/// meets its limit on the size of a message.
const MAX_RESPONSE: usize = 2 << 20;

/// See the module.
#[derive(Debug)]
pub struct DeltaStream {
    identifier: String,
    set: Arc<ResourceSet>,
    kinds: [Kind; ResourceType::ALL.len()],
    nonces: u64,
    /// Responses for kinds that we do not have.
    strange: VecDeque<DeltaDiscoveryResponse>,
}

#[derive(Debug, Default)]
struct Kind {
    /// Whether a request for it came.
    requested: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client has, by name and version.
    sent: BTreeMap<String, Arc<str>>,
    /// What must be answered though nothing changed: a name that was subscribed to (again).
    asked: BTreeSet<String>,
    /// Whether the first response is due, which comes even if it is empty: a client that starts
    /// waits for it.
    greeting: bool,
    /// Whether something may be new.
    changed: bool,
    /// Whether something may be gone, beyond what was told.
    shrunk: bool,
    unanswered: Option<Unanswered>,
}

#[derive(Debug)]
struct Unanswered {
    nonce: String,
    version: String,
    names: Vec<String>,
}

impl DeltaStream {
    /// A new stream to a client that may have `set`. `identifier` names this server to clients.
    #[must_use]
    pub fn new(identifier: &str, set: Arc<ResourceSet>) -> Self {
        Self {
            identifier: identifier.to_owned(),
            set,
            kinds: Default::default(),
            nonces: 0,
            strange: VecDeque::new(),
        }
    }

    /// A request came. Returns what the client says of an earlier response, if it says anything.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Option<Answer> {
        let Some(resource_type) = ResourceType::of_type_url(&request.type_url) else {
            self.refuse(request);
            return None;
        };
        let kind = &mut self.kinds[resource_type.index()];
        let mut answer = None;
        if !request.response_nonce.is_empty()
            && let Some(unanswered) = kind
                .unanswered
                .take_if(|each| each.nonce == request.response_nonce)
        {
            answer = Some(Answer {
                resource_type,
                version: unanswered.version,
                names: unanswered.names,
                refusal: request.error_detail.map(|status| status.message),
            });
        }
        if !kind.requested {
            kind.requested = true;
            kind.changed = true;
            if request.resource_names_subscribe.is_empty() && resource_type.is_complete() {
                kind.wildcard = true;
                kind.greeting = true;
            }
            let versions = request.initial_resource_versions.into_iter();
            kind.sent = versions
                .map(|(name, version)| (name, version.into()))
                .collect();
        }
        kind.subscribe(request.resource_names_subscribe);
        kind.unsubscribe(request.resource_names_unsubscribe);
        answer
    }

    /// The client may have these resources now.
    pub fn on_resources(&mut self, set: Arc<ResourceSet>) {
        for resource_type in ResourceType::ALL {
            if !set
                .kind(resource_type)
                .is_same(self.set.kind(resource_type))
            {
                self.kinds[resource_type.index()].changed = true;
            }
        }
        self.set = set;
    }

    /// The next response to send, until there is none.
    pub fn next_response(&mut self) -> Option<DeltaDiscoveryResponse> {
        if let Some(response) = self.strange.pop_front() {
            return Some(response);
        }
        for resource_type in ResourceType::ALL {
            let set = Arc::clone(&self.set);
            let resources = set.kind(resource_type);
            let kind = &mut self.kinds[resource_type.index()];
            if !kind.requested || !kind.changed || kind.unanswered.is_some() {
                continue;
            }
            let mut news = kind.news(resources);
            if breaks(resource_type) {
                kind.shrunk = true;
            } else if !kind.changed {
                news.removed.extend(kind.losses(resources));
            }
            if !news.is_empty() || std::mem::take(&mut kind.greeting) {
                kind.greeting = false;
                if resource_type == ResourceType::Cluster {
                    self.repeat_endpoints(&news);
                }
                return Some(self.respond(resource_type, news));
            }
        }
        let busy = |kind: &Kind| kind.unanswered.is_some() || (kind.requested && kind.changed);
        if self.kinds.iter().any(busy) {
            return None;
        }
        for resource_type in ResourceType::ALL {
            let set = Arc::clone(&self.set);
            let resources = set.kind(resource_type);
            let kind = &mut self.kinds[resource_type.index()];
            if std::mem::take(&mut kind.shrunk) {
                let removed = kind.losses(resources);
                if !removed.is_empty() {
                    return Some(self.respond(
                        resource_type,
                        News {
                            added: Vec::new(),
                            removed,
                        },
                    ));
                }
            }
        }
        None
    }

    /// A client warms a cluster that has changed like a new one, with its endpoints; but it does not
    /// ask for those again while it is subscribed to them. So they come again by themselves.
    fn repeat_endpoints(&mut self, clusters: &News) {
        let endpoints = &mut self.kinds[ResourceType::Endpoint.index()];
        for resource in &clusters.added {
            let Some(name) = endpoints_of(resource) else {
                continue;
            };
            if endpoints.wildcard || endpoints.names.contains(&name) {
                endpoints.asked.insert(name);
                endpoints.changed = true;
            }
        }
    }

    fn respond(&mut self, resource_type: ResourceType, news: News) -> DeltaDiscoveryResponse {
        let nonce = self.nonce();
        let version = self.set.version().to_owned();
        let names = news
            .added
            .iter()
            .map(|resource| resource.name.clone())
            .collect();
        self.kinds[resource_type.index()].unanswered = Some(Unanswered {
            nonce: nonce.clone(),
            version: version.clone(),
            names,
        });
        DeltaDiscoveryResponse {
            system_version_info: version,
            resources: news.added,
            type_url: resource_type.type_url().to_owned(),
            removed_resources: news.removed,
            nonce,
            control_plane: Some(ControlPlane {
                identifier: self.identifier.clone(),
            }),
            ..Default::default()
        }
    }

    /// Of a kind that we do not have, nothing exists: said at once, so that nobody waits for it.
    fn refuse(&mut self, request: DeltaDiscoveryRequest) {
        let names = request.resource_names_subscribe;
        let is_first = request.response_nonce.is_empty();
        if !is_first || request.type_url.is_empty() {
            return;
        }
        let nonce = self.nonce();
        self.strange.push_back(DeltaDiscoveryResponse {
            type_url: request.type_url,
            removed_resources: names.into_iter().filter(|name| name != WILDCARD).collect(),
            nonce,
            control_plane: Some(ControlPlane {
                identifier: self.identifier.clone(),
            }),
            ..Default::default()
        });
    }

    fn nonce(&mut self) -> String {
        self.nonces += 1;
        self.nonces.to_string()
    }
}

/// Whether the loss of a resource of this kind breaks what points at it.
fn breaks(resource_type: ResourceType) -> bool {
    matches!(
        resource_type,
        ResourceType::Cluster | ResourceType::Endpoint
    )
}

/// The name of the endpoints that a cluster gets by discovery; none where it has others.
fn endpoints_of(resource: &Resource) -> Option<String> {
    let body = resource.resource.as_ref()?;
    let cluster = Cluster::decode(body.value.as_slice()).ok()?;
    let name = cluster.eds_cluster_config?.service_name;
    Some(if name.is_empty() { cluster.name } else { name })
}

/// What one response tells.
struct News {
    added: Vec<Resource>,
    removed: Vec<String>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Kind {
    fn subscribe(&mut self, names: Vec<String>) {
        for name in names {
            self.changed = true;
            if name == WILDCARD {
                self.greeting |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            // What a client says it has since before the stream need not be sent again.
            if !self.sent.contains_key(&name) || self.names.contains(&name) {
                self.asked.insert(name.clone());
            }
            self.names.insert(name);
        }
    }

    fn unsubscribe(&mut self, names: Vec<String>) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
                let names = &self.names;
                self.sent.retain(|name, _| names.contains(name));
                continue;
            }
            self.names.remove(&name);
            self.asked.remove(&name);
            if !self.wildcard {
                self.sent.remove(&name);
            }
        }
    }

    /// New and changed resources, and names that were asked for and do not exist. Leaves `changed`
    /// set if there was more than fits.
    fn news(&mut self, resources: &KindResources) -> News {
        self.changed = false;
        let mut news = News {
            added: Vec::new(),
            removed: Vec::new(),
        };
        let mut size = 0;
        let mut wanted: Vec<(&String, &Versioned)> = if self.wildcard {
            resources.iter().collect()
        } else {
            self.names
                .iter()
                .filter_map(|name| resources.get_key_value(name))
                .collect()
        };
        wanted.retain(|(name, resource)| {
            self.asked.contains(*name) || self.sent.get(*name) != Some(&resource.version)
        });
        for (name, resource) in wanted {
            if size > MAX_RESPONSE {
                self.changed = true;
                break;
            }
            size += resource.body.value.len() + name.len();
            self.sent
                .insert(name.clone(), Arc::clone(&resource.version));
            self.asked.remove(name);
            news.added.push(Resource {
                name: name.clone(),
                version: resource.version.to_string(),
                resource: Some((*resource.body).clone()),
                ..Default::default()
            });
        }
        let absent: Vec<String> = self
            .asked
            .iter()
            .filter(|name| !resources.contains_key(name))
            .cloned()
            .collect();
        for name in absent {
            self.asked.remove(&name);
            self.sent.remove(&name);
            news.removed.push(name);
        }
        news
    }

    /// Resources that the client has and that are gone.
    fn losses(&mut self, resources: &KindResources) -> Vec<String> {
        let lost: Vec<String> = self
            .sent
            .keys()
            .filter(|name| !resources.contains_key(name))
            .cloned()
            .collect();
        for name in &lost {
            self.sent.remove(name);
        }
        lost
    }
}
