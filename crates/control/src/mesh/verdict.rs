//! What the control plane says of an object to those who wrote it, in the words of the Gateway API
//! (its documentation of `RouteConditionType` and `RouteConditionReason`).

use std::sync::Arc;

use crate::registry::kinds::{BackendRef, ParentRef, ProblemKind};
use crate::registry::{NamespacedName, Object, ObjectRef};

use super::route::names;
use super::{AppProtocol, Fault, JudgedRoute, MeshPort, MeshService, MeshState, RouteKind};

/// What is said where there is nothing to say.
const IN_FORCE: &str = "in force";

/// The judgement on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The generation of the object that was judged; 0 outside of a cluster.
    pub generation: i64,
    /// What was found.
    pub findings: Findings,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Findings {
    /// A route: for each of its parents that is a Service.
    Route(Vec<ParentFindings>),
    /// Any other kind: whether it is accepted.
    Object(Finding),
}

/// A route under one of its parents.
#[derive(Debug, Clone, PartialEq)]
pub struct ParentFindings {
    /// The parent as the route writes it.
    pub parent: ParentRef,
    /// `Accepted`.
    pub accepted: Finding,
    /// `ResolvedRefs`.
    pub resolved_refs: Finding,
    /// `PartiallyInvalid`, which is only there where it is so.
    pub partially_invalid: Option<Finding>,
}

impl Eq for ParentFindings {}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub holds: bool,
    /// The machine's word for why.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

impl Finding {
    /// It holds.
    pub fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    /// It does not.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::holds(reason, message)
        }
    }
}

impl Verdict {
    /// The verdict on an object that was taken, with what its neighbours show to be wrong with it.
    pub fn accepted(object: &Object, found: &[String]) -> Self {
        let mut message = IN_FORCE.to_owned();
        for text in found {
            message += "; ";
            message += text;
        }
        Self {
            generation: object.metadata().generation,
            findings: Findings::Object(Finding::holds("Accepted", message)),
        }
    }

    /// The verdict on an object whose latest version is not taken.
    pub fn refused(fault: &Fault) -> Self {
        Self {
            generation: fault.generation,
            findings: Findings::Object(refusal("Invalid", fault)),
        }
    }

    /// The latest version is not taken, of which this is the last good one.
    pub(super) fn refuse(&mut self, fault: &Fault) {
        self.generation = fault.generation;
        match &mut self.findings {
            Findings::Object(finding) => *finding = refusal("Invalid", fault),
            Findings::Route(parents) => {
                for parent in parents {
                    parent.accepted = refusal("UnsupportedValue", fault);
                    parent.partially_invalid = None;
                }
            }
        }
    }

    /// The verdict on a route, from its services and the routes beside it.
    pub fn of_route(mesh: &MeshState, route: &JudgedRoute) -> Self {
        let parents = route.parents().iter().enumerate();
        let parents = parents.filter(|(_, parent)| parent.is_service());
        let findings = parents.map(|(index, parent)| ParentFindings {
            parent: parent.clone(),
            accepted: accepted(mesh, route, index, parent),
            resolved_refs: resolved_refs(mesh, route),
            partially_invalid: partially_invalid(route),
        });
        let mut findings: Vec<ParentFindings> = findings.collect();
        for finding in &mut findings {
            // It must not be there for a route that is not accepted.
            finding.partially_invalid = finding
                .partially_invalid
                .take()
                .filter(|_| finding.accepted.holds);
        }
        Self {
            generation: route.object().metadata().generation,
            findings: Findings::Route(findings),
        }
    }

    /// What does not hold, or does without doing what its author may expect, for logs.
    pub fn complaints(&self) -> Vec<&str> {
        let bad = |finding: &&Finding| !finding.holds;
        let mut messages: Vec<&str> = match &self.findings {
            Findings::Object(finding) => Some(finding)
                .filter(bad)
                .map(|finding| finding.message.as_str())
                .into_iter()
                .collect(),
            Findings::Route(parents) => parents
                .iter()
                .flat_map(|parent| {
                    let idle = parent.accepted.message != IN_FORCE;
                    let accepted = Some(&parent.accepted).filter(|_| idle);
                    let resolved = Some(&parent.resolved_refs).filter(bad);
                    let found = accepted.into_iter().chain(resolved);
                    found.chain(&parent.partially_invalid)
                })
                .map(|finding| finding.message.as_str())
                .collect(),
        };
        messages.sort_unstable();
        messages.dedup();
        messages
    }
}

fn refusal(reason: &'static str, fault: &Fault) -> Finding {
    let message = format!("{}; the last good version stays in force", fault.error);
    Finding::fails(reason, message)
}

fn accepted(mesh: &MeshState, route: &JudgedRoute, index: usize, parent: &ParentRef) -> Finding {
    if let Some(error) = route.whole() {
        return Finding::fails("UnsupportedValue", error.to_string());
    }
    if route.is_invalid()
        && let Some(problem) = route.problems().next()
    {
        let reason = match problem.kind {
            ProblemKind::UnsupportedValue => "UnsupportedValue",
            ProblemKind::IncompatibleFilters => "IncompatibleFilters",
        };
        return Finding::fails(reason, problem.error.to_string());
    }
    let path = format!("spec.parentRefs[{index}]");
    match ports(mesh, route, parent) {
        Err(why) => Finding::fails("NoMatchingParent", format!("{path}: {why}")),
        Ok((service, ports)) => conflict(mesh, route, service, &ports, &path),
    }
}

/// The ports that a parent means and that the route fits; or why there are none.
fn ports<'a>(
    mesh: &'a MeshState,
    route: &JudgedRoute,
    parent: &ParentRef,
) -> Result<(&'a MeshService, Vec<&'a MeshPort>), String> {
    let name = route.service_of(parent);
    let Some(service) = mesh.services.get(&name) else {
        return Err(format!("there is no Service {name}"));
    };
    if service.headless {
        return Err(format!(
            "Service {name} is headless: it has no address of its own that could be routed"
        ));
    }
    let number = parent.port.map(std::num::NonZeroU16::get);
    let named = |port: &&MeshPort| names(number, parent.section_name.as_deref(), port);
    let named: Vec<&MeshPort> = service.ports.iter().filter(named).collect();
    if named.is_empty() {
        return Err(match (number, &parent.section_name) {
            (Some(number), _) => format!("Service {name} has no TCP port {number} of that name"),
            (None, Some(section)) => format!("Service {name} has no TCP port {section:?}"),
            (None, None) => format!("Service {name} has no TCP port"),
        });
    }
    let fitting = named.into_iter();
    let fitting: Vec<&MeshPort> = fitting
        .filter(|port| route.kind().fits(port.protocol))
        .collect();
    if fitting.is_empty() {
        let what = match route.kind() {
            RouteKind::Grpc | RouteKind::Http => "HTTP",
            RouteKind::Tls => "TLS",
            RouteKind::Tcp => "TCP",
        };
        let reason = "its name and appProtocol say what it carries";
        return Err(format!("Service {name} has no such {what} port: {reason}"));
    }
    Ok((service, fitting))
}

/// A route is accepted where at least one port takes it.
fn conflict(
    mesh: &MeshState,
    route: &JudgedRoute,
    service: &MeshService,
    ports: &[&MeshPort],
    path: &str,
) -> Finding {
    let namespace = route.object().metadata().namespace();
    let mut winner = None;
    for port in ports {
        let routes = mesh.routes_of(service, port, namespace);
        if routes
            .iter()
            .any(|other| other.reference() == route.reference())
        {
            let mut message = IN_FORCE.to_owned();
            if route.has_idle_hostnames() {
                message += "; spec.hostnames means nothing where a Service is the parent";
            }
            return Finding::holds("Accepted", message);
        }
        winner = winner.or(routes.first().copied());
    }
    let other: Option<ObjectRef> = winner.map(|route: &Arc<JudgedRoute>| route.reference());
    let other = other.map_or_else(|| "another route".to_owned(), |other| other.to_string());
    let name = &service.name;
    Finding::fails(
        "Conflicted",
        format!("{path}: {other} takes the same ports of Service {name}"),
    )
}

/// Mesh routes need no ReferenceGrant (GEP-1294, "Namespace boundaries"): they open nothing that a
/// client could not reach by itself.
fn resolved_refs(mesh: &MeshState, route: &JudgedRoute) -> Finding {
    let namespace = route.object().metadata().namespace();
    for (path, backend) in route.backends() {
        if let Err(fault) = mesh.resolve(namespace, backend, route.kind()) {
            let (reason, message) = fault.describe(namespace, backend);
            return Finding::fails(reason, format!("{path}: {message}"));
        }
    }
    Finding::holds("ResolvedRefs", "every backend exists")
}

fn partially_invalid(route: &JudgedRoute) -> Option<Finding> {
    let problems: Vec<String> = route
        .problems()
        .map(|problem| {
            let error = &problem.error;
            if problem.fails_requests {
                format!("{error} (its requests are answered with an error)")
            } else {
                error.to_string()
            }
        })
        .collect();
    (!problems.is_empty()).then(|| {
        // The prefix is the specification's.
        let message = format!("Dropped Rule(s): {}", problems.join("; "));
        Finding::holds("UnsupportedValue", message)
    })
}

/// Why a backend cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendFault {
    /// It is no Service.
    InvalidKind,
    /// There is no such Service, or it has no such port.
    NotFound,
    /// The port does not carry what the route sends.
    UnsupportedProtocol,
}

impl BackendFault {
    fn describe(self, namespace: &str, backend: &BackendRef) -> (&'static str, String) {
        let name = &backend.name;
        let port = backend.port.map_or(0, std::num::NonZeroU16::get);
        let service = backend.namespace.as_deref().unwrap_or(namespace);
        let service = NamespacedName::new(service, name);
        match self {
            Self::InvalidKind => {
                let kind = backend.kind.as_deref().unwrap_or("Service");
                let group = backend.group.as_deref().unwrap_or("");
                let message =
                    format!("{kind} of group {group:?} is not supported: only a Service is");
                ("InvalidKind", message)
            }
            Self::NotFound => (
                "BackendNotFound",
                format!(
                    "there is no Service {service} with port {port}; its share of the traffic is \
                     answered with an error"
                ),
            ),
            Self::UnsupportedProtocol => (
                "UnsupportedProtocol",
                format!("port {port} of Service {service} is not for HTTP"),
            ),
        }
    }
}

impl MeshState {
    /// The service and port that a route's backend means.
    ///
    /// # Errors
    /// Why there is none that can be sent to.
    pub fn resolve(
        &self,
        namespace: &str,
        backend: &BackendRef,
        kind: RouteKind,
    ) -> Result<(&MeshService, &MeshPort), BackendFault> {
        if !backend.is_service() {
            return Err(BackendFault::InvalidKind);
        }
        let namespace = backend.namespace.as_deref().unwrap_or(namespace);
        let name = NamespacedName::new(namespace, &backend.name);
        let service = self.services.get(&name).ok_or(BackendFault::NotFound)?;
        let number = backend.port.map(std::num::NonZeroU16::get);
        let mut ports = service.ports.iter();
        let port = ports
            .find(|port| Some(port.number) == number)
            .ok_or(BackendFault::NotFound)?;
        let speaks_http = matches!(kind, RouteKind::Grpc | RouteKind::Http);
        if speaks_http && port.protocol == AppProtocol::Tcp {
            return Err(BackendFault::UnsupportedProtocol);
        }
        Ok((service, port))
    }
}
