//! HTTPRoutes as they are attached to services.

use std::sync::Arc;

use crate::registry::NamespacedName;
use crate::registry::kinds::HttpRoute;
use crate::registry::{Object, ObjectRef};

use super::MeshPort;

/// One attachment of a route to a service.
#[derive(Debug, Clone)]
pub struct MeshRoute {
    object: Arc<Object>,
    port: Option<u16>,
    section: Option<String>,
}

impl MeshRoute {
    /// Every service that a route is attached to.
    pub(super) fn attachments(object: &Arc<Object>) -> Vec<(NamespacedName, Self)> {
        let Object::HttpRoute(route) = object.as_ref() else {
            return Vec::new();
        };
        let attach = |parent: &crate::registry::kinds::ParentRef| {
            let namespace = parent
                .namespace
                .as_deref()
                .unwrap_or(route.metadata.namespace());
            let attachment = Self {
                object: Arc::clone(object),
                port: parent.port.map(std::num::NonZeroU16::get),
                section: parent.section_name.clone(),
            };
            (NamespacedName::new(namespace, &parent.name), attachment)
        };
        route.spec.parent_refs.iter().map(attach).collect()
    }

    /// The namespace of the route.
    pub fn namespace(&self) -> &str {
        self.object.metadata().namespace()
    }

    /// What names the route.
    pub fn reference(&self) -> ObjectRef {
        self.object.reference()
    }

    /// The route, which is one by construction.
    pub fn route(&self) -> Option<&HttpRoute> {
        match self.object.as_ref() {
            Object::HttpRoute(route) => Some(route),
            _ => None,
        }
    }

    /// Whether it is attached to this port of its service.
    pub fn concerns(&self, port: &MeshPort) -> bool {
        self.port.is_none_or(|number| number == port.number)
            && self.section.as_ref().is_none_or(|name| *name == port.name)
    }
}
