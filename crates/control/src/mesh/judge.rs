//! What is said of the objects: attached routes, verdicts and warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::registry::{NamespacedName, Object, ObjectRef, Source};

use super::{JudgedRoute, MeshBuilder, MeshRoute, RouteKind, Verdict, Warning};

impl MeshBuilder {
    /// Notes what its neighbours show to be wrong with an object.
    pub(super) fn find(&mut self, reference: ObjectRef, findings: Vec<String>) {
        let before = self.findings.get(&reference).map_or(&[][..], Vec::as_slice);
        if before == findings {
            return;
        }
        self.dirty.warnings = true;
        self.dirty.verdicts |= reference.kind == "WorkloadEntry";
        if findings.is_empty() {
            self.findings.remove(&reference);
        } else {
            self.findings.insert(reference, findings);
        }
    }

    /// Attaches the routes, if they or what they may lead to changed, and says of every object with
    /// a status what became of it.
    pub(super) fn judge(&mut self, routes_changed: bool) {
        let kinds = [
            RouteKind::Grpc,
            RouteKind::Http,
            RouteKind::Tls,
            RouteKind::Tcp,
        ];
        let routes = kinds.iter().flat_map(|kind| self.of_kind(kind.as_str()));
        let routes: Vec<Arc<JudgedRoute>> = routes
            .filter_map(|(_, object)| JudgedRoute::new(object).map(Arc::new))
            .collect();
        if routes_changed {
            let mut attached: BTreeMap<NamespacedName, Vec<MeshRoute>> = BTreeMap::new();
            for (service, attachment) in routes.iter().flat_map(MeshRoute::attachments) {
                attached.entry(service).or_default().push(attachment);
            }
            self.state.routes = Arc::new(attached);
            self.state.routing += 1;
        }
        let mut verdicts = BTreeMap::new();
        for route in &routes {
            let mut verdict = Verdict::of_route(&self.state, route);
            let complaints = verdict
                .complaints()
                .into_iter()
                .map(str::to_owned)
                .collect();
            self.find(route.reference(), complaints);
            if let Some(fault) = self.state.faults.get(&route.reference()) {
                verdict.refuse(fault);
            }
            verdicts.insert(route.reference(), verdict);
        }
        for kind in ["PeerAuthentication", "WorkloadEntry"] {
            for (reference, object) in self.of_kind(kind) {
                let findings = self.findings.get(reference);
                let findings = findings.map_or(&[][..], Vec::as_slice);
                verdicts.insert(reference.clone(), Verdict::accepted(object, findings));
            }
            let faults = self.state.faults.iter();
            for (reference, fault) in faults.filter(|(reference, _)| reference.kind == kind) {
                verdicts.insert(reference.clone(), Verdict::refused(fault));
            }
        }
        self.state.verdicts = Arc::new(verdicts);
    }

    /// What people should know.
    pub(super) fn warnings(&self) -> BTreeSet<Warning> {
        let warning = |reference: &ObjectRef, message: String| {
            let (source, _) = self.objects.get(reference)?;
            Some(Warning {
                object: reference.clone(),
                source: source.clone(),
                message,
            })
        };
        let found = self.findings.iter().flat_map(|(reference, findings)| {
            findings
                .iter()
                .filter_map(|text| warning(reference, text.clone()))
        });
        // In a directory these are errors, and such an object is not here. Of a route the verdict
        // tells; and a service that is left alone works as it does without a mesh.
        let is_told = |object: &Object| match object {
            Object::Service(service) => service.is_served(),
            other => RouteKind::of(other).is_none(),
        };
        let limited = self
            .objects
            .iter()
            .filter(|(_, (source, object))| *source == Source::Cluster && is_told(object));
        let limits = limited.flat_map(|(reference, (_, object))| {
            let limits = object.limits().into_iter();
            limits.filter_map(|limit| warning(reference, limit.to_string()))
        });
        found.chain(limits).collect()
    }
}
