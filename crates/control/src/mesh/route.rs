//! Routes as they are attached to services.

use std::collections::HashSet;
use std::sync::Arc;

use crate::registry::kinds::{BackendRef, HttpFilter, ParentRef, RuleProblem};
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef};

use super::{AppProtocol, MeshPort, MeshService, MeshState};

/// The kinds of routes, the most specific first: of several kinds on one port the first wins
/// (GEP-1294, "Route types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
}

impl RouteKind {
    /// The kind of an object, if it is a route.
    pub fn of(object: &Object) -> Option<Self> {
        match object {
            Object::GrpcRoute(_) => Some(Self::Grpc),
            Object::HttpRoute(_) => Some(Self::Http),
            Object::TlsRoute(_) => Some(Self::Tls),
            Object::TcpRoute(_) => Some(Self::Tcp),
            _ => None,
        }
    }

    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// Whether what is spoken on a port can be routed by it.
    pub fn fits(self, protocol: AppProtocol) -> bool {
        match self {
            Self::Grpc | Self::Http => protocol.may_be_http(),
            Self::Tls => matches!(protocol, AppProtocol::Tcp | AppProtocol::Auto),
            Self::Tcp => true,
        }
    }
}

/// A route whose rules have been judged one by one: a wrong one does not take the others with it.
#[derive(Debug)]
pub struct JudgedRoute {
    object: Arc<Object>,
    kind: RouteKind,
    problems: Vec<Option<RuleProblem>>,
    whole: Option<FieldError>,
}

impl JudgedRoute {
    /// Judges a route; other objects are none.
    pub fn new(object: &Arc<Object>) -> Option<Self> {
        let kind = RouteKind::of(object)?;
        let from_top = |(index, problem): (usize, Option<RuleProblem>)| {
            problem.map(|problem| problem.under(&format!("spec.rules[{index}]")))
        };
        let problems = rules(object).into_iter().map(|rule| rule.problem);
        let whole = match object.as_ref() {
            Object::TlsRoute(route) => route.check_hostnames().err(),
            _ => None,
        };
        Some(Self {
            object: Arc::clone(object),
            kind,
            problems: problems.enumerate().map(from_top).collect(),
            whole,
        })
    }

    /// The route.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Its kind.
    pub fn kind(&self) -> RouteKind {
        self.kind
    }

    /// What names it.
    pub fn reference(&self) -> ObjectRef {
        self.object.reference()
    }

    /// Sorts the route with the older right first: by age (a document has none, and comes after all
    /// that have), then by name.
    pub fn seniority(&self) -> (bool, Option<&str>, &str, &str) {
        let metadata = self.object.metadata();
        let created = metadata.creation_timestamp.as_deref();
        let (namespace, name) = (metadata.namespace(), &metadata.name);
        (created.is_none(), created, namespace, name)
    }

    /// What is wrong with a rule.
    pub fn problem(&self, rule: usize) -> Option<&RuleProblem> {
        self.problems.get(rule)?.as_ref()
    }

    /// The rules that are not done as written, in order.
    pub fn problems(&self) -> impl Iterator<Item = &RuleProblem> {
        self.problems.iter().flatten()
    }

    /// What is wrong with all of it, whatever its rules say.
    pub fn whole(&self) -> Option<&FieldError> {
        self.whole.as_ref()
    }

    /// Whether nothing of it is done as written.
    pub fn is_invalid(&self) -> bool {
        let every = !self.problems.is_empty() && self.problems.iter().all(Option::is_some);
        every || self.whole.is_some()
    }

    /// Whether traffic meets it: a rule with a filter that cannot be applied still answers.
    fn acts(&self) -> bool {
        let dropped = |problem: &Option<RuleProblem>| matches!(problem, Some(problem) if !problem.fails_requests);
        let nothing = !self.problems.is_empty() && self.problems.iter().all(dropped);
        !nothing && self.whole.is_none()
    }

    /// What it is attached to.
    pub fn parents(&self) -> &[ParentRef] {
        match self.object.as_ref() {
            Object::HttpRoute(route) => &route.spec.parent_refs,
            Object::GrpcRoute(route) => &route.spec.parent_refs,
            Object::TlsRoute(route) => &route.spec.parent_refs,
            Object::TcpRoute(route) => &route.spec.parent_refs,
            _ => &[],
        }
    }

    /// The service that a parent names.
    pub fn service_of(&self, parent: &ParentRef) -> NamespacedName {
        let own = self.object.metadata().namespace();
        NamespacedName::new(parent.namespace.as_deref().unwrap_or(own), &parent.name)
    }

    /// Whether it has host names, which mean nothing where a Service is the parent.
    pub fn has_idle_hostnames(&self) -> bool {
        match self.object.as_ref() {
            Object::HttpRoute(route) => !route.spec.hostnames.is_empty(),
            Object::GrpcRoute(route) => !route.spec.hostnames.is_empty(),
            _ => false,
        }
    }

    /// Everything that it sends traffic to, each with its field.
    pub fn backends(&self) -> Vec<(String, &BackendRef)> {
        let mut found = Vec::new();
        for (index, rule) in rules(&self.object).into_iter().enumerate() {
            for (position, backend) in rule.backends.iter().enumerate() {
                let path = format!("spec.rules[{index}].backendRefs[{position}]");
                found.push((path, backend));
            }
            for (position, filter) in rule.filters.iter().enumerate() {
                if let Some(mirror) = &filter.request_mirror {
                    let filter = format!("spec.rules[{index}].filters[{position}]");
                    let path = format!("{filter}.requestMirror.backendRef");
                    found.push((path, &mirror.backend_ref));
                }
            }
        }
        found
    }
}

/// What the rules of all kinds have.
struct Rule<'a> {
    problem: Option<RuleProblem>,
    backends: &'a [BackendRef],
    filters: &'a [HttpFilter],
}

fn rules(object: &Object) -> Vec<Rule<'_>> {
    macro_rules! each {
        ($rules:expr, $rule:ident => $filters:expr) => {
            $rules
                .iter()
                .map(|$rule| Rule {
                    problem: $rule.check().err(),
                    backends: &$rule.backend_refs,
                    filters: $filters,
                })
                .collect()
        };
    }
    match object {
        Object::HttpRoute(route) => each!(route.spec.rules, rule => &rule.filters),
        Object::GrpcRoute(route) => each!(route.spec.rules, rule => &rule.filters),
        Object::TlsRoute(route) => each!(route.spec.rules, rule => &[]),
        Object::TcpRoute(route) => each!(route.spec.rules, rule => &[]),
        _ => Vec::new(),
    }
}

/// One attachment of a route to a service.
#[derive(Debug, Clone)]
pub struct MeshRoute {
    route: Arc<JudgedRoute>,
    port: Option<u16>,
    section: Option<String>,
}

impl MeshRoute {
    /// Every service that a route is attached to.
    pub(super) fn attachments(route: &Arc<JudgedRoute>) -> Vec<(NamespacedName, Self)> {
        let services = route.parents().iter().filter(|parent| parent.is_service());
        let attach = |parent: &ParentRef| {
            let attachment = Self {
                route: Arc::clone(route),
                port: parent.port.map(std::num::NonZeroU16::get),
                section: parent.section_name.clone(),
            };
            (route.service_of(parent), attachment)
        };
        services.map(attach).collect()
    }

    /// The namespace of the route.
    pub fn namespace(&self) -> &str {
        self.route.object.metadata().namespace()
    }

    /// The route.
    pub fn route(&self) -> &Arc<JudgedRoute> {
        &self.route
    }

    /// Whether it is attached to this port of its service, and can route what is spoken on it.
    pub fn concerns(&self, port: &MeshPort) -> bool {
        names(self.port, self.section.as_deref(), port) && self.route.kind.fits(port.protocol)
    }
}

/// Whether a parent's port and section name this port.
pub(super) fn names(number: Option<u16>, section: Option<&str>, port: &MeshPort) -> bool {
    number.is_none_or(|number| number == port.number)
        && section.is_none_or(|name| name == port.name)
}

impl MeshState {
    /// The routes for traffic from `client_namespace` to a port of a service, all of one kind, the
    /// senior first: those of the client's own namespace if there are any (it chose them for
    /// itself), else those of the service's.
    pub fn routes(
        &self,
        service: &MeshService,
        port: &MeshPort,
        client_namespace: &str,
    ) -> Vec<&Arc<JudgedRoute>> {
        let own = self.routes_of(service, port, client_namespace);
        if own.is_empty() {
            self.routes_of(service, port, &service.name.namespace)
        } else {
            own
        }
    }

    /// The routes of one namespace for a port of a service. A headless service has none, for it has
    /// no address of its own that would stand for all of it (GEP-1294, "Allowed service types").
    pub(super) fn routes_of(
        &self,
        service: &MeshService,
        port: &MeshPort,
        namespace: &str,
    ) -> Vec<&Arc<JudgedRoute>> {
        let attached = self.routes.get(&service.name).filter(|_| !service.headless);
        let attached = attached.map_or(&[][..], Vec::as_slice).iter();
        let mut routes: Vec<&Arc<JudgedRoute>> = attached
            .filter(|route| route.namespace() == namespace && route.concerns(port))
            .map(MeshRoute::route)
            .filter(|route| route.acts())
            .collect();
        routes.sort_by_key(|route| (route.kind, route.seniority()));
        let Some(kind) = routes.first().map(|route| route.kind) else {
            return routes;
        };
        let mut seen = HashSet::new();
        routes.retain(|route| route.kind == kind && seen.insert(Arc::as_ptr(route)));
        if kind == RouteKind::Tcp {
            // They match everything, so the first takes everything.
            routes.truncate(1);
        }
        routes
    }
}
