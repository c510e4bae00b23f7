//! Whether the caller may create what an installation creates.

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::finding::Finding;
use crate::cluster::{Cluster, ClusterError};

const CHECK: &str = "permissions";

/// What the chart creates: group, resource, and whether it lies in the release's namespace.
const CREATED: &[(&str, &str, bool)] = &[
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        false,
    ),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("", "configmaps", true),
    ("", "secrets", true),
    ("apps", "deployments", true),
    ("policy", "poddisruptionbudgets", true),
    ("networking.k8s.io", "networkpolicies", true),
];

/// Asks for each.
pub(super) async fn check(cluster: &Cluster, namespace: &str, findings: &mut Vec<Finding>) {
    let asked = stream::iter(CREATED).map(|(group, resource, inside)| async move {
        let allowed = allowed(cluster, group, resource, inside.then_some(namespace)).await;
        (name(group, resource), allowed)
    });
    let answers: Vec<_> = asked.buffered(8).collect().await;
    let mut missing = Vec::new();
    for (name, allowed) in answers {
        match allowed {
            Ok(true) => {}
            Ok(false) => missing.push(name),
            Err(error) => return findings.push(Finding::unknown(CHECK, &error)),
        }
    }
    findings.push(if missing.is_empty() {
        Finding::pass(
            CHECK,
            "you may create everything that the installation consists of",
        )
    } else {
        Finding::failure(
            CHECK,
            format!("you may not create {}", missing.join(", ")),
            "install as a cluster administrator, or have one bind ClusterRole cluster-admin (or \
             one with these) to you",
        )
    });
}

fn name(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

async fn allowed(
    cluster: &Cluster,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> Result<bool, ClusterError> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some("create".to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client().clone());
    let review = reviews.create(&PostParams::default(), &review).await;
    let review = review.map_err(|source| ClusterError::Api {
        what: "asking what you may do".to_owned(),
        source: Box::new(source),
    })?;
    Ok(review.status.is_some_and(|status| status.allowed))
}
