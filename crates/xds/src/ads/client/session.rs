//! One discovery stream as a state machine: subscriptions and outcomes in, requests out.
//!
//! A session outlives its streams: what was accepted, and the versions of it, carry over to the
//! next stream; nonces die with theirs. Requests are pulled ([`Session::next_request`]), so that
//! changes of a subscription that come together leave together, as servers expect that answer a
//! request only when it names everything they have.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::held::Held;
use super::values::{Rejection, Request, Subscription, Ticket, Variant, refusal};
use crate::ads::{ResourceType, WILDCARD};
use crate::pb::envoy::config::core::v3::Node;
use crate::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::pb::google::rpc::Status;

/// A response that the application has not answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    /// Which stream it came on.
    pub(super) stream: u64,
    pub(super) resource_type: ResourceType,
    pub(super) nonce: String,
    pub(super) version: String,
    /// Name, version and expiry of what it added.
    pub(super) added: Vec<(String, String, Option<Instant>)>,
    pub(super) removed: Vec<String>,
    pub(super) refused: Vec<Rejection>,
}

/// One kind of resource in a session.
#[derive(Debug, Default)]
pub(super) struct Kind {
    pub(super) wanted: Subscription,
    /// State of the world: the version of the last response that was accepted as a whole.
    version: String,
    pub(super) held: Held,
    pub(super) stream: KindStream,
}

/// What is known of one kind on the present stream.
#[derive(Debug, Default)]
pub(super) struct KindStream {
    requested: bool,
    /// Whether a request had names, after which one without means nothing rather than everything.
    named: bool,
    /// State of the world: the nonce of the last response.
    pub(super) nonce: String,
    /// What the server believes is wanted.
    sent: Subscription,
    /// Delta: names to subscribe to, also where the server believes so already, because an
    /// unsubscription in between made us forget the resource.
    subscribe: BTreeSet<String>,
    /// Answers to responses: nonce and refusal.
    answers: VecDeque<(String, Option<Status>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    node: Node,
    /// Counts the streams; odd while one is up.
    pub(super) stream: u64,
    node_sent: bool,
    pub(super) kinds: [Kind; ResourceType::ALL.len()],
    pub(super) pending: Vec<Pending>,
    tickets: u64,
    pub(super) control_plane: String,
}

impl Session {
    /// A session without a stream. `node` goes into the first request of each stream.
    #[must_use]
    pub fn new(variant: Variant, node: Node) -> Self {
        Self {
            variant,
            node,
            stream: 0,
            node_sent: false,
            kinds: Default::default(),
            pending: Vec::new(),
            tickets: 0,
            control_plane: String::new(),
        }
    }

    /// Which form of the protocol it speaks.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// What the server last said that it is.
    #[must_use]
    pub fn control_plane(&self) -> &str {
        &self.control_plane
    }

    /// Tells that the application has a resource from before (from disk), so that a delta server
    /// need not send it again.
    pub fn seed(&mut self, resource_type: ResourceType, name: &str, version: String) {
        self.kinds[resource_type.index()]
            .held
            .insert(name, version, None);
    }

    /// A stream is up.
    pub fn connected(&mut self) {
        self.stream = (self.stream | 1) + if self.is_connected() { 2 } else { 0 };
        self.node_sent = false;
        for kind in &mut self.kinds {
            kind.stream = KindStream::default();
        }
    }

    /// The stream is down. Updates that were handed out stay valid and are to be answered.
    pub fn disconnected(&mut self) {
        if self.is_connected() {
            self.stream += 1;
        }
    }

    fn is_connected(&self) -> bool {
        self.stream % 2 == 1
    }

    /// Replaces what is wanted of a kind. In the state of the world, give all names at once, after
    /// the whole of an update that names them.
    pub fn set_subscription(&mut self, resource_type: ResourceType, wanted: Subscription) {
        let kind = &mut self.kinds[resource_type.index()];
        let removed: Vec<String> = kind
            .wanted
            .names
            .difference(&wanted.names)
            .cloned()
            .collect();
        let added: Vec<String> = wanted
            .names
            .difference(&kind.wanted.names)
            .cloned()
            .collect();
        kind.wanted.wildcard = wanted.wildcard;
        self.unsubscribe(resource_type, removed);
        self.subscribe(resource_type, added);
        let kind = &mut self.kinds[resource_type.index()];
        let strange: Vec<String> = kind
            .held
            .names()
            .filter(|name| !kind.wanted.covers(name))
            .cloned()
            .collect();
        strange.iter().for_each(|name| kind.held.remove(name));
    }

    /// Adds names to what is wanted of a kind.
    pub fn subscribe(
        &mut self,
        resource_type: ResourceType,
        names: impl IntoIterator<Item = String>,
    ) {
        let kind = &mut self.kinds[resource_type.index()];
        for name in names {
            if kind.wanted.names.insert(name.clone()) {
                kind.stream.subscribe.insert(name);
            }
        }
    }

    /// Takes names from what is wanted of a kind, and forgets those resources.
    pub fn unsubscribe(
        &mut self,
        resource_type: ResourceType,
        names: impl IntoIterator<Item = String>,
    ) {
        let kind = &mut self.kinds[resource_type.index()];
        for name in names {
            kind.wanted.names.remove(&name);
            kind.stream.subscribe.remove(&name);
            if !kind.wanted.wildcard {
                kind.held.remove(&name);
            }
        }
    }

    /// What is wanted of a kind.
    #[must_use]
    pub fn subscription(&self, resource_type: ResourceType) -> &Subscription {
        &self.kinds[resource_type.index()].wanted
    }

    /// The application applied an update, but for the resources in `rejections`, of which the last
    /// good copy stays in force.
    pub fn outcome(&mut self, ticket: Ticket, mut rejections: Vec<Rejection>) {
        let Some(at) = self
            .pending
            .iter()
            .position(|pending| pending.ticket == ticket)
        else {
            return;
        };
        let pending = self.pending.remove(at);
        let connected = self.is_connected();
        let kind = &mut self.kinds[pending.resource_type.index()];
        for (name, version, expires) in pending.added {
            let rejected = rejections
                .iter()
                .any(|rejection| rejection.resource == name);
            if !rejected && kind.wanted.covers(&name) {
                kind.held.insert(&name, version, expires);
            }
        }
        pending
            .removed
            .iter()
            .for_each(|name| kind.held.remove(name));

        rejections.extend(pending.refused);
        let accepted = rejections.is_empty();
        if accepted && self.variant == Variant::StateOfTheWorld {
            kind.version = pending.version;
        }
        // A nonce means nothing on another stream; nor, in the state of the world, after the next.
        let stale = self.variant == Variant::StateOfTheWorld && pending.nonce != kind.stream.nonce;
        if connected && pending.stream == self.stream && !stale {
            let refusal = (!accepted).then(|| refusal(&rejections));
            kind.stream.answers.push_back((pending.nonce, refusal));
        }
    }

    /// The next request to send, until there is none.
    pub fn next_request(&mut self) -> Option<Request> {
        if !self.is_connected() {
            return None;
        }
        let node = (!self.node_sent).then(|| self.node.clone());
        for resource_type in ResourceType::ALL {
            let request = match self.variant {
                Variant::StateOfTheWorld => {
                    let awaited = self.pending.iter().any(|pending| {
                        pending.stream == self.stream && pending.resource_type == resource_type
                    });
                    let kind = &mut self.kinds[resource_type.index()];
                    kind.next_sotw(awaited).map(|mut request| {
                        request.node = node.clone();
                        request.type_url = resource_type.type_url().to_owned();
                        Request::StateOfTheWorld(request)
                    })
                }
                Variant::Delta => {
                    self.kinds[resource_type.index()]
                        .next_delta()
                        .map(|mut request| {
                            request.node = node.clone();
                            request.type_url = resource_type.type_url().to_owned();
                            Request::Delta(request)
                        })
                }
            };
            if request.is_some() {
                self.node_sent = true;
                return request;
            }
        }
        None
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

impl Kind {
    /// `awaited`: whether the application owes the outcome of a response. A request that goes out
    /// before would carry its nonce, and so accept it.
    fn next_sotw(&mut self, awaited: bool) -> Option<DiscoveryRequest> {
        let answer = self.stream.answers.pop_front();
        let refusal = match answer {
            Some((_, refusal)) => refusal,
            None if awaited => return None,
            None if self.stream.requested && self.stream.sent == self.wanted => return None,
            None if !self.stream.requested && self.wanted.is_empty() => return None,
            None => None,
        };
        // A request says all that is wanted, so it answers and subscribes at once.
        self.stream.requested = true;
        self.stream.sent.clone_from(&self.wanted);
        Some(DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: self.names(),
            response_nonce: self.stream.nonce.clone(),
            error_detail: refusal,
            ..Default::default()
        })
    }

    /// The names in a request that says all that is wanted.
    fn names(&mut self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        // Every server takes a first request without names as a wildcard; `*` is newer.
        if self.wanted.wildcard && (self.stream.named || !self.wanted.names.is_empty()) {
            names.push(WILDCARD.to_owned());
        }
        names.extend(self.wanted.names.iter().cloned());
        self.stream.named |= !names.is_empty();
        names
    }

    fn next_delta(&mut self) -> Option<DeltaDiscoveryRequest> {
        // Nothing rides with an answer: istiod takes changes of a subscription only by themselves.
        if let Some((nonce, error_detail)) = self.stream.answers.pop_front() {
            let answer = DeltaDiscoveryRequest {
                response_nonce: nonce,
                error_detail,
                ..Default::default()
            };
            return Some(answer);
        }
        if !self.stream.requested {
            if self.wanted.is_empty() {
                return None;
            }
            self.stream.requested = true;
            self.stream.sent.clone_from(&self.wanted);
            self.stream.subscribe.clear();
            let versions = self.held.versions();
            return Some(DeltaDiscoveryRequest {
                initial_resource_versions: versions.map(|(k, v)| (k.clone(), v.clone())).collect(),
                resource_names_subscribe: self.names(),
                ..Default::default()
            });
        }
        let mut subscribe = Vec::from_iter(std::mem::take(&mut self.stream.subscribe));
        let mut unsubscribe: Vec<String> = self
            .stream
            .sent
            .names
            .difference(&self.wanted.names)
            .cloned()
            .collect();
        match (self.stream.sent.wildcard, self.wanted.wildcard) {
            (false, true) => subscribe.push(WILDCARD.to_owned()),
            (true, false) => unsubscribe.push(WILDCARD.to_owned()),
            _ => {}
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        self.stream.sent.clone_from(&self.wanted);
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        })
    }
}
