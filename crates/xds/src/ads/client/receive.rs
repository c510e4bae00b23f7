//! Responses in, updates out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use prost::Message;

use super::session::{Pending, Session};
use super::values::{Rejection, Resource, UnknownType, Update};
use crate::ads::ResourceType;
use crate::pb::envoy::config::core::v3::ControlPlane;
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource as Wrapper, ResourceError,
};
use crate::pb::google::protobuf::{Any, Duration as ProtoDuration};
use crate::transcode;

/// What an `Any` holds whose resource has a name, a version and a time to live of its own.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

impl Session {
    /// A response on a state-of-the-world stream.
    ///
    /// # Errors
    /// A type that no session asks for; the response is to be ignored.
    pub fn on_response(
        &mut self,
        response: DiscoveryResponse,
        now: Instant,
    ) -> Result<Update, UnknownType> {
        let resource_type = known(&response.type_url)?;
        self.identified(response.control_plane);
        report(resource_type, &response.resource_errors);
        self.kinds[resource_type.index()]
            .stream
            .nonce
            .clone_from(&response.nonce);
        let mut intake = Intake::new(self, resource_type, now);
        for body in response.resources {
            intake.take(unwrap(body), &response.version_info);
        }
        let mut intake = intake.finish();
        if resource_type.is_complete() {
            let held = &self.kinds[resource_type.index()].held;
            let gone = held.names().filter(|name| !intake.seen.contains(*name));
            intake.removed = gone.cloned().collect();
        }
        Ok(self.hand_out(resource_type, intake, response.nonce, response.version_info))
    }

    /// A response on a delta stream.
    ///
    /// # Errors
    /// A type that no session asks for; the response is to be ignored.
    pub fn on_delta_response(
        &mut self,
        response: DeltaDiscoveryResponse,
        now: Instant,
    ) -> Result<Update, UnknownType> {
        let resource_type = known(&response.type_url)?;
        self.identified(response.control_plane);
        report(resource_type, &response.resource_errors);
        let mut intake = Intake::new(self, resource_type, now);
        for wrapper in response.resources {
            intake.take(Ok(wrapper), "");
        }
        let mut intake = intake.finish();
        // Newer servers may name what is gone in the second list.
        let names = response
            .removed_resource_names
            .into_iter()
            .map(|each| each.name);
        intake.removed = response
            .removed_resources
            .into_iter()
            .chain(names)
            .collect();
        Ok(self.hand_out(
            resource_type,
            intake,
            response.nonce,
            response.system_version_info,
        ))
    }

    /// When [`Session::expire`] has something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.kinds
            .iter()
            .filter_map(|kind| kind.held.next_expiry())
            .min()
    }

    /// Removes the resources whose time to live has ended.
    pub fn expire(&mut self, now: Instant) -> Vec<Update> {
        let mut updates = Vec::new();
        for resource_type in ResourceType::ALL {
            let removed = self.kinds[resource_type.index()].held.expire(now);
            if !removed.is_empty() {
                updates.push(Update {
                    ticket: None,
                    resource_type,
                    version: String::new(),
                    added: Vec::new(),
                    removed,
                    refused: Vec::new(),
                });
            }
        }
        updates
    }

    fn identified(&mut self, control_plane: Option<ControlPlane>) {
        if let Some(control_plane) = control_plane {
            self.control_plane = control_plane.identifier;
        }
    }

    fn hand_out(
        &mut self,
        resource_type: ResourceType,
        taken: Taken,
        nonce: String,
        version: String,
    ) -> Update {
        let ticket = self.ticket();
        let mut expiries = taken.expiries;
        let added = taken.added.iter().map(|resource| {
            let expires = expiries.remove(&resource.name);
            (resource.name.clone(), resource.version.clone(), expires)
        });
        self.pending.push(Pending {
            ticket,
            stream: self.stream,
            resource_type,
            nonce,
            version: version.clone(),
            added: added.collect(),
            removed: taken.removed.clone(),
            refused: taken.refused.clone(),
        });
        Update {
            ticket: Some(ticket),
            resource_type,
            version,
            added: taken.added,
            removed: taken.removed,
            refused: taken.refused,
        }
    }
}

/// Logs what a server says of resources that it could not give.
fn report(resource_type: ResourceType, errors: &[ResourceError]) {
    for error in errors {
        let name = error.resource_name.as_ref().map_or("", |name| &name.name);
        let why = error
            .error_detail
            .as_ref()
            .map_or("", |status| &status.message);
        tracing::warn!("the discovery server has no {resource_type} {name:?} for us: {why}");
    }
}

fn known(type_url: &str) -> Result<ResourceType, UnknownType> {
    ResourceType::of_type_url(type_url).ok_or_else(|| UnknownType(type_url.to_owned()))
}

/// A resource of a state-of-the-world response, with what it is wrapped in if it is.
fn unwrap(body: Any) -> Result<Wrapper, Rejection> {
    if body.type_url == WRAPPER {
        return Wrapper::decode(body.value.as_slice()).map_err(|error| Rejection {
            resource: String::new(),
            reason: format!("a wrapped resource does not decode: {error}"),
        });
    }
    Ok(Wrapper {
        resource: Some(body),
        ..Default::default()
    })
}

/// Sorts the resources of one response.
struct Intake<'a> {
    session: &'a mut Session,
    resource_type: ResourceType,
    now: Instant,
    taken: Taken,
}

#[derive(Default)]
struct Taken {
    added: Vec<Resource>,
    removed: Vec<String>,
    refused: Vec<Rejection>,
    /// All names that the response has, refused ones too.
    seen: BTreeSet<String>,
    twice: BTreeSet<String>,
    expiries: BTreeMap<String, Instant>,
}

impl<'a> Intake<'a> {
    fn new(session: &'a mut Session, resource_type: ResourceType, now: Instant) -> Self {
        Self {
            session,
            resource_type,
            now,
            taken: Taken::default(),
        }
    }

    fn refuse(&mut self, resource: String, reason: String) {
        self.taken.refused.push(Rejection { resource, reason });
    }

    fn take(&mut self, wrapper: Result<Wrapper, Rejection>, version: &str) {
        let wrapper = match wrapper {
            Ok(wrapper) => wrapper,
            Err(rejection) => return self.taken.refused.push(rejection),
        };
        let version = if wrapper.version.is_empty() {
            version.to_owned()
        } else {
            wrapper.version
        };
        let expires = wrapper
            .ttl
            .and_then(|ttl| self.now.checked_add(positive(ttl)?));
        let Some(body) = wrapper.resource else {
            return self.heartbeat(wrapper.name, version, expires);
        };
        if body.type_url != self.resource_type.type_url() {
            let reason = format!("it is of the type {}", body.type_url);
            return self.refuse(wrapper.name, reason);
        }
        // In every kind of resource the name is the field 1.
        let Some(name) = transcode::first_field_text(&body.value) else {
            return self.refuse(
                wrapper.name,
                "its bytes are malformed or it has no name".to_owned(),
            );
        };
        let name = if wrapper.name.is_empty() {
            name
        } else {
            wrapper.name
        };
        if name.is_empty() {
            return self.refuse(name, format!("a {} has no name", self.resource_type));
        }
        // Some servers send all they have, whatever the request names.
        if !self.session.kinds[self.resource_type.index()]
            .wanted
            .covers(&name)
        {
            return;
        }
        if !self.taken.seen.insert(name.clone()) {
            self.taken.twice.insert(name);
            return;
        }
        if let Some(expires) = expires {
            self.taken.expiries.insert(name.clone(), expires);
        }
        self.taken.added.push(Resource {
            name,
            version,
            body,
        });
    }

    /// A resource without a body prolongs the life of the one that is held.
    fn heartbeat(&mut self, name: String, version: String, expires: Option<Instant>) {
        let held = &mut self.session.kinds[self.resource_type.index()].held;
        if held.version(&name) == Some(version.as_str()) {
            held.insert(&name, version, expires);
            self.taken.seen.insert(name);
        } else {
            self.refuse(
                name,
                "it has no body, and this version of it is not held".to_owned(),
            );
        }
    }

    fn finish(self) -> Taken {
        let mut taken = self.taken;
        for name in std::mem::take(&mut taken.twice) {
            taken.added.retain(|resource| resource.name != name);
            let reason = "the response has two of this name".to_owned();
            taken.refused.push(Rejection {
                resource: name,
                reason,
            });
        }
        let names = taken
            .refused
            .iter()
            .map(|rejection| rejection.resource.clone());
        taken.seen.extend(names);
        taken
    }
}

fn positive(ttl: ProtoDuration) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(ttl.seconds).ok()?,
        u32::try_from(ttl.nanos).ok()?,
    ))
}
